import CairnCore
import CairnRPC
import CairnTesting
import CairnWire
import Foundation
import Synchronization
import Testing

@testable import CairnClient

/// Backups that meet others, and interruptions.
struct BackupMeetingsTests {
    static func backup(
        _ source: ImportSource,
        into server: FakeServer,
        by caller: (any CairnClient.Caller)? = nil,
        _ change: (inout BackupOptions) -> Void = { _ in }
    ) -> Backup {
        var options = BackupOptions()
        change(&options)
        return Backup(client: Client(caller: caller ?? server), source: source, volume: server.volume, options: options)
    }

    /// A disk that has been backed up and then changed, and the server that has that backup.
    static func changed(_ folder: TemporaryFolder, seed: UInt64) async throws -> (path: String, server: FakeServer) {
        var random = SeededRandom(seed: seed)
        let disk = try folder.sparse("disk", size: 1 << 20, [0: random.bytes(512 << 10)])
        let server = FakeServer.local(size: 1 << 20)
        _ = try await BackupTests.run(disk, into: server)
        let late = random.bytes(100)
        try late.withUnsafeBytes { try OpenFile.open(disk, OpenFile.readWrite).write(at: 50_000, $0) }
        return (disk, server)
    }

    /// Makes a snapshot of the volume as another backup does: with a chunk that no other has.
    @discardableResult
    static func makeOther(_ server: FakeServer, isComplete: Bool) -> SnapshotID {
        var bytes = [UInt8](repeating: 7, count: 4096)
        let other = server.state.withLock { state in
            var other = state.newSnapshot()
            bytes[0] = UInt8(other.version)
            let token = bytes.withUnsafeBytes { fingerprint($0) }
            state.store[token] = bytes
            other.chunks[200] = .data(token)
            state.local.append(other)
            if isComplete { state.complete(state.local.count - 1) }
            return other
        }
        return other.id
    }

