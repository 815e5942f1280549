import CairnCore
import CairnRPC
import CairnTesting
import CairnWire
import Foundation
import Testing

@testable import CairnClient

struct BackupTests {
    static let chunk = 4096

    static func run(
        _ path: String,
        into server: FakeServer,
        _ change: (inout BackupOptions) -> Void = { _ in }
    ) async throws -> BackupSummary {
        var options = BackupOptions()
        change(&options)
        let backup = Backup(
            client: Client(caller: server),
            source: try ImportSource.open(path),
            volume: server.volume,
            options: options
        )
        return try await limited { try await backup.run() }
    }

    static func content(_ server: FakeServer, _ id: SnapshotID) -> [UInt8] {
        server.state.withLock { state in
            state.chunks = state.local.first { $0.id == id }!.chunks
        }
        return server.content
    }

    static func last(_ server: FakeServer) -> FakeServer.LocalSnapshot { server.state.withLock { $0.local.last! } }

    @Test(
        "S3, S6: a backup completes a snapshot that is equal to the disk, and only what changed is sent the next time"
    )
    func twice() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 21)
        let size: UInt64 = 2 << 20
        let bytes = random.bytes(1 << 20)
        let disk = try folder.sparse("disk", size: size, [0: bytes])
        let server = FakeServer.local(size: size)
        let first = try await Self.run(disk, into: server)
        #expect(try Self.content(server, first.snapshot) == contents(disk))
        #expect(first.progress.transferred == 1 << 20 && first.sealCheck == .matched && !first.resumed)
        #expect(first.expected == 256, "what is to come was told")
        // Some chunks change, one becomes zeros, one that was a hole becomes data that is there already.
        let file = try OpenFile.open(disk, OpenFile.readWrite)
        try random.bytes(100).withUnsafeBytes { try file.write(at: 50_000, $0) }
        try [UInt8](repeating: 0, count: Self.chunk).withUnsafeBytes { try file.write(at: 8192, $0) }
        try Array(bytes[0..<Self.chunk]).withUnsafeBytes { try file.write(at: (1 << 20) + 4096, $0) }
        let second = try await Self.run(disk, into: server)
        #expect(second.snapshot != first.snapshot && second.dataVersion == first.dataVersion.next)
        #expect(try Self.content(server, second.snapshot) == contents(disk))
        #expect(second.progress.transferred == UInt64(Self.chunk))
        #expect(second.progress.deduplicated == UInt64(Self.chunk))
        #expect(second.progress.inPlace == (1 << 20) - 2 * UInt64(Self.chunk))
        #expect(second.expected == 2)
        #expect(Self.last(server).state == .complete && Self.last(server).missing.isEmpty)
    }

    @Test("S3: nothing changed: nothing is sent, and a snapshot is made all the same")
    func nothing() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 22)
        let disk = try folder.sparse("disk", size: 1 << 20, [4096: random.bytes(300_000)])
        let server = FakeServer.local(size: 1 << 20)
        _ = try await Self.run(disk, into: server)
        let uploads = server.state.withLock { $0.uploads }
        let again = try await Self.run(disk, into: server)
        #expect(server.state.withLock { $0.uploads } == uploads)
        #expect(again.progress.transferred == 0 && again.progress.wire == 0 && again.expected == 0)
        #expect(again.progress.done == 1 << 20)
    }

    @Test("V5: of a volume made of a snapshot in progress all is sent, each time; the backup's snapshot waits")
    func unsettled() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 29)
        let disk = try folder.sparse("disk", size: 1 << 20, [0: random.bytes(64 << 10)])
        let server = FakeServer.local(size: 1 << 20)
        server.state.withLock { $0.isUnsettled = true }
        for round in 0..<2 {
            server.state.withLock { $0.written = [] }
            let summary = try await Self.run(disk, into: server)
            #expect(summary.sealCheck == .waiting && summary.expected == 0)
            #expect(server.state.withLock { $0.written } == Set(0..<256), "round \(round)")
            #expect(try Self.content(server, summary.snapshot) == contents(disk))
        }
        server.state.withLock { state in
            state.isUnsettled = false
            state.written = []
        }
        #expect(try await Self.run(disk, into: server).sealCheck == .matched)
        #expect(server.state.withLock { $0.written }.isEmpty)
    }

    @Test("S9, U1: progress goes with the uploads, never backwards, and ends with 100")
    func progress() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 23)
        let disk = try folder.sparse("disk", size: 8 << 20, [0: random.bytes(8 << 20)])
        let server = FakeServer.local(size: 8 << 20)
        // Few pieces at a time, so that reports do not wait for each other.
        _ = try await Self.run(disk, into: server) { $0.memory = 512 << 10 }
        let reports = Self.last(server).reports
        #expect(reports == reports.sorted() && reports.last == 100 && reports.count > 2, "\(reports)")
    }

    @Test("S4, S5: an interrupted backup is gone on with from what the service holds", arguments: [true, false])
    func resume(isFrozen: Bool) async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 24)
        let disk = try folder.sparse("disk", size: 4 << 20, [0: random.bytes(4 << 20)])
        let server = FakeServer.local(size: 4 << 20)
        server.state.withLock { $0.failures[9] = CallError(.storeFull, "", retryable: false) }
        await #expect(throws: ClientError.self) { try await Self.run(disk, into: server) { $0.isFrozen = isFrozen } }
        let left = Self.last(server)
        #expect(left.state == .inProgress && !left.chunks.isEmpty)
        let refused = await #expect(throws: ClientError.self) { try await Self.run(disk, into: server) }
        #expect(refused?.code == .invalidRequest && Self.last(server).id == left.id)
        // Another machine: another file of the same content.
        let copy = folder.file("copy")
        try FileManager.default.copyItem(atPath: disk, toPath: copy)
        let resumed = try await Self.run(copy, into: server) { $0.unfinished = .resume }
        #expect(resumed.snapshot == left.id && resumed.resumed)
        #expect(resumed.missingAtStart == UInt64(isFrozen ? 1024 - left.chunks.count : 0))
        #expect(resumed.progress.inPlace == UInt64(left.chunks.count * Self.chunk))
        #expect(try Self.content(server, resumed.snapshot) == contents(disk))
        #expect(server.state.withLock { $0.received.values.allSatisfy { $0 == 1 } }, "nothing is sent twice")
    }

    @Test("S4: after an earlier snapshot was cancelled, the backup compares everything and declares it")
    func rebase() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 25)
        let disk = try folder.sparse("disk", size: 1 << 20, [0: random.bytes(1 << 20)])
        let server = FakeServer.local(size: 1 << 20)
        let client = Client(caller: server)
        let earlier = try await client.createSnapshot(of: server.volume)
        let later = try await client.createSnapshot(of: server.volume)
        try await client.deleteSnapshot(earlier.id)
        let summary = try await Self.run(disk, into: server) { $0.unfinished = .resume }
        #expect(summary.snapshot == later.id && summary.rebased && Self.last(server).rebased)
        #expect(try Self.content(server, later.id) == contents(disk))
    }

    @Test("S5: a disk that is not what the interrupted backup began with is not passed off as it")
    func anotherDisk() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 26)
        let disk = try folder.sparse("disk", size: 1 << 20, [0: random.bytes(1 << 20)])
        let server = FakeServer.local(size: 1 << 20)
        server.state.withLock { $0.failures[2] = CallError(.storeFull, "", retryable: false) }
        await #expect(throws: ClientError.self) { try await Self.run(disk, into: server) }
        let other = try folder.sparse("other", size: 1 << 20, [0: random.bytes(1 << 20)])
        let error = await #expect(throws: ClientError.self) {
            try await Self.run(other, into: server) { $0.unfinished = .resume }
        }
        #expect(error?.code == .source && Self.last(server).state == .inProgress)
    }

    @Test("S5: a disk that is written to between the scan and the upload is told, and the snapshot is cancelled")
    func movedUnder() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 28)
        let disk = try folder.sparse("disk", size: 1 << 20, [0: random.bytes(1 << 20)])
        let server = FakeServer.local(size: 1 << 20)
        let late = random.bytes(100)
        let meddler = Meddler(server) {
            guard let file = try? OpenFile.open(disk, OpenFile.readWrite) else { return }
            late.withUnsafeBytes { try? file.write(at: 700_000, $0) }
        }
        let backup = Backup(
            client: Client(caller: meddler),
            source: try ImportSource.open(disk),
            volume: server.volume
        )
        let error = await #expect(throws: ClientError.self) { try await limited { try await backup.run() } }
        #expect(error?.code == .source && error?.text.contains("offset 696320") == true)
        #expect(Self.last(server).isDeleted)
        // In use, and said so: each chunk as it is when it is read.
        let live = Backup(
            client: Client(caller: meddler),
            source: try ImportSource.open(disk),
            volume: server.volume,
            options: {
                var options = BackupOptions()
                options.isFrozen = false
                return options
            }()
        )
        let summary = try await limited { try await live.run() }
        #expect(summary.expected == 0 && summary.sealCheck == .matched)
        #expect(try Self.content(server, summary.snapshot) == contents(disk))
    }

    @Test("S6: a seal that is another than what was read is told, and the snapshot does not stay as a good one")
    func wrongSeal() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 27)
        let disk = try folder.sparse("disk", size: 1 << 20, [0: random.bytes(1 << 20)])
        let server = FakeServer.local(size: 1 << 20)
        let first = try await Self.run(disk, into: server)
        // The service loses a chunk of the next one's base, unnoticed.
        server.state.withLock { state in
            let place = state.local.firstIndex { $0.id == first.snapshot }!
            state.local[place].chunks[3] = .data(fingerprint(UnsafeRawBufferPointer(start: nil, count: 0)))
            state.pageItems = 1000
        }
        let backup = Backup(
            client: Client(caller: LyingListing(server, chunk: 3)),
            source: try ImportSource.open(disk),
            volume: server.volume
        )
        let error = await #expect(throws: ClientError.self) { try await limited { try await backup.run() } }
        #expect(error?.code == .damaged && error?.text.contains("it was deleted") == true)
        #expect(Self.last(server).isDeleted && Self.last(server).id != first.snapshot)
    }

    @Test("V3: a REMOTE volume takes no backup, and a disk must fit")
    func refusals() async throws {
        let folder = TemporaryFolder()
        let disk = try folder.sparse("disk", size: 2 << 20, [:])
        let remote = await #expect(throws: ClientError.self) {
            try await Self.run(disk, into: FakeServer(size: 2 << 20))
        }
        #expect(remote?.code == .invalidRequest)
        let small = await #expect(throws: ClientError.self) {
            try await Self.run(disk, into: .local(size: 1 << 20))
        }
        #expect(small?.code == .invalidRequest)
    }

    @Test("S10: a backup under way answers for its snapshot, and for no other")
    func prompts() async throws {
        let prompts = ProgressPrompts { _ in 42 }
        let (mine, other) = (SnapshotID(.random(shard: ShardIndex(0))), SnapshotID(.random(shard: ShardIndex(0))))
        prompts.answer(for: mine) { 17 }
        #expect(await prompts.answer(for: mine)?() == 17)
        #expect(await prompts.answer(for: other)?() == 42, "the callback's")
        prompts.noLongerAnswer(for: mine)
        #expect(await prompts.answer(for: mine)?() == 42)
        #expect(ProgressPrompts(nil).answer(for: mine) == nil)
    }
}

