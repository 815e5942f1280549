import CairnCore
import CairnWire
import Testing

/// Volumes that live with the client, and their snapshots, over the wire.
@Suite(.serialized, .server(shards: 4))
struct LocalVolumeTests {
    private let server = ServerProcess.shared

    @Test("V3, S3, S6: a chain of incremental snapshots, each what the disk was, by the seals that the client computes")
    func chain() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createLocalVolume()
        var disk = [UInt8](repeating: 0, count: 1 << 20)
        var history: [(snapshot: [UInt8], disk: [UInt8])] = []
        for round in 0..<4 {
            let snapshot = try await caller.begin(volume)
            #expect(snapshot.state == .inProgress && snapshot.dataVersion == UInt64(round + 2))
            for part in 0..<3 {
                let (offset, bytes) = (
                    round * 150_016 + part * 50_176, Content.noise(UInt64(round * 10 + part), 30_208)
                )
                try await caller.upload(
                    to: part == 0 ? .snapshotToken(snapshot.snapshotToken) : .snapshotID(snapshot.snapshotID),
                    [.plain(UInt64(offset), bytes)],
                    dataVersion: snapshot.dataVersion,
                    progress: UInt32(part * 40)
                )
                disk.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            }
            #expect(try await caller.report(100, snapshot.snapshotID).state == .complete)
            history.append((snapshot.snapshotID, disk))
        }
        for (snapshot, disk) in history {
            #expect(try await caller.download(snapshot: snapshot, 0..<1 << 20) == disk)
            #expect(try await caller.seal(snapshot) == Content.seal(disk, chunkSize: 65536))
        }
        let wrong = try await failure { try await caller.download(volume, 0..<512) }
        #expect(wrong.reason == .wrongVolumeKind && wrong.status == .failedPrecondition)
    }

    @Test("S4, S8, S9: out of turn, the refusals name who is next; a cancelled one makes the later ones rebase")
    func order() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createLocalVolume()
        let first = try await caller.begin(volume).snapshotID
        let second = try await caller.begin(volume).snapshotID
        let name = "\(SnapshotID(bytes: first)!)"
        let bytes = Content.noise(1, 65536)
        let upload = try await failure { try await caller.upload(to: .snapshotID(second), [.plain(0, bytes)]) }
        #expect(upload.reason == .invalidDataVersion && upload.text.contains(name))
        let report = try await failure { try await caller.report(100, second) }
        #expect(report.reason == .invalidSnapshotID && report.text.contains(name))
        try await caller.upload(to: .snapshotID(first), [.plain(0, bytes)])
        _ = try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: first))
        #expect(try await caller.describeSnapshot(second).needsRebase)
        #expect(try await caller.download(snapshot: second, 0..<65536).allSatisfy { $0 == 0 })
        #expect(try await failure { try await caller.report(100, second) }.reason == .needsRebase)
        try await caller.upload(to: .snapshotID(second), [.plain(65536, bytes)], progress: 100, rebased: true)
        #expect(try await caller.describeSnapshot(second).state == .complete)
        let late = try await failure { try await caller.upload(to: .snapshotID(second), [.plain(0, bytes)]) }
        #expect(late.reason == .snapshotAlreadyComplete)
        #expect(try await failure { try await caller.report(101, second) }.reason == .invalidProgress)
    }

    @Test("S5, R1, C5: chunks by a list, what is missing over pages, from another connection, over a retry of the call")
    func lists() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createLocalVolume()
        let chunks = (0..<8).map { Content.noise(UInt64(20 + $0), 65536) }
        let staged = try await caller.stage(Array(chunks[..<3])).chunks.map(\.token)
        let request = Wire.CreateSnapshotRequest(
            volumeID: volume,
            chunks: staged.enumerated().map { .init(offset: UInt64($0) * 65536, token: $1) },
            expected: chunks.enumerated().map { .init(offset: UInt64($0) * 65536, token: Content.token($1)) },
            idempotencyKey: [7]
        )
        let made = try await caller.call(request).message
        #expect(try await caller.call(request).message == made)
        let other = try await server.connect(account)
        var missing: [Wire.ChunkPlacement] = []
        var page: [UInt8] = []
        repeat {
            let answer = try await other.call(
                Wire.MissingBlocksRequest(
                    target: .snapshotToken(made.snapshotToken),
                    page: .init(limit: 2, pageToken: page)
                )
            ).message
            missing += answer.missing
            page = answer.nextPageToken
        } while !page.isEmpty
        #expect(missing.map(\.offset) == (3..<8).map { UInt64($0) * 65536 })
        #expect(try await other.describeSnapshot(made.snapshotID).missing == 5)
        let early = try await failure { try await other.report(100, made.snapshotID) }
        #expect(early.reason == .failedPrecondition && early.text.contains("offset 196608"))
        try await other.upload(
            to: .snapshotID(made.snapshotID),
            missing.map { .plain($0.offset, chunks[Int($0.offset / 65536)]) },
            progress: 100
        )
        #expect(try await caller.download(snapshot: made.snapshotID, 0..<8 * 65536) == Array(chunks.joined()))
        let count = try await caller.call(Wire.ListSnapshotsRequest(volumeID: volume)).message.snapshots.count
        let unknown = try await failure {
            try await caller.begin(volume) {
                $0.chunks = [request.chunks[0], .init(offset: 0, token: Content.noise(99, 32))]
            }
        }
        #expect(unknown.reason == .invalidChunkToken && unknown.detail.blockIndex?.value == 1)
        #expect(try await caller.call(Wire.ListSnapshotsRequest(volumeID: volume)).message.snapshots.count == count)
    }

    @Test("V5: a volume made from a snapshot in progress sees what comes, under what it writes, and completes with it")
    func incomplete() async throws {
        let caller = try await server.connect(freshAccount())
        let source = try await caller.begin(try await caller.createLocalVolume()).snapshotID
        let clone = try await caller.createVolume(from: source).volumeID
        let (own, late) = (Content.noise(30, 512), Content.noise(31, 65536))
        try await caller.upload(clone, .plain(1024, own))
        let snapshot = try await caller.createSnapshot(clone)
        #expect(snapshot.state == .inProgress)
        try await caller.upload(to: .snapshotID(source), [.plain(0, late)])
        var expected = late
        expected.replaceSubrange(1024..<1536, with: own)
        #expect(try await caller.download(clone, 0..<65536) == expected)
        try await caller.report(100, source)
        #expect(try await caller.describeSnapshot(snapshot.snapshotID).state == .complete)
        #expect(try await caller.download(snapshot: snapshot.snapshotID, 0..<65536) == expected)
        expected += [UInt8](repeating: 0, count: (1 << 20) - 65536)
        #expect(try await caller.seal(snapshot.snapshotID) == Content.seal(expected, chunkSize: 65536))
    }

    @Test("V9: a LOCAL volume is deleted with its snapshots in progress only where the call says so")
    func delete() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createLocalVolume()
        let snapshot = try await caller.begin(volume).snapshotID
        let refused = try await failure { try await caller.call(Wire.DeleteVolumeRequest(volumeID: volume)) }
        #expect(refused.reason == .failedPrecondition)
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: volume, cancelSnapshots: true))
        #expect(try await failure { try await caller.describeSnapshot(snapshot) }.reason == .invalidSnapshotID)
    }

    @Test("S5, S9: what was acknowledged of a snapshot in progress survives kill -9, and it goes on from there")
    func crash() async throws {
        let server = try await ServerProcess.started(shards: 2)
        let account = freshAccount()
        var caller = try await server.connect(account)
        let volume = try await caller.createLocalVolume()
        let (listed, uploaded, rest) = (Content.noise(40, 65536), Content.noise(41, 1536), Content.noise(42, 65536))
        let token = try await caller.stage([listed]).chunks[0].token
        let snapshot = try await caller.begin(volume) {
            $0.chunks = [.init(offset: 131_072, token: token)]
            $0.expected = [.init(offset: 65536, token: Content.token(rest))]
        }.snapshotID
        let later = try await caller.begin(volume).snapshotID
        try await caller.upload(to: .snapshotID(snapshot), [.plain(512, uploaded)], progress: 60)
        try await server.crash()
        try await server.start()
        caller = try await server.connect(account)
        let described = try await caller.describeSnapshot(snapshot)
        #expect(described.state == .inProgress && described.progress == 60 && described.missing == 1)
        #expect(try await failure { try await caller.report(100, later) }.reason == .invalidSnapshotID)
        try await caller.upload(to: .snapshotID(snapshot), [.plain(65536, rest)])
        #expect(try await caller.report(100, snapshot).state == .complete)
        var disk = [UInt8](repeating: 0, count: 1 << 20)
        for (offset, bytes) in [(512, uploaded), (65536, rest), (131_072, listed)] {
            disk.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
        #expect(try await caller.download(snapshot: snapshot, 0..<1 << 20) == disk)
        #expect(try await caller.seal(snapshot) == Content.seal(disk, chunkSize: 65536))
        #expect(try await caller.report(100, later).state == .complete)
    }

    @Test("S11: a snapshot that nobody touches becomes an error, visible, also over a restart, and frees the way")
    func idle() async throws {
        let server = try await ServerProcess.started(settings: ["snapshot-idle-seconds=5"])
        let account = freshAccount()
        var caller = try await server.connect(account)
        let volume = try await caller.createLocalVolume()
        let snapshot = try await caller.begin(volume).snapshotID
        try await caller.upload(to: .snapshotID(snapshot), [.plain(0, Content.noise(50, 512))])
        try await server.stop()
        try await server.start()
        caller = try await server.connect(account)
        try await eventually("the idle snapshot is cancelled", within: .seconds(30)) {
            try await caller.describeSnapshot(snapshot).state == .error
        }
        let errors = try await caller.call(Wire.ListSnapshotsRequest(volumeID: volume, state: .error)).message
        #expect(errors.snapshots.map(\.snapshotID) == [snapshot])
        #expect(try await failure { try await caller.report(100, snapshot) }.reason == .failedPrecondition)
        let next = try await caller.begin(volume).snapshotID
        #expect(try await caller.report(100, next).state == .complete)
        #expect(try await caller.download(snapshot: next, 0..<512).allSatisfy { $0 == 0 })
    }
}