    @Test("S3, S6: a backup that another one overtook while it scanned begins again, and completes what is on the disk")
    func overtaken() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 31)
        let creations = Atomic(0)
        let meddler = Meddler(server) {
            if creations.add(1, ordering: .relaxed).newValue == 1 { Self.makeOther(server, isComplete: true) }
        }
        let backup = Self.backup(try .open(disk), into: server, by: meddler)
        let summary = try await limited { try await backup.run() }
        #expect(summary.sealCheck == .matched && summary.expected == 0)
        #expect(try BackupTests.content(server, summary.snapshot) == contents(disk))
        let local = server.state.withLock { $0.local }
        #expect(local.map(\.isDeleted) == [false, false, false, true, false], "the one that was begun in vain is gone")
        #expect(local[4].id == summary.snapshot && summary.dataVersion.rawValue == local[4].version)
    }

    @Test("S3, S6: a volume that grew while the source was scanned: the snapshot's own size counts")
    func grown() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 32)
        let meddler = Meddler(server) { server.state.withLock { $0.size = 2 << 20 } }
        let backup = Self.backup(try .open(disk), into: server, by: meddler)
        let summary = try await limited { try await backup.run() }
        #expect(summary.sealCheck == .matched && summary.volumeSize == 2 << 20)
        let content = BackupTests.content(server, summary.snapshot)
        #expect(try Array(content.prefix(1 << 20)) == contents(disk) && content.suffix(1 << 20).allSatisfy { $0 == 0 })
    }

    @Test("S4: where another backup came first and is still going on, nothing is left behind it")
    func second() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 33)
        let other = Mutex<SnapshotID?>(nil)
        let meddler = Meddler(server) {
            other.withLock { if $0 == nil { $0 = Self.makeOther(server, isComplete: false) } }
        }
        let backup = Self.backup(try .open(disk), into: server, by: meddler)
        let error = await #expect(throws: ClientError.self) { try await limited { try await backup.run() } }
        let first = try #require(other.withLock { $0 })
        #expect(error?.code == .invalidRequest && error?.text.contains("\(first)") == true)
        #expect(backup.snapshot == nil && BackupTests.last(server).isDeleted)
        #expect(server.state.withLock { state in state.earliest.map { state.local[$0].id } } == first)
    }

    @Test("S3: a backup that others always overtake gives up, and leaves nothing")
    func always() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 34)
        let creations = Atomic(0)
        let meddler = Meddler(server) {
            creations.add(1, ordering: .relaxed)
            Self.makeOther(server, isComplete: true)
        }
        let backup = Self.backup(try .open(disk), into: server, by: meddler)
        let error = await #expect(throws: ClientError.self) { try await limited { try await backup.run() } }
        #expect(error?.code == .invalidRequest && creations.load(ordering: .relaxed) == 3)
        #expect(server.state.withLock { $0.earliest } == nil)
    }

    @Test("S6: a snapshot that another machine completed meanwhile is left to that one, whatever was read here")
    func completedElsewhere() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 35)
        let begun = Self.makeOther(server, isComplete: false)
        let meddler = Meddler(server, before: .describeSnapshot) {
            server.state.withLock { state in if let place = state.earliest { state.complete(place) } }
        }
        let backup = Self.backup(try .open(disk), into: server, by: meddler) { $0.unfinished = .resume }
        let error = await #expect(throws: ClientError.self) { try await limited { try await backup.run() } }
        #expect(error?.code == .invalidRequest && error?.text.contains("another backup") == true)
        #expect(BackupTests.last(server).id == begun && !BackupTests.last(server).isDeleted)
    }

    @Test(
        "S6, S8: a backup that is interrupted while it waits for the seal leaves a complete snapshot, and cancels none"
    )
    func interruptedLate() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 36)
        server.state.withLock { $0.isSealPending = true }
        let backup = Self.backup(try .open(disk), into: server)
        let task = Task { try await backup.run() }
        try await limited { while backup.phase != .sealing { try await Task.sleep(for: .milliseconds(1)) } }
        task.cancel()
        let error = await #expect(throws: ClientError.self) { try await task.value }
        #expect(error?.code == .cancelled)
        #expect(try await !backup.cancelSnapshot())
        let left = BackupTests.last(server)
        #expect(left.id == backup.snapshot && left.state == .complete && !left.isDeleted)
    }

    @Test("D5, S6: a seal that was pending, and then turns out to be withheld, is no failure of the backup")
    func withheld() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 40)
        server.state.withLock { $0.isSealPending = true }
        let asked = Atomic(0)
        let meddler = Meddler(server, before: .describeSnapshot) {
            let isComplete = BackupTests.last(server).state == .complete
            guard isComplete, asked.add(1, ordering: .relaxed).newValue == 2 else { return }
            server.state.withLock { $0.isSealWithheld = true }
        }
        let backup = Self.backup(try .open(disk), into: server, by: meddler)
        let summary = try await limited { try await backup.run() }
        #expect(summary.sealCheck == .withheld && BackupTests.last(server).state == .complete)
    }

    @Test("S8: what an interrupted backup leaves in progress is cancelled")
    func interruptedEarly() async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 37)
        server.state.withLock { $0.failures[$0.uploads + 1] = CallError(.storeFull, "", retryable: false) }
        let backup = Self.backup(try .open(disk), into: server)
        await #expect(throws: ClientError.self) { try await limited { try await backup.run() } }
        #expect(backup.snapshot == BackupTests.last(server).id)
        #expect(try await backup.cancelSnapshot())
        #expect(backup.snapshot == nil && BackupTests.last(server).isDeleted)
    }

    @Test(
        "D5, S3: a restore of a snapshot that may be used but not listed is backed up as a whole",
        arguments: [true, false]
    )
    func unlisted(isFrozen: Bool) async throws {
        let folder = TemporaryFolder()
        let (disk, server) = try await Self.changed(folder, seed: 38)
        Self.makeOther(server, isComplete: true)
        server.state.withLock { $0.refusesListing = true }
        let backup = Self.backup(try .open(disk), into: server) { $0.isFrozen = isFrozen }
        let summary = try await limited { try await backup.run() }
        #expect(summary.sealCheck == .matched && summary.progress.inPlace == 0)
        #expect(try BackupTests.content(server, summary.snapshot) == contents(disk))
    }

    @Test("S4, S9: where a rebase is asked for at the end, the second comparison does not take the progress back")
    func rebaseAtTheEnd() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 39)
        let disk = try folder.sparse("disk", size: 8 << 20, [0: random.bytes(8 << 20)])
        let server = FakeServer.local(size: 8 << 20)
        let reports = Atomic(0)
        let meddler = Meddler(server, before: .snapshotProgress) {
            guard reports.add(1, ordering: .relaxed).newValue == 1 else { return }
            server.state.withLock { state in
                let place = state.earliest!
                state.local[place].needsRebase = true
                state.local[place].chunks[1000] = nil
            }
        }
        // Few pieces at a time: the chunk in the middle goes when about half is compared.
        let backup = Self.backup(try .open(disk), into: server, by: meddler) { options in
            (options.isFrozen, options.memory, options.workers) = (false, 512 << 10, 1)
        }
        let summary = try await limited { try await backup.run() }
        #expect(summary.rebased && summary.sealCheck == .matched)
        #expect(try BackupTests.content(server, summary.snapshot) == contents(disk))
        let said = BackupTests.last(server).reports
        #expect(said.dropLast().contains { $0 > 70 } && said == said.sorted() && said.last == 100, "\(said)")
    }

    @Test("S9, S11: while nothing is to be sent the service is told how far it is, and again that nothing changed")
    func nothingToSend() async throws {
        let folder = TemporaryFolder()
        let path = folder.file("pipe")
        #expect(mkfifo(path, 0o600) == 0)
        let server = FakeServer.local(size: 1 << 20)
        // The reader first: a pipe without one kills its writer.
        let source = try ImportSource.open(path)
        let isTold = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            let out = open(path, O_WRONLY)
            let zeros = [UInt8](repeating: 0, count: 64 << 10)
            for _ in 0..<8 { _ = write(out, zeros, zeros.count) }
            isTold.wait()
            close(out)
        }
        let backup = Self.backup(source, into: server) { $0.reportInterval = .milliseconds(5) }
        let task = Task { try await backup.run() }
        defer { isTold.signal() }
        try await limited {
            while BackupTests.last(server).reports.count(where: { $0 == 50 }) < 3 {
                try await Task.sleep(for: .milliseconds(5))
            }
        }
        isTold.signal()
        _ = try await limited { try await task.value }
        #expect(server.state.withLock { $0.uploads } == 0)
        let said = BackupTests.last(server).reports
        #expect(said == said.sorted() && said.last == 100, "\(said)")
    }
}