/// Passes all calls on; before those of one method it does what it likes.
final class Meddler: Caller {
    private let server: FakeServer
    private let method: UInt32
    private let body: @Sendable () -> Void
    init(_ server: FakeServer, before method: Wire.Method = .createSnapshot, _ body: @escaping @Sendable () -> Void) {
        self.server = server
        self.method = UInt32(method.rawValue)
        self.body = body
    }

    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        if call.method == method { body() }
        return server.start(call, completion: completion)
    }
}

/// Passes all calls on, but tells of one chunk what the server does not hold.
private final class LyingListing: Caller {
    private let server: FakeServer
    private let honest: [UInt8]
    private let lost: [UInt8]

    init(_ server: FakeServer, chunk: UInt64) {
        self.server = server
        let state = server.state.withLock { $0 }
        let snapshots = state.local.suffix(1)
        lost = snapshots.first.map { snapshot in
            if case .data(let fingerprint) = snapshot.chunks[chunk] { fingerprint.bytes } else { [] }
        }!
        honest =
            state.store.keys.first { key in
                !snapshots.first!.chunks.values.contains { if case .data(key) = $0 { true } else { false } }
            }!.bytes
    }

    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        server.start(call) { [honest, lost] result in
            guard call.method == UInt32(Wire.Method.listBlocks.rawValue), case .success(let answer) = result,
                var message = try? Wire.ListBlocksResponse.decode(answer.message)
            else { return completion(result) }
            for index in message.blocks.indices where message.blocks[index].token == lost {
                message.blocks[index].token = honest
            }
            completion(.success(Answer(message: message.encode(), payload: nil)))
        }
    }
}
