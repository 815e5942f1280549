import CairnCore
import CairnWire
import Testing

@Suite(.serialized, .server())
struct SnapshotTests {
    private let server = ServerProcess.shared

    @Test("S1: each snapshot raises the volume's data version by one, also when many are made at once")
    func versions() async throws {
        let caller = try await server.connect(freshAccount())
        let created = try await caller.createVolume()
        let versions = try await withThrowingTaskGroup(of: UInt64.self) { group in
            for _ in 0..<20 { group.addTask { try await caller.createSnapshot(created.volumeID).dataVersion } }
            var versions: [UInt64] = []
            for try await version in group { versions.append(version) }
            return versions
        }
        #expect(versions.sorted() == (2..<22).map { UInt64($0) })
        #expect(try await caller.describeVolume(created.volumeID).dataVersion == 22)
    }

    @Test("S2: a snapshot holds what was acknowledged before it, and nothing that was sent after its answer")
    func pointInTime() async throws {
        let caller = try await server.connect(freshAccount())
        let created = try await caller.createVolume()
        let range: Range<UInt64> = 0..<1 << 20
        var history: [(snapshot: [UInt8], bytes: [UInt8])] = []
        var content = [UInt8](repeating: 0, count: 1 << 20)
        for round in 0..<6 {
            let offset = round * 100 * 1024
            let piece = Content.noise(UInt64(round), 70 * 1024)
            try await caller.upload(created.volumeID, .plain(UInt64(offset), piece))
            content.replaceSubrange(offset..<offset + piece.count, with: piece)
            let snapshot = try await caller.createSnapshot(created.volumeID)
            #expect(snapshot.state == .complete)
            history.append((snapshot.snapshotID, content))
        }
        for (snapshot, bytes) in history {
            #expect(try await caller.download(snapshot: snapshot, range) == bytes)
        }
    }