/// An upload that completes its snapshot (SPEC C5, U1).
struct CompletingUploadTests {
    static let block = BlockUpload(
        offset: 0,
        length: 4096,
        content: .plain(Buffer(copying: [UInt8](repeating: 5, count: 4096)).slice)
    )

    /// A client over a connection that loses the answers to the first uploads.
    static func client(of server: FakeServer, losing count: Int) -> Client {
        let lost = Atomic(0)
        let pool = ConnectionPool(options: ConnectionPoolTests.options(1)) { _ in
            FakeLink { request, completion in
                let call = OutgoingCall(method: request.method, message: request.message, payload: request.payload)
                server.start(call) { result in
                    if request.method == UInt32(Wire.Method.uploadBlock.rawValue),
                        lost.add(1, ordering: .relaxed).newValue <= count
                    {
                        return completion(.failure(RPCError(.connectionLost, delivery: .unknown)))
                    }
                    completion(
                        result.mapError { error in
                            let answer = error.answer!
                            return RPCError(
                                .answered,
                                delivery: .unknown,
                                status: answer.status.rawValue,
                                detail: answer.detail.encode()
                            )
                        }
                    )
                }
            }
        }
        return Client(caller: pool)
    }

    @Test(
        "C5, S9: where the answer to an upload with 100 was lost, its repetition finds the snapshot complete, and is done"
    )
    func repeated() async throws {
        let server = FakeServer.local(size: 1 << 20)
        let client = Self.client(of: server, losing: 1)
        let made = try await client.createSnapshot(of: server.volume)
        let result = try await limited { try await client.upload([Self.block], to: .snapshot(made.id), progress: 100) }
        #expect(result.dataVersion == made.dataVersion && result.tokens.isEmpty)
        let snapshot = BackupTests.last(server)
        #expect(snapshot.state == .complete && snapshot.chunks.count == 1)
        #expect(server.state.withLock { $0.received.values.reduce(0, +) } == 1, "it was carried out once")
    }

    @Test(
        "U5: an upload with 100 to a snapshot that was complete before is refused, and so is a repeated one with less"
    )
    func refused() async throws {
        let server = FakeServer.local(size: 1 << 20)
        let client = Self.client(of: server, losing: 0)
        let error = await #expect(throws: ClientError.self) {
            try await limited { try await client.upload([Self.block], to: .snapshot(server.snapshot), progress: 100) }
        }
        #expect(error?.answer?.reason == .snapshotAlreadyComplete)
        let lossy = Self.client(of: server, losing: 1)
        let less = await #expect(throws: ClientError.self) {
            try await limited { try await lossy.upload([Self.block], to: .snapshot(server.snapshot), progress: 99) }
        }
        #expect(less?.answer?.reason == .snapshotAlreadyComplete)
    }
}
