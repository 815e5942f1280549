import CairnCore
import CairnWire
import Testing

/// SPEC R1 and V7: the calls on blocks beside upload and download, and the snapshots' listings.
@Suite(.serialized, .server())
struct BlockCallTests {
    private let server = ServerProcess.shared
    private let whole: Range<UInt64> = 0..<1 << 20

    private func zeroes(
        _ caller: Caller,
        _ target: Wire.Target.Target,
        _ ranges: [Range<UInt64>],
        durability: Wire.Durability = .durable
    ) async throws -> [UInt8] {
        let ranges = ranges.map { Wire.ByteRange(offset: $0.lowerBound, length: UInt64($0.count)) }
        return try await caller.call(
            Wire.WriteZeroesRequest(target: target.wire, ranges: ranges, durability: durability)
        ).message.writeVerifier
    }

    private func discard(_ caller: Caller, _ target: Wire.Target.Target, _ ranges: [Range<UInt64>]) async throws
        -> [UInt8]
    {
        let ranges = ranges.map { Wire.ByteRange(offset: $0.lowerBound, length: UInt64($0.count)) }
        return try await caller.call(Wire.DiscardRequest(target: target.wire, ranges: ranges)).message.writeVerifier
    }

    @Test("R1, V7: WriteZeroes and Discard of any ranges read as zeros; zeros count as written, holes do not")
    func zeroesAndDiscard() async throws {
        let caller = try await server.connect(freshAccount())
        let parent = try await caller.createVolume().volumeID
        let bytes = Content.noise(1, 1 << 20)
        try await caller.upload(parent, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(parent).snapshotID
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: snapshot).volumeID
        let local = try await caller.createLocal(size: 0, chunkSize: 0, from: snapshot).volumeID
        let open = try await caller.createSnapshot(local).snapshotID
        // Whole chunks, parts of one, and over several.
        let zeros: [Range<UInt64>] = [
            65536..<131072, 3 * 65536 + 512..<3 * 65536 + 1024, 5 * 65536 + 4096..<8 * 65536 - 512,
        ]
        let holes: [Range<UInt64>] = [9 * 65536..<11 * 65536, 12 * 65536 + 1024..<13 * 65536 + 512]
        var expected = bytes
        for range in zeros + holes {
            expected = expected.replacing(Int(range.lowerBound), [UInt8](repeating: 0, count: range.count))
        }
        for target in [Wire.Target.Target.volumeID(parent), .volumeID(clone), .snapshotID(open)] {
            #expect(try await zeroes(caller, target, zeros).count == 8)
            #expect(try await discard(caller, target, holes).count == 8)
            #expect(try await caller.download(target, [whole]).bytes == expected)
            let blocks = try await caller.download(target, [65536..<131072, 9 * 65536..<11 * 65536]).blocks
            #expect(blocks.first?.content == .zeros(Wire.Empty()))
            #expect(blocks.dropFirst().allSatisfy { $0.content == .hole(Wire.Empty()) })
        }
        #expect(try await caller.download(snapshot: snapshot, whole) == bytes)
        try await caller.progress(open, 100)
        #expect(try await caller.seal(open) == Content.seal(expected, chunkSize: 65536))
        let verifier = try await zeroes(caller, .volumeID(clone), [0..<512], durability: .onFlush)
        #expect(try await caller.call(Wire.FlushRequest(volumeID: clone)).message.writeVerifier == verifier)
        #expect(try await caller.download(clone, 0..<512) == [UInt8](repeating: 0, count: 512))
    }

