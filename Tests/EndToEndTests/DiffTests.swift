import CairnCore
import CairnWire
import Testing

/// SPEC R1: what differs between two snapshots, or a snapshot and a volume.
@Suite(.serialized, .server(shards: 3))
struct DiffTests {
    private let server = ServerProcess.shared
    private let chunk = 65536

    /// The chunks that differ, by their places.
    private func places(_ one: [UInt8], _ other: [UInt8]) -> [UInt64] {
        stride(from: 0, to: max(one.count, other.count), by: chunk).filter { start in
            let old = Array(one.dropFirst(start).prefix(chunk))
            let new = Array(other.dropFirst(start).prefix(chunk))
            return old + [UInt8](repeating: 0, count: chunk - old.count)
                != new + [UInt8](repeating: 0, count: chunk - new.count)
        }.map { UInt64($0) }
    }

    /// What is listed turns the older content into the newer one, and names nothing that is the same.
    private func check(
        _ caller: Caller,
        _ older: (Wire.Target.Target, [UInt8]),
        _ newer: (Wire.Target.Target, [UInt8]),
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let expected = places(older.1, newer.1)
        for pages in [0, 1, 3] as [UInt32] {
            let listed = try await caller.changed(older.0, newer.0, pages: pages)
            let within = listed.filter { $0.offset < newer.1.count }
            #expect(
                within.map(\.offset) == expected.filter { $0 < newer.1.count },
                sourceLocation: sourceLocation
            )
            for block in within {
                let bytes = Array(newer.1.dropFirst(Int(block.offset)).prefix(chunk))
                let isZero = bytes.allSatisfy { $0 == 0 }
                #expect((block.state == .data) == !isZero, sourceLocation: sourceLocation)
                if !block.token.isEmpty, !isZero {
                    #expect(block.token == Content.token(bytes), sourceLocation: sourceLocation)
                }
            }
        }
    }

    @Test(
        "R1: between snapshots of one volume, its clones and the volume itself, both ways, each chunk that differs is listed"
    )
    func related() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        var content = [UInt8](repeating: 0, count: 1 << 20)
        var history: [(Wire.Target.Target, [UInt8])] = []
        for round in 0..<5 {
            for step in 0..<3 {
                let (offset, bytes) = (
                    (round * 5 + step * 3) % 16 * chunk + step * 512, Content.noise(UInt64(round * 10 + step), 4096)
                )
                try await caller.upload(volume, .plain(UInt64(offset), bytes))
                content = content.replacing(offset, bytes)
            }
            if round == 3 {
                try await caller.upload(volume, .hole(0, 65536), .zeros(65536, 65536))
                content = content.replacing(0, [UInt8](repeating: 0, count: 2 * chunk))
            }
            history.append((.snapshotID(try await caller.createSnapshot(volume).snapshotID), content))
        }
        guard case .snapshotID(let second) = history[1].0 else { return }
        let clone = try await caller.createVolume(size: 2 << 20, chunkSize: 0, from: second).volumeID
        let bytes = Content.noise(90, 3 * chunk)
        try await caller.upload(clone, .plain(UInt64(14 * chunk), bytes))
        let cloned = (history[1].1 + [UInt8](repeating: 0, count: 1 << 20)).replacing(14 * chunk, bytes)
        history.append((.snapshotID(try await caller.createSnapshot(clone).snapshotID), cloned))
        try await caller.upload(volume, .plain(0, Content.noise(91, 512)))
        content = content.replacing(0, Content.noise(91, 512))
        history.append((.volumeID(volume), content))
        history.append((.volumeID(clone), cloned))
        for (place, older) in history.enumerated() {
            for newer in history[place...] {
                if case .volumeID = older.0, case .volumeID = newer.0 { continue }
                try await check(caller, older, newer)
                try await check(caller, newer, older)
            }
        }
    }

    @Test("R1: between snapshots that have nothing to do with each other, on any shards, of different sizes")
    func unrelated() async throws {
        let caller = try await server.connect(freshAccount())
        let shared = Content.noise(100, 8 * chunk)
        var all: [(Wire.Target.Target, [UInt8])] = []
        for index in 0..<4 {
            let size = index == 3 ? 3 << 20 : 1 << 20
            let volume = try await caller.createVolume(size: UInt64(size)).volumeID
            let own = Content.noise(UInt64(101 + index), 3 * chunk)
            try await caller.upload(volume, .plain(0, shared), .plain(UInt64((6 + index) * chunk), own))
            let content = [UInt8](repeating: 0, count: size).replacing(0, shared).replacing((6 + index) * chunk, own)
            all.append((.snapshotID(try await caller.createSnapshot(volume).snapshotID), content))
        }
        for older in all { for newer in all { try await check(caller, older, newer) } }
    }

    @Test("R1, S3: a snapshot in progress can be asked about, too: what was sent so far")
    func inProgress() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createLocal().volumeID
        let base = Content.noise(110, 1 << 20)
        let first = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(to: .snapshotID(first), [.plain(0, base)], progress: 100)
        let open = try await caller.createSnapshot(volume).snapshotID
        #expect(try await caller.changed(.snapshotID(first), .snapshotID(open)).isEmpty)
        let part = Content.noise(111, 1024)
        try await caller.upload(snapshot: open, .plain(UInt64(5 * chunk) + 512, part))
        try await check(
            caller,
            (.snapshotID(first), base),
            (.snapshotID(open), base.replacing(5 * chunk + 512, part))
        )
    }

    @Test("R1: sides of other chunk sizes are compared by their bytes; what is not there is refused")
    func refusals() async throws {
        let caller = try await server.connect(freshAccount())
        let (first, second) = (
            try await caller.createVolume().volumeID, try await caller.createVolume(chunkSize: 4096).volumeID
        )
        let bytes = Content.noise(120, 1 << 20)
        try await caller.upload(first, .plain(0, bytes))
        try await caller.upload(second, .plain(0, bytes))
        let one = try await caller.createSnapshot(first).snapshotID
        let equal = try await caller.createSnapshot(second).snapshotID
        #expect(try await caller.changed(.snapshotID(one), .snapshotID(equal)).isEmpty)
        #expect(try await caller.changed(.snapshotID(equal), .snapshotID(one)).isEmpty)
        // A sector, a chunk of zeros, and one that is not there any more: as the newer side is cut, with its tokens.
        let part = Content.noise(121, 512)
        try await caller.upload(
            second,
            .plain(70 * 4096 + 512, part),
            .zeros(100 * 4096, 4096),
            .hole(255 * 4096, 4096)
        )
        let other = try await caller.createSnapshot(second).snapshotID
        let fine = try await caller.changed(.snapshotID(one), .snapshotID(other))
        #expect(fine.map(\.offset) == [70, 100, 255].map { $0 * 4096 } && fine.map(\.state) == [.data, .zeros, .hole])
        let coarse = try await caller.changed(.snapshotID(other), .snapshotID(one))
        #expect(coarse.map(\.offset) == [4, 6, 15].map { $0 * 65536 })
        #expect(coarse.map(\.token) == [4, 6, 15].map { Content.token(Array(bytes[$0 * chunk..<($0 + 1) * chunk])) })
        try await expectFailure(.invalidSnapshotID) {
            try await caller.changed(.snapshotID(one), .snapshotID(UUID128.random(shard: ShardIndex(0)).bytes))
        }
        try await expectFailure(.invalidVolumeID) {
            try await caller.changed(.snapshotID(one), .volumeID(UUID128.random(shard: ShardIndex(0)).bytes))
        }
    }
}