    @Test("S2: a snapshot under parallel writes is a point in time: it holds each writer's stamps without gaps")
    func pointInTimeUnderLoad() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let created = try await caller.createVolume()
        // Each writer writes rising stamps over two far places in one call: all or nothing, so a snapshot sees equal ones.
        let writers = 4
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<writers {
                group.addTask {
                    let own = try await server.connect(account)
                    for stamp in 1...30 {
                        let sector = [UInt8](repeating: UInt8(stamp), count: 512)
                        let base = UInt64(writer) * 131072
                        try await own.upload(created.volumeID, .plain(base, sector), .plain(base + 65536, sector))
                    }
                }
            }
            group.addTask {
                for _ in 0..<15 {
                    let snapshot = try await caller.createSnapshot(created.volumeID).snapshotID
                    for writer in 0..<writers {
                        let base = UInt64(writer) * 131072
                        let read = try await caller.download(
                            .snapshotID(snapshot),
                            [base..<base + 512, base + 65536..<base + 66048]
                        )
                        #expect(Set(read.bytes).count == 1)
                        let again = try await caller.download(
                            .snapshotID(snapshot),
                            [base..<base + 512, base + 65536..<base + 66048]
                        )
                        #expect(again.bytes == read.bytes)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test(
        "S6: the seal equals the one computed from the local data, however zeros are stored; a complete snapshot never changes"
    )
    func seals() async throws {
        let caller = try await server.connect(freshAccount())
        let size = 300 * 4096
        let created = try await caller.createVolume(size: UInt64(size), chunkSize: 4096)
        var content = Content.noise(11, size)
        content.replaceSubrange(10 * 4096..<200 * 4096, with: [UInt8](repeating: 0, count: 190 * 4096))
        // Zeros as data, as a mark, as a hole that was data, and as what was never written.
        try await caller.upload(
            created.volumeID,
            .plain(0, Array(content[0..<10 * 4096])),
            .plain(10 * 4096, [UInt8](repeating: 0, count: 20 * 4096)),
            .zeros(30 * 4096, 20 * 4096),
            .plain(50 * 4096, Content.noise(12, 10 * 4096))
        )
        try await caller.upload(created.volumeID, .hole(50 * 4096, 10 * 4096))
        try await caller.upload(created.volumeID, .plain(200 * 4096, Array(content[(200 * 4096)...])))
        // Part of a chunk too: merged before it is sealed.
        let patch = Content.noise(13, 512)
        try await caller.upload(created.volumeID, .plain(250 * 4096 + 1024, patch))
        content.replaceSubrange(250 * 4096 + 1024..<250 * 4096 + 1536, with: patch)
        let snapshot = try await caller.createSnapshot(created.volumeID).snapshotID
        let seal = try await caller.seal(snapshot)
        #expect(seal == Content.seal(content, chunkSize: 4096))
        try await caller.upload(created.volumeID, .plain(0, Content.noise(14, size)))
        #expect(try await caller.seal(snapshot) == seal)
        #expect(try await caller.download(snapshot: snapshot, 0..<UInt64(size)) == content)
    }

    @Test("S6: an empty snapshot has the seal of zeros; two volumes of one content have one seal")
    func sealsOfEqualContent() async throws {
        let caller = try await server.connect(freshAccount())
        let created = try await caller.createVolume()
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        #expect(try await caller.seal(created.initialSnapshotID) == Content.seal(zeros, chunkSize: 65536))
        let bytes = Content.text(15, 1 << 20)
        var seals: Set<[UInt8]> = []
        for upload in [Upload.plain(0, bytes)] {
            let volume = try await caller.createVolume()
            try await caller.upload(volume.volumeID, upload)
            seals.insert(try await caller.seal(try await caller.createSnapshot(volume.volumeID).snapshotID))
        }
        let volume = try await caller.createVolume()
        for index in 0..<16 {
            try await caller.upload(
                volume.volumeID,
                .lz4(UInt64(index) * 65536, Array(bytes[index * 65536..<(index + 1) * 65536]))
            )
        }
        seals.insert(try await caller.seal(try await caller.createSnapshot(volume.volumeID).snapshotID))
        #expect(seals == [Content.seal(bytes, chunkSize: 65536)])
    }

    @Test("S7: the snapshot token finds the snapshot on any connection of its account, and gives no right to others")
    func tokens() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let created = try await caller.createVolume()
        let bytes = Content.noise(16, 65536)
        try await caller.upload(created.volumeID, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(created.volumeID)
        let other = try await server.connect(account)
        #expect(try await other.download(.snapshotToken(snapshot.snapshotToken), [0..<65536]).bytes == bytes)
        let described = try await other.call(
            Wire.DescribeSnapshotRequest(target: .snapshotToken(snapshot.snapshotToken))
        ).message
        #expect(described.snapshot?.snapshotID == snapshot.snapshotID)
        let stranger = try await server.connect(freshAccount())
        let error = try await failure {
            try await stranger.download(.snapshotToken(snapshot.snapshotToken), [0..<65536])
        }
        #expect(error.reason == .invalidSnapshotID)
    }

    @Test("S8: a deleted snapshot is gone, others and the volume keep their data")
    func delete() async throws {
        let caller = try await server.connect(freshAccount())
        let created = try await caller.createVolume()
        let old = Content.noise(17, 1 << 20)
        try await caller.upload(created.volumeID, .plain(0, old))
        let first = try await caller.createSnapshot(created.volumeID).snapshotID
        try await caller.upload(created.volumeID, .plain(0, Content.noise(18, 65536)))
        let second = try await caller.createSnapshot(created.volumeID).snapshotID
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: first)
        _ = try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: first))
        #expect(try await failure { try await caller.describeSnapshot(first) }.reason == .invalidSnapshotID)
        let again = try await failure { try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: first)) }
        #expect(again.reason == .invalidSnapshotID)
        let expected = Content.noise(18, 65536) + old[65536...]
        #expect(try await caller.download(snapshot: second, 0..<1 << 20) == expected)
        #expect(try await caller.download(created.volumeID, 0..<1 << 20) == expected)
        #expect(try await caller.download(clone.volumeID, 0..<1 << 20) == old)
    }

    @Test("C6: what one connection was answered, every other sees")
    func readYourWrites() async throws {
        let account = freshAccount()
        let writer = try await server.connect(account)
        let reader = try await server.connect(account)
        let created = try await writer.createVolume()
        for round in 0..<50 {
            let bytes = Content.noise(UInt64(round), 4096)
            try await writer.upload(
                created.volumeID,
                [.plain(UInt64(round % 7) * 1024, bytes)],
                durability: round % 2 == 0 ? .durable : .onFlush
            )
            let start = UInt64(round % 7) * 1024
            #expect(try await reader.download(created.volumeID, start..<start + 4096) == bytes)
        }
    }
}
