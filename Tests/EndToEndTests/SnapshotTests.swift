import CairnCore
import CairnWire
import Synchronization
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

    /// Writers side by side. Each call writes two sectors in two chunks, which no other call does.
    private final class Writers: Sendable {
        static let count = 4
        static let calls = 100
        /// Calls that were begun, and that were answered, by writer.
        private let state = Mutex(
            (begun: [Int](repeating: 0, count: count), answered: [Int](repeating: 0, count: count))
        )

        var begun: [Int] { state.withLock { $0.begun } }
        var answered: [Int] { state.withLock { $0.answered } }
        var areDone: Bool { answered.allSatisfy { $0 == Writers.calls } }

        static func places(_ writer: Int, _ call: Int) -> [Int] {
            let base = writer * 262_144 + call / 50 * 131_072 + call % 50 * 1024
            return [base, base + 65536]
        }

        func run(_ writer: Int, _ caller: Caller, _ volume: [UInt8]) async throws {
            let sector = [UInt8](repeating: UInt8(writer + 1), count: 512)
            for call in 0..<Writers.calls {
                state.withLock { $0.begun[writer] += 1 }
                try await caller.upload(volume, Writers.places(writer, call).map { .plain(UInt64($0), sector) })
                state.withLock { $0.answered[writer] += 1 }
            }
        }

        /// How many of a writer's first calls are there; nil where one is there in part, or one that came after one that is not.
        static func prefix(of writer: Int, in content: [UInt8]) -> Int? {
            let sectors = (0..<calls).map { call in places(writer, call).map { Int(content[$0]) } }
            let whole = sectors.prefix { $0 == [writer + 1, writer + 1] }.count
            return sectors.dropFirst(whole).allSatisfy { $0 == [0, 0] } ? whole : nil
        }
    }

    @Test(
        "S2, U2: under parallel writers it holds each one's calls up to some point: all that were answered, whole, no gaps"
    )
    func pointInTimeUnderLoad() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        let writers = Writers()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<Writers.count {
                group.addTask { try await writers.run(writer, try await server.connect(account), volume) }
            }
            while !writers.areDone {
                let answered = writers.answered
                let snapshot = try await caller.createSnapshot(volume).snapshotID
                let begun = writers.begun
                let content = try await caller.download(snapshot: snapshot, 0..<1 << 20)
                for writer in 0..<Writers.count {
                    let held = try #require(Writers.prefix(of: writer, in: content), "writer \(writer)")
                    #expect((answered[writer]...begun[writer]).contains(held), "writer \(writer)")
                }
                #expect(try await caller.download(snapshot: snapshot, 0..<1 << 20) == content)
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