    @Test("R1, U2, U3: a bad range of WriteZeroes and Discard is INVALID_ARGUMENT naming it, and nothing is done")
    func badRanges() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(2, 1 << 20)
        try await caller.upload(volume, .plain(0, bytes))
        for (offset, length) in [
            (1, 512), (0, 100), (1 << 20, 512), (0, 0), ((1 << 20) - 512, 1024), (.max - 511, 1024),
        ]
            as [(UInt64, UInt64)]
        {
            let ranges = [Wire.ByteRange(offset: 0, length: 512), Wire.ByteRange(offset: offset, length: length)]
            let target = Wire.Target(target: .volumeID(volume))
            try await expectFailure(.invalidArgument, block: 1) {
                try await caller.call(Wire.WriteZeroesRequest(target: target, ranges: ranges))
            }
            try await expectFailure(.invalidArgument, block: 1) {
                try await caller.call(Wire.DiscardRequest(target: target, ranges: ranges))
            }
        }
        #expect(try await caller.download(volume, whole) == bytes)
    }

    @Test("V7, S8: what is discarded, and held by nothing else, costs nothing: a discarded volume lists no block")
    func discardedIsFree() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        try await caller.upload(volume, .plain(0, Content.noise(3, 1 << 20)))
        _ = try await discard(caller, .volumeID(volume), [whole])
        #expect(try await caller.blocks(.volumeID(volume)).filter { $0.state != .hole }.isEmpty)
        #expect(try await caller.download(volume, whole) == [UInt8](repeating: 0, count: 1 << 20))
        for targets in [[], [Wire.Target.Target.volumeID(volume).wire]] {
            let usage = try await caller.call(Wire.GetUsageRequest(targets: targets)).message.total
            #expect(usage?.uniqueBytes ?? 0 == 0 && usage?.storedBytes ?? 0 == 0, "\(targets)")
        }
        // A snapshot holds what was there before: that is all that is paid for, once.
        try await caller.upload(volume, .plain(0, Content.noise(5, 4 * 65536)))
        _ = try await caller.createSnapshot(volume)
        _ = try await discard(caller, .volumeID(volume), [whole])
        #expect(try await caller.call(Wire.GetUsageRequest()).message.total?.storedBytes == 4 * 65536)
    }

    @Test("R1: ListBlocks of a range, of volumes and of snapshots, tells states, tokens and owners")
    func listRange() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(4, 4 * 65536)
        try await caller.upload(volume, .plain(65536, bytes), .zeros(6 * 65536, 65536))
        let snapshot = try await caller.createSnapshot(volume)
        for target in [
            Wire.Target.Target.volumeID(volume), .snapshotID(snapshot.snapshotID),
            .snapshotToken(snapshot.snapshotToken),
        ] {
            let request = Wire.ListBlocksRequest(
                target: target.wire,
                range: .init(offset: 2 * 65536, length: 5 * 65536)
            )
            let blocks = try await caller.call(request).message.blocks.filter { $0.state != .hole }
            #expect(blocks.map(\.offset) == [2, 3, 4, 6].map { UInt64($0) * 65536 })
            #expect(blocks.map(\.state) == [.data, .data, .data, .zeros])
            #expect(
                blocks.prefix(3).map(\.token)
                    == (1..<4).map { Content.token(Array(bytes[$0 * 65536..<($0 + 1) * 65536])) }
            )
            #expect(blocks.prefix(3).allSatisfy { $0.owner == account })
        }
    }

    @Test("R1: snapshots are listed by volume, state and tag, in pages; a page token of other filters is refused")
    func listSnapshots() async throws {
        let caller = try await server.connect(freshAccount())
        let (remote, local) = (try await caller.createVolume().volumeID, try await caller.createLocal().volumeID)
        var made: [[UInt8]] = []
        for index in 0..<7 {
            made.append(
                try await caller.createSnapshot(
                    index % 2 == 0 ? remote : local,
                    description: "number \(index)",
                    tags: [.init(key: "third", value: "\(index % 3)")]
                ).snapshotID
            )
        }
        func list(_ request: Wire.ListSnapshotsRequest) async throws -> [[UInt8]] {
            var (found, token): ([[UInt8]], [UInt8]) = ([], [])
            repeat {
                var request = request
                request.page = .init(limit: 2, pageToken: token)
                let page = try await caller.call(request).message
                #expect(page.snapshots.count <= 2)
                found += page.snapshots.map(\.snapshotID)
                token = page.nextPageToken
            } while !token.isEmpty
            return found
        }
        let ofLocal = try await list(.init(volumeID: local, state: .inProgress))
        #expect(ofLocal == [made[1], made[3], made[5]])
        let tagged = try await list(.init(tags: [.init(key: "third", value: "1")]))
        #expect(Set(tagged) == [made[1], made[4]])
        let complete = try await list(.init(volumeID: remote, state: .complete))
        #expect(complete.count == 5)
        #expect(Array(complete.dropFirst()) == [made[0], made[2], made[4], made[6]])
        #expect(Set(try await list(.init())).isSuperset(of: made))
        #expect(try await caller.describeSnapshot(made[4]).description == "number 4")
        let first = Wire.ListSnapshotsRequest(page: .init(limit: 1), volumeID: remote, state: .complete)
        let token = try await caller.call(first).message.nextPageToken
        let page = Wire.PageRequest(limit: 2, pageToken: token)
        #expect(
            try await caller.call(Wire.ListSnapshotsRequest(page: page, volumeID: remote, state: .complete)).message
                .snapshots.map(\.snapshotID) == [made[0], made[2]]
        )
        for other in [
            Wire.ListSnapshotsRequest(page: page), .init(page: page, volumeID: remote),
            .init(page: page, volumeID: local, state: .complete),
            .init(page: page, volumeID: remote, state: .inProgress),
            .init(page: page, volumeID: remote, tags: [.init(key: "third", value: "0")], state: .complete),
        ] {
            let error = try await failure { try await caller.call(other) }
            #expect(error.reason == .invalidArgument && error.text.contains("page_token"), "\(error)")
        }
        let volumes = try await failure { try await caller.call(Wire.ListVolumesRequest(page: page)) }
        #expect(volumes.reason == .invalidArgument && volumes.text.contains("page_token"), "\(volumes)")
    }
}
