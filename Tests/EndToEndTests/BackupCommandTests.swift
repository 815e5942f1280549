import CairnCore
import CairnRPC
import CairnWire
import Foundation
import Synchronization
import Testing

@testable import CairnClient

/// `cairn backup` and `cairn restore`, as a user runs them.
@Suite(.serialized, .server("prompt-seconds=1"))
struct BackupCommandTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    private func report(_ account: String, _ arguments: [String]) async throws -> Report {
        try Report(try await server.cairn(account, arguments + ["--json"], limit: .seconds(120)))
    }

    /// A disk of 64 KiB chunks: noise, a hole, text, a hole.
    private func disk(_ seed: UInt64) throws -> String {
        let path = folder.fresh("disk")
        let pieces = [(0, Content.noise(seed, 2 << 20)), (5 << 20, Content.text(seed, 1 << 20))]
        try Image.make(path, size: 8 << 20, pieces)
        return path
    }

    @Test("S3, S6, G1: a disk is backed up, changed, backed up and restored; only what changed travels")
    func cycle() async throws {
        let account = freshAccount()
        let disk = try disk(201)
        let first = try await report(
            account,
            ["backup", disk, "--volume", "home", "--create", "--chunk-size", "64KiB"]
        )
        #expect(try first.number("transferred_bytes") == 3 << 20)
        #expect(try first.text("seal_check") == "matched" && first.number("expected_chunks") == 48)
        let monday = try first.text("snapshot_id")
        let shown = try await report(account, ["snapshot", "show", monday])
        #expect(try shown.text("state") == "complete" && shown.text("seal") == (try first.text("seal")))
        // Two chunks change, one becomes zeros, one is a copy of what is there.
        let before = try Image.bytes(disk)
        try Image.overwrite(disk, at: 70_000, [1, 2, 3])
        try Image.overwrite(disk, at: (7 << 20) + 5, Content.noise(202, 1000))
        try Image.overwrite(disk, at: 2 * 65536, [UInt8](repeating: 0, count: 65536))
        try Image.overwrite(disk, at: 3 << 20, Array(before[0..<65536]))
        let second = try await report(account, ["backup", disk, "--volume", "home"])
        #expect(try second.text("volume_id") == (try first.text("volume_id")))
        #expect(try second.number("transferred_bytes") == 2 * 65536)
        #expect(try second.number("deduplicated_bytes") == 65536)
        let tuesday = try second.text("snapshot_id")
        // The disk has moved on; monday is put onto it.
        let restored = try await report(account, ["restore", monday, disk, "--onto"])
        #expect(try restored.number("transferred_bytes") == 2 * 65536)
        #expect(try restored.text("seal_check") == "matched")
        #expect(try Image.bytes(disk) == before)
        let fresh = folder.fresh("fresh")
        #expect(try await report(account, ["restore", tuesday, fresh]).text("seal") == (try second.text("seal")))
        #expect(try await server.cairn(account, ["restore", monday, fresh]).status == 73)
    }

    @Test("V3: a LOCAL volume that was made from a snapshot is a restore: its next backup is incremental to that")
    func restoredVolume() async throws {
        let account = freshAccount()
        let disk = try disk(203)
        let first = try await report(account, ["backup", disk, "--volume", "home", "--create"])
        let made = try await report(
            account,
            ["volume", "create", "--local", "--from", try first.text("snapshot_id"), "--tag", "name=again"]
        )
        try Image.overwrite(disk, at: 100, [9])
        let next = try await report(account, ["backup", disk, "--volume", "again"])
        #expect(try next.text("volume_id") == (try made.text("volume_id")))
        #expect(try next.number("transferred_bytes") == 65536)
    }

    @Test("S4, R1: an interrupted backup is gone on with on another machine, by what the service holds")
    func resume() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await report(
            account,
            ["volume", "create", "--local", "--size", "16MiB", "--chunk-size", "64KiB", "--tag", "name=home"]
        ).text("volume_id")
        let bytes = try Image.random(16 << 20)
        let child = try server.startCairn(account, ["backup", "-", "--volume", "home"], input: .pipe)
        child.write(Array(bytes[0..<12 << 20]))
        let client = try server.client(account)
        var left: Snapshot?
        try await eventually("half of it is there") {
            left = try await client.snapshots(of: VolumeID(text: volume)!, state: .inProgress).all().first
            guard let left else { return false }
            return try await caller.blocks(.snapshotID(left.id.bytes)).count >= 64
        }
        child.send(SIGINT)
        let outcome = try await child.wait(limit: .seconds(10))
        #expect(outcome.status == 130)
        let snapshot = "\(left!.id)"
        #expect(outcome.errors.contains(snapshot) && outcome.errors.contains("--resume"))
        let disk = try folder.write(bytes, to: "elsewhere")
        #expect(try await server.cairn(account, ["backup", disk, "--volume", "home"]).status == 64)
        let rest = try await report(account, ["backup", disk, "--volume", "home", "--resume"])
        #expect(try rest.text("snapshot_id") == snapshot)
        #expect(try rest.number("in_place_bytes") >= 64 * 65536)
        #expect(try rest.number("transferred_bytes") + rest.number("in_place_bytes") == 16 << 20)
        let back = folder.fresh("back")
        _ = try await report(account, ["restore", snapshot, back])
        #expect(try await Image.same(disk, back, in: folder))
    }

    @Test("S5, R1: what is expected is told, missing and then there; another disk is not passed off as it")
    func expected() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let disk = try disk(204)
        let size: UInt64 = 8 << 20
        var wanted = NewVolume()
        (wanted.kind, wanted.size, wanted.chunkSize) = (.local, size, ChunkSize(bytes: 65536))
        let volume = try await client.createVolume(wanted).id
        var new = NewSnapshot()
        let bytes = try Image.bytes(disk)
        new.expected = (0..<32).map { chunk in
            let token = Content.token(Array(bytes[chunk * 65536..<(chunk + 1) * 65536]))
            return ChunkPlacement(offset: UInt64(chunk) * 65536, token: Fingerprint(bytes: token)!)
        }
        let made = try await client.createSnapshot(of: volume, new)
        _ = try await client.upload(
            [.init(offset: 0, length: 65536, content: .plain(Buffer(copying: bytes[0..<65536]).slice))],
            to: .snapshot(made.id),
            dataVersion: made.dataVersion
        )
        let missing = try await server.cairn(account, ["snapshot", "missing", "\(made.id)"])
        #expect(missing.output.contains("31 chunks are missing"))
        let early = try await server.cairn(account, ["snapshot", "progress", "\(made.id)", "100"])
        #expect(early.status == 1 && early.errors.contains("31 expected chunks"))
        let other = try self.disk(205)
        let refused = try await server.cairn(account, ["backup", other, "--volume", "\(volume)", "--resume"])
        #expect(refused.status == 66)
        let rest = try await report(account, ["backup", disk, "--volume", "\(volume)", "--resume"])
        #expect(try rest.text("snapshot_id") == "\(made.id)")
        #expect(try rest.text("seal_check") == "matched")
    }

    @Test("S4: where an earlier snapshot was cancelled, the backup compares everything and declares that it is in")
    func rebase() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let disk = try disk(206)
        let volume = try await report(account, ["backup", disk, "--volume", "home", "--create"]).text("volume_id")
        let earlier = try await client.createSnapshot(of: VolumeID(text: volume)!)
        let later = try await client.createSnapshot(of: VolumeID(text: volume)!)
        try await client.deleteSnapshot(earlier.id)
        #expect(try await client.describeSnapshot(later.id).needsRebase)
        try Image.overwrite(disk, at: 5000, [1, 2, 3])
        let refused = try await server.cairn(account, ["snapshot", "progress", "\(later.id)", "100", "--json"])
        #expect(try Report(refused.errors).object("error").text("reason") == "NEEDS_REBASE")
        let done = try await report(account, ["backup", disk, "--volume", "home", "--resume"])
        #expect(try done.text("snapshot_id") == "\(later.id)" && done.text("seal_check") == "matched")
        #expect(try done.number("transferred_bytes") == 65536)
    }

    @Test(
        "S3, S6: of two backups that overlap, the one that was overtaken begins again; both are what was on their disks"
    )
    func overlapping() async throws {
        let account = freshAccount()
        let (disk, other) = (try disk(209), try self.disk(210))
        let volume = try await report(account, ["backup", disk, "--volume", "home", "--create"]).text("volume_id")
        try Image.overwrite(disk, at: 5000, [1, 2, 3])
        let client = try server.client(account)
        // The other one runs, from its beginning to its end, when the first has scanned its disk.
        let overtaking = Overtaking(client.caller) {
            await #expect(throws: Never.self) { try await report(account, ["backup", other, "--volume", "home"]) }
        }
        let backup = Backup(
            client: Client(caller: overtaking),
            source: try ImportSource.open(disk),
            volume: VolumeID(text: volume)!
        )
        let summary = try await backup.run()
        #expect(summary.sealCheck == .matched && summary.expected == 0)
        let left = try await client.snapshots(of: VolumeID(text: volume)!, state: .complete).all()
        #expect(try await client.snapshots(of: VolumeID(text: volume)!, state: .inProgress).all().isEmpty)
        for (snapshot, source) in [(summary.snapshot, disk), (left[left.count - 2].id, other)] {
            let back = folder.fresh("back")
            _ = try await report(account, ["restore", "\(snapshot)", back])
            #expect(try await Image.same(source, back, in: folder))
        }
    }

    @Test("S8: with --cancel-on-interrupt nothing stays in progress")
    func cancel() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let child = try server.startCairn(
            account,
            ["backup", "-", "--volume", "home", "--create", "--size", "16MiB", "--cancel-on-interrupt"],
            input: .pipe
        )
        child.write(Content.noise(207, 1 << 20))
        try await eventually("the snapshot is there") {
            try await !client.snapshots(state: .inProgress).all().isEmpty
        }
        child.send(SIGINT)
        let outcome = try await child.wait(limit: .seconds(10))
        #expect(outcome.status == 130 && outcome.errors.contains("was cancelled"))
        #expect(try await client.snapshots(state: .inProgress).all().isEmpty)
    }

    @Test("S10: a backup that waits for its source answers the server's prompts; the answer is shown")
    func prompt() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let child = try server.startCairn(
            account,
            ["backup", "-", "--volume", "home", "--create", "--size", "16MiB", "--chunk-size", "64KiB"],
            input: .pipe
        )
        let bytes = try Image.random(16 << 20)
        child.write(Array(bytes[0..<12 << 20]))
        var prompted: Snapshot?
        try await eventually("the client was asked, and answered", within: .seconds(30)) {
            prompted = try await client.snapshots(state: .inProgress).all().first
            return (prompted?.promptedProgress ?? 0) > 0
        }
        #expect(try #require(prompted?.promptedProgress) < 100)
        let text = try await server.cairn(account, ["snapshot", "show", "\(prompted!.id)"]).output
        #expect(text.contains("client's answer"))
        child.write(Array(bytes[(12 << 20)...]))
        child.closeInput()
        #expect(try await child.wait(limit: .seconds(60)).status == 0)
        #expect(try await client.describeSnapshot(prompted!.id).state == .complete)
    }

    @Test("V2: a size that is too small for the device makes no volume")
    func tooSmall() async throws {
        let account = freshAccount()
        let outcome = try await server.cairn(
            account,
            ["backup", try disk(211), "--volume", "home", "--create", "--size", "4MiB"]
        )
        #expect(outcome.status == 64 && outcome.errors.contains("--size"))
        let client = try await server.client(account)
        #expect(try await client.volumes().all().isEmpty)
    }

    @Test("V3: a REMOTE volume takes no backup, an import goes to no LOCAL one")
    func kinds() async throws {
        let account = freshAccount()
        let disk = try disk(208)
        let remote = try await report(account, ["import", disk, "--new", "--name", "r"]).text("volume_id")
        #expect(try await server.cairn(account, ["backup", disk, "--volume", remote]).status == 64)
        #expect(try await server.cairn(account, ["backup", disk, "--volume", "nobody"]).status == 64)
        let local = try await report(account, ["volume", "create", "--local", "--size", "8MiB"]).text("volume_id")
        let refused = try await server.cairn(account, ["import", disk, "--volume", local, "--json"])
        #expect(try Report(refused.errors).object("error").text("reason") == "WRONG_VOLUME_KIND")
        // R1: an import that is resumed by its name says what was there.
        let again = try await server.cairn(account, ["import", disk, "--resume", "--name", "r"])
        #expect(again.status == 0 && again.output.contains("was there already"))
        #expect(try await server.cairn(account, ["import", disk, "--resume", "--name", "none"]).status == 64)
    }
}

/// Passes all calls on; before the first snapshot is made, something else is done.
private final class Overtaking: CairnClient.Caller {
    private let caller: any CairnClient.Caller
    private let body: Mutex<(@Sendable () async -> Void)?>

    init(_ caller: any CairnClient.Caller, _ body: @escaping @Sendable () async -> Void) {
        self.caller = caller
        self.body = Mutex(body)
    }

    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        guard call.method == UInt32(Wire.Method.createSnapshot.rawValue), let body = body.withLock({ $0.take() }) else {
            return caller.start(call, completion: completion)
        }
        let cell = CancelCell()
        Task {
            await body()
            cell.hold(caller.start(call, completion: completion))
        }
        return cell
    }
}
