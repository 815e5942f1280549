import CairnClient
import CairnCore
import CairnWire
import Synchronization
import Testing

/// SPEC section 3 through the library: snapshots in progress.
@Suite(.serialized, .server("prompt-seconds=1"))
struct LibraryInProgressTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536

    /// A LOCAL volume whose first snapshot is complete, and more in progress.
    private func disk(_ bytes: [UInt8], open count: Int) async throws -> (Client, VolumeID, [CreatedSnapshot]) {
        let client = try server.client(freshAccount())
        let volume = try await client.volume(.local).id
        _ = try await client.backUp(bytes, of: volume)
        var open: [CreatedSnapshot] = []
        for _ in 0..<count { open.append(try await client.createSnapshot(of: volume)) }
        return (client, volume, open)
    }

    @Test(
        "S3, D2: of a LOCAL volume it is in progress, starts from the previous one, and is read as far as it has come"
    )
    func incremental() async throws {
        let base = Content.noise(1, 1 << 20)
        let (client, volume, open) = try await disk(base, open: 1)
        #expect(open[0].state == .inProgress && open[0].dataVersion == DataVersion(3))
        let target = BlockTarget.snapshot(open[0].id)
        #expect(try await client.read(target) == base)
        let (part, whole) = (Content.noise(2, 1536), Content.noise(3, 65536))
        let sent = try await client.upload(
            [.plain(chunk + 512, part), .plain(5 * chunk, whole), .hole(7 * chunk, 65536)],
            to: target,
            dataVersion: open[0].dataVersion
        )
        #expect(sent.dataVersion == open[0].dataVersion && sent.tokens == [5 * chunk: whole.token])
        let expected = base.replacing(65536 + 512, part).replacing(5 * 65536, whole)
            .replacing(7 * 65536, [UInt8](repeating: 0, count: 65536))
        #expect(try await client.read(target) == expected)
        let described = try await client.describeSnapshot(open[0].id)
        #expect(described.state == .inProgress && described.seal == nil && described.completedAt == nil)
        try await client.reportProgress(100, of: open[0].id)
        #expect(try await client.seal(of: open[0].id) == expected.seal)
        #expect(try await client.read(.snapshot(client.createSnapshot(of: volume).id)) == expected)
    }

    @Test("S4, U5: only the earliest takes data; when it is deleted the next does, and the later ones need a rebase")
    func order() async throws {
        let base = Content.noise(4, 1 << 20)
        let (client, volume, open) = try await disk(base, open: 3)
        try await expectFailure(.invalidDataVersion) {
            try await client.upload([.zeros(0, 512)], to: .snapshot(open[1].id))
        }
        for version in [open[0].dataVersion.next, .initial] {
            try await expectFailure(.invalidDataVersion) {
                try await client.upload([.zeros(0, 512)], to: .snapshot(open[0].id), dataVersion: version)
            }
        }
        let early = try await failure { try await client.reportProgress(100, of: open[1].id) }
        #expect(early.reason == .invalidSnapshotID && early.text.contains("\(open[0].id)"), "\(early)")
        try await client.write(Content.noise(5, 65536), to: .snapshot(open[0].id))
        try await client.deleteSnapshot(open[0].id)
        let listed = try await client.snapshots(of: volume, state: .inProgress).all()
        #expect(listed.map(\.id) == [open[1].id, open[2].id] && listed.allSatisfy(\.needsRebase))
        let bytes = Content.noise(6, 65536)
        try await client.write(bytes, at: chunk, to: .snapshot(open[1].id))
        try await expectFailure(.needsRebase) { try await client.reportProgress(100, of: open[1].id) }
        let rebased = try await client.reportProgress(100, of: open[1].id, rebased: true)
        #expect(rebased.state == .complete)
        _ = try await client.upload([.zeros(0, 512)], to: .snapshot(open[2].id), progress: 100, rebased: true)
        let second = base.replacing(65536, bytes)
        #expect(try await client.seal(of: open[1].id) == second.seal)
        #expect(try await client.seal(of: open[2].id) == second.replacing(0, [UInt8](repeating: 0, count: 512)).seal)
    }

    @Test(
        "V5, S4: a clone of a later snapshot that is cancelled still shows what the earlier one gets, on which it stands"
    )
    func laterIsCancelled() async throws {
        let base = Content.noise(20, 1 << 20)
        let (client, _, open) = try await disk(base, open: 3)
        let clone = try await client.clone(open[1].id).id
        let own = Content.noise(21, 512)
        try await client.write(own, at: 512, to: .volume(clone))
        let waiting = try await client.createSnapshot(of: clone).id
        try await client.deleteSnapshot(open[1].id)
        let late = Content.noise(22, 65536)
        try await client.write(late, to: .snapshot(open[0].id))
        let expected = base.replacing(0, late).replacing(512, own)
        #expect(try await client.read(.volume(clone)) == expected)
        #expect(try await client.describeSnapshot(waiting).state == .inProgress)
        try await client.reportProgress(100, of: open[0].id)
        #expect(try await client.seal(of: waiting) == expected.seal)
        // The last one counted on the one in the middle.
        #expect(try await client.describeSnapshot(open[2].id).needsRebase)
        try await expectFailure(.needsRebase) { try await client.reportProgress(100, of: open[2].id) }
        // What comes after it is none of the clone's.
        _ = try await client.upload([.zeros(0, 65536)], to: .snapshot(open[2].id), progress: 100, rebased: true)
        #expect(try await client.read(.volume(clone)) == expected)
    }

    @Test("V5, G1: an import or backup onto a clone of a snapshot in progress hides what is uploaded to that one later")
    func imagesOverIncomplete() async throws {
        let base = Content.noise(18, 512 << 10)
        let (client, _, open) = try await disk(base, open: 1)
        // A half of what shows through, zeros over the other half and beyond, and a hole where there is one already.
        let image = server.folder.fresh("image")
        let content = Array(base[0..<256 << 10]) + [UInt8](repeating: 0, count: 512 << 10)
        try Image.make(image, size: 1 << 20, [(0, content)])
        let clone = try await client.clone(open[0].id).id
        _ = try await Importer(client: client, source: try ImportSource.open(image), volume: clone).run()
        let local = try await client.clone(open[0].id, .local).id
        let backup = try await Backup(client: client, source: try ImportSource.open(image), volume: local).run()
        #expect(backup.sealCheck == .waiting)
        // A clone of the clone stands on the same.
        let further = try await client.clone(client.createSnapshot(of: clone).id).id
        _ = try await Importer(client: client, source: try ImportSource.open(image), volume: further).run()
        _ = try await client.upload([.plain(0, Content.noise(19, 1 << 20))], to: .snapshot(open[0].id), progress: 100)
        let bytes = try Image.bytes(image)
        #expect(try await client.read(.volume(clone)) == bytes)
        #expect(try await client.read(.volume(further)) == bytes)
        #expect(try await client.read(.snapshot(backup.snapshot)) == bytes)
        #expect(try await client.seal(of: backup.snapshot) == backup.seal)
        // All is settled now: what is in place is seen to be.
        let again = try await Importer(client: client, source: try ImportSource.open(image), volume: clone).run()
        #expect(again.progress.wire == 0 && again.progress.inPlace == 256 << 10)
    }

    @Test("S9: progress by call and with an upload; backwards, beyond 100 and what is not there are refused")
    func progress() async throws {
        let (client, _, open) = try await disk(Content.noise(7, 65536), open: 1)
        let id = open[0].id
        #expect(try await client.reportProgress(30, of: id).percent == 30)
        _ = try await client.upload([.plain(0, Content.noise(8, 512))], to: .snapshot(id), progress: 60)
        #expect(try await client.describeSnapshot(id).progress == 60)
        let before = try await client.read(.snapshot(id))
        for percent in [59, 101] {
            try await expectFailure(.invalidProgress) { try await client.reportProgress(percent, of: id) }
            try await expectFailure(.invalidProgress) {
                try await client.upload([.plain(0, Content.noise(9, 512))], to: .snapshot(id), progress: percent)
            }
        }
        #expect(try await client.read(.snapshot(id)) == before)
        try await expectFailure(.invalidSnapshotID) {
            try await client.reportProgress(70, of: SnapshotID(.random(shard: ShardIndex(0))))
        }
        let done = try await client.reportProgress(100, of: id)
        #expect(done.state == .complete && done.percent == 100)
        #expect(try await client.describeSnapshot(id).completedAt != nil)
    }

    @Test("S5, R1: a list of chunks that are here, and of those that will come; a token of nobody's creates nothing")
    func chunkList() async throws {
        let (client, volume, _) = try await disk(Content.noise(10, 1 << 20), open: 0)
        let (staged, elsewhere, coming) = (Content.noise(11, 65536), Content.text(12, 65536), Content.noise(13, 65536))
        let tokens = try await client.stage([staged.slice], chunkSize: ChunkSize(bytes: 65536)!).tokens
        #expect(tokens == [staged.token])
        try await client.write(elsewhere, to: .volume(client.volume().id))
        var new = NewSnapshot()
        new.chunks = [
            ChunkPlacement(offset: 3 * chunk, token: staged.token), ChunkPlacement(offset: 0, token: elsewhere.token),
        ]
        new.expected = [ChunkPlacement(offset: 5 * chunk, token: coming.token), new.chunks[0]]
        var bad = new
        bad.chunks.append(ChunkPlacement(offset: chunk, token: Content.noise(14, 65536).token))
        try await expectFailure(.invalidChunkToken, block: 2) { try await client.createSnapshot(of: volume, bad) }
        bad.chunks[2] = ChunkPlacement(offset: chunk + 512, token: staged.token)
        try await expectFailure(.invalidArgument, block: 2) { try await client.createSnapshot(of: volume, bad) }
        #expect(try await client.describeVolume(volume).dataVersion == DataVersion(3))
        let remote = try await client.volume().id
        try await expectFailure(.wrongVolumeKind) { try await client.createSnapshot(of: remote, new) }
        let id = try await client.createSnapshot(of: volume, new).id
        #expect(try await client.missingBlocks(of: id).all() == [new.expected[0]])
        let refused = try await failure { try await client.reportProgress(100, of: id) }
        #expect(refused.reason == .failedPrecondition && refused.text.contains("1 expected"), "\(refused)")
        try await client.write(coming, at: 5 * chunk, to: .snapshot(id))
        #expect(try await client.describeSnapshot(id).missing == 0)
        try await client.reportProgress(100, of: id)
        let expected = Content.noise(10, 1 << 20).replacing(3 * 65536, staged).replacing(0, elsewhere)
            .replacing(5 * 65536, coming)
        #expect(try await client.seal(of: id) == expected.seal)
    }

    @Test("S10: the client library answers the server's prompt from its callback; the percentage is there to be seen")
    func prompted() async throws {
        let asked = Mutex<[SnapshotID]>([])
        var options = ClientOptions()
        options.onProgressPrompt = { snapshot in
            asked.withLock { $0.append(snapshot) }
            return 37
        }
        let account = freshAccount()
        let client = try server.client(account, options)
        let snapshot = try await client.createSnapshot(of: client.volume(.local).id).id
        try await client.write(Content.noise(15, 65536), to: .snapshot(snapshot))
        try await eventually("the prompt's answer is recorded") {
            try await client.describeSnapshot(snapshot).promptedProgress == 37
        }
        #expect(asked.withLock { Set($0) } == [snapshot])
        // It is what the client said, no report of progress (S9): that still begins at 0.
        let described = try await client.describeSnapshot(snapshot)
        #expect(described.state == .inProgress && described.progress == 0)
        let shown = try Report(try await server.cairn(account, ["snapshot", "show", "\(snapshot)", "--json"]))
        #expect(try shown.number("prompted_progress") == 37)
        try await client.reportProgress(100, of: snapshot)
    }

    @Test("S11, S4: an idle snapshot is cancelled: ERROR, visible, refused, and no longer in the way of the next")
    func idle() async throws {
        let server = try await ServerProcess.started(settings: ["snapshot-idle-seconds=5"])
        let client = try server.client("idler")
        let volume = try await client.volume(.local).id
        let first = try await client.createSnapshot(of: volume).id
        let second = try await client.createSnapshot(of: volume).id
        let sent = Content.noise(16, 65536)
        try await client.write(sent, to: .snapshot(first))
        let clone = try await client.clone(first).id
        let waiting = try await client.createSnapshot(of: clone).id
        try await eventually("the idle snapshot is cancelled") {
            try await client.describeSnapshot(first).state == .error
        }
        let bytes = Content.noise(17, 65536)
        // It counted on the other's data, as after a deletion.
        #expect(try await client.describeSnapshot(second).needsRebase)
        try await expectFailure(.needsRebase) { try await client.reportProgress(100, of: second) }
        try await expectFailure(.needsRebase) {
            try await client.upload([.plain(chunk, bytes)], to: .snapshot(second), progress: 100)
        }
        _ = try await client.upload([.plain(chunk, bytes)], to: .snapshot(second), progress: 100, rebased: true)
        #expect(try await client.describeSnapshot(second).state == .complete)
        #expect(try await client.snapshots(of: volume, state: .error).all().map(\.id) == [first])
        try await expectFailure(.failedPrecondition) { try await client.read(.snapshot(first), 0..<512) }
        try await expectFailure(.failedPrecondition) { try await client.write(bytes, to: .snapshot(first)) }
        try await expectFailure(.failedPrecondition) { try await client.reportProgress(100, of: first) }
        try await expectFailure(.failedPrecondition) { try await client.clone(first) }
        let empty = [UInt8](repeating: 0, count: 1 << 20)
        #expect(try await client.seal(of: second) == empty.replacing(65536, bytes).seal)
        // SPEC V5: what stands on it keeps what was uploaded.
        #expect(try await client.seal(of: waiting) == empty.replacing(0, sent).seal)
        #expect(try await client.read(.volume(clone)) == empty.replacing(0, sent))
        #expect(try await client.createSnapshot(of: clone).state == .complete)
    }
}
