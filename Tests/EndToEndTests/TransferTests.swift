import CairnClient
import CairnCore
import CairnWire
import Foundation
import Testing

/// `cairn import` and `cairn export`, as a user runs them.
@Suite(.serialized, .server())
struct TransferTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    private func imported(_ account: String, _ arguments: [String], input: ChildProcess.Input = .nothing) async throws
        -> Report
    {
        try Report(try await server.cairn(account, ["import"] + arguments + ["--json"], input: input))
    }

    private func exported(_ account: String, _ arguments: [String]) async throws -> Report {
        try Report(try await server.cairn(account, ["export"] + arguments + ["--json"]))
    }

    @Test("G1: a file with holes, zeros, text and noise, of any size, comes back as it was, and sparse")
    func roundTrip() async throws {
        let account = freshAccount()
        for (index, size) in [1 << 20, 5_000_000, (20 << 20) + 512, (8 << 20) - 1, 1000].enumerated() {
            let (source, target) = (folder.fresh("image"), folder.fresh("back"))
            let pieces: [(Int, [UInt8])] = [
                (0, Content.noise(UInt64(index), min(size, 300_000))),
                (size / 2, Content.text(7, min(size / 4, 200_000))),
                (size * 3 / 4, [UInt8](repeating: 0, count: size / 8)),
                (max(0, size - 700), Content.noise(9, min(size, 700))),
            ]
            try Image.make(source, size: size, pieces)
            let report = try await imported(account, [source, "--new", "--snapshot", "--verify"])
            #expect(try report.text("seal_check") == "matched")
            let padded = max(1 << 20, (size + 511) / 512 * 512)
            #expect(try report.number("logical_bytes") == padded)
            let back = try await exported(account, [try report.text("snapshot_id"), target, "--verify"])
            #expect(try back.text("seal_check") == "matched")
            #expect(try back.text("seal") == (try report.text("seal")))
            let bytes = try Image.bytes(target)
            #expect(bytes.count == padded)
            #expect(try bytes == Image.bytes(source) + [UInt8](repeating: 0, count: padded - size))
            if size > 15 << 20 { #expect(Image.allocated(target) < 4 << 20) }
            #expect(!Image.exists(target + ".cairn-partial"))
        }
    }

    @Test("G1: standard input in, standard output out")
    func streams() async throws {
        let account = freshAccount()
        let bytes = Content.noise(101, 3_000_000)
        let source = try folder.write(bytes, to: "stream")
        let report = try await imported(account, ["-", "--new", "--size", "4MiB"], input: .file(source))
        let volume = try report.text("volume_id")
        let back = try ChildProcess(
            Program.cairn,
            ["export", volume, "-"],
            environment: try server.environment(account),
            in: folder
        )
        #expect(try await back.wait().status == 0)
        #expect(back.outputBytes == bytes + [UInt8](repeating: 0, count: 4 << 20 - bytes.count))
    }

    @Test("G1, A1: importing again sends only what changed; another volume of the same content sends nothing")
    func difference() async throws {
        let account = freshAccount()
        let source = folder.fresh("image")
        try Image.make(source, size: 16 << 20, [(0, try Image.random(12 << 20))])
        let first = try await imported(account, [source, "--new"])
        #expect(try first.number("transferred_bytes") == 12 << 20)
        let volume = try first.text("volume_id")
        let same = try await imported(account, [source, "--volume", volume])
        #expect(try same.number("transferred_bytes") == 0)
        #expect(try same.number("sent_bytes") < 65536)
        #expect(try same.number("in_place_bytes") == 12 << 20)
        // Changed bytes in 10 chunks, data where a hole was, and zeros where data was.
        for index in 0..<10 {
            try Image.overwrite(source, at: index * 1_000_000 + 777, Content.noise(UInt64(index), 33))
        }
        try Image.overwrite(source, at: 14 << 20, Content.noise(102, 65536))
        try Image.overwrite(source, at: 11 << 20, [UInt8](repeating: 0, count: 65536))
        let changed = try await imported(account, [source, "--volume", volume, "--snapshot", "--verify"])
        #expect(try changed.number("transferred_bytes") == 11 * 65536)
        #expect(try changed.text("seal_check") == "matched")
        let target = folder.fresh("back")
        _ = try await exported(account, [try changed.text("snapshot_id"), target])
        #expect(try await Image.same(source, target, in: folder))
        // V10, A1: wherever the new volume lands.
        for _ in 0..<4 {
            let copy = try await imported(account, [source, "--new"])
            #expect(try copy.number("transferred_bytes") == 0)
        }
    }

    @Test("G1: what the volume holds beyond a shorter source becomes zeros")
    func shorterSource() async throws {
        let account = freshAccount()
        let source = folder.fresh("image")
        try Image.make(source, size: 2 << 20, [(0, Content.noise(103, 2 << 20))])
        let volume = try await imported(account, [source, "--new"]).text("volume_id")
        let short = try folder.write(Content.noise(104, 700_000), to: "short")
        _ = try await imported(account, [short, "--volume", volume])
        let target = folder.fresh("back")
        _ = try await exported(account, [volume, target])
        #expect(
            try Image.bytes(target) == Content.noise(104, 700_000) + [UInt8](repeating: 0, count: 2 << 20 - 700_000)
        )
    }

    @Test("G1: an existing file is not replaced without --force")
    func existingTarget() async throws {
        let account = freshAccount()
        let source = try folder.write(Content.noise(105, 1 << 20), to: "source")
        let volume = try await imported(account, [source, "--new"]).text("volume_id")
        let target = try folder.write([1, 2, 3], to: "taken")
        #expect(try await server.cairn(account, ["export", volume, target]).status == 73)
        #expect(try Image.bytes(target) == [1, 2, 3])
        _ = try await exported(account, [volume, target, "--force"])
        #expect(try await Image.same(source, target, in: folder))
    }

    @Test("G1: an export that is killed leaves no file under the final name, and goes on where it was")
    func resumedExport() async throws {
        let account = freshAccount()
        let source = folder.fresh("image")
        try Image.make(source, size: 96 << 20, [(0, try Image.random(96 << 20))])
        let volume = try await imported(account, [source, "--new"]).text("volume_id")
        for (signal, status) in [(SIGKILL, 137), (SIGINT, 130)] as [(Int32, Int32)] {
            let target = folder.fresh("back")
            let partial = target + ".cairn-partial"
            var ended: Int32 = 0
            // Now and then it is done before the signal comes.
            for _ in 0..<8 where ended == 0 {
                try? FileManager.default.removeItem(atPath: target)
                let child = try server.startCairn(account, ["export", volume, target])
                try await eventually("a part is there") { Image.allocated(partial) > 8 << 20 || !child.isRunning }
                child.send(signal)
                ended = try await child.wait(limit: .seconds(10)).status
            }
            #expect(ended == status)
            #expect(!Image.exists(target))
            #expect(Image.exists(partial))
            let rest = try await exported(account, [volume, target])
            #expect(try rest.number("in_place_bytes") > 0)
            #expect(try rest.number("transferred_bytes") < 96 << 20)
            #expect(try await Image.same(source, target, in: folder))
            #expect(!Image.exists(partial))
        }
    }

    @Test("G1: a damaged partial file does no harm")
    func damagedPartial() async throws {
        let account = freshAccount()
        let source = folder.fresh("image")
        try Image.make(source, size: 4 << 20, [(0, Content.noise(106, 4 << 20))])
        let volume = try await imported(account, [source, "--new"]).text("volume_id")
        let target = folder.fresh("back")
        try Image.make(target + ".cairn-partial", size: 9 << 20, [(100, Content.noise(107, 5 << 20))])
        _ = try await exported(account, [volume, target])
        #expect(try await Image.same(source, target, in: folder))
    }

    @Test(
        "G1, R1: Ctrl-C and SIGTERM stop an import cleanly, exit code 130; another machine goes on from what was sent",
        arguments: [SIGINT, SIGTERM]
    )
    func interruptedImport(_ signal: Int32) async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        var wanted = NewVolume()
        wanted.size = 16 << 20
        wanted.tags = ["name": "half"]
        let made = try await server.client(account).createVolume(wanted).id
        let volume = made.bytes
        let bytes = try Image.random(16 << 20)
        let child = try server.startCairn(account, ["import", "-", "--volume", "\(made)"], input: .pipe)
        child.write(Array(bytes[0..<12 << 20]))
        try await eventually("half of it is there") { try await caller.blocks(.volumeID(volume)).count >= 64 }
        child.send(signal)
        let outcome = try await child.wait(limit: .seconds(10))
        #expect(outcome.status == 130)
        #expect(outcome.output.isEmpty)
        #expect(!outcome.errors.isEmpty)
        let source = try folder.write(bytes, to: "rest")
        let rest = try await imported(account, [source, "--resume", "--name", "half"])
        #expect(try rest.number("in_place_bytes") >= 64 * 65536)
        #expect(try rest.number("transferred_bytes") + rest.number("in_place_bytes") == 16 << 20)
        #expect(try await caller.download(volume, 0..<16 << 20) == bytes)
    }

    @Test("G1: an import that fails names the volume that it made, as text and in JSON")
    func failedImport() async throws {
        let account = freshAccount()
        let client = try await server.client(account)
        for json in [[], ["--json"]] as [[String]] {
            let child = try server.startCairn(
                account,
                ["import", "-", "--new", "--size", "1MiB", "--name", "made-\(json.count)"] + json,
                input: .pipe
            )
            // More than the volume takes; what is beyond may find no reader any more.
            child.write(Content.noise(109, 2 << 20))
            child.closeInput()
            let outcome = try await child.wait()
            #expect(outcome.status == 64 && outcome.output.isEmpty)
            let made = try await client.volumes(tags: ["name": "made-\(json.count)"]).all()
            let volume = try #require(made.first).id
            let name = "\(volume)"
            if json.isEmpty {
                #expect(outcome.errors.contains(name))
            } else {
                #expect(try Report(outcome.errors).object("error").text("volume_id") == name)
            }
        }
    }

    @Test("No progress and no escape codes go into a pipe; --json is one object; errors are objects, too")
    func json() async throws {
        let account = freshAccount()
        let source = try folder.write(Content.noise(108, 1 << 20), to: "plain")
        let human = try await server.cairn(account, ["import", source, "--new"])
        #expect(human.status == 0)
        #expect(!human.output.contains("\u{1b}"))
        #expect(human.errors.isEmpty)
        let made = try Report(
            try await server.cairn(account, ["volume", "create", "--size", "20MiB", "--tag", "a=b", "--json"])
        )
        let volume = try made.text("volume_id")
        #expect(
            try Report(try await server.cairn(account, ["volume", "show", volume, "--json"])).number("size") == 20 << 20
        )
        #expect(
            try Report(try await server.cairn(account, ["volume", "resize", volume, "--size", "21MiB", "--json"]))
                .number("size") == 21 << 20
        )
        let snapshot = try Report(try await server.cairn(account, ["snapshot", "create", volume, "--json"])).text(
            "snapshot_id"
        )
        let shown = try Report(try await server.cairn(account, ["snapshot", "show", snapshot, "--json"]))
        #expect(try shown.text("state") == "complete")
        for command in [["volume", "list"], ["snapshot", "list"]] {
            let outcome = try await server.cairn(account, command + ["--json"])
            let list = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [[String: Any]]
            #expect((list?.count ?? 0) >= 1)
        }
        #expect(try Report(try await server.cairn(account, ["status", "--json"])).text("identity") == account)
        _ = try Report(try await server.cairn(account, ["snapshot", "delete", snapshot, "--json"]))
        let gone = try await server.cairn(account, ["snapshot", "show", snapshot, "--json"])
        #expect(gone.status == 44)
        #expect(try Report(gone.errors).object("error").text("reason") == "INVALID_SNAPSHOT_ID")
    }

    @Test("Exit codes are the documented ones")
    func exitCodes() async throws {
        let account = freshAccount()
        let missing = "\(VolumeID(.random(shard: ShardIndex(0))))"
        #expect(try await server.cairn(account, ["volume", "show", missing]).status == 44)
        #expect(try await server.cairn(account, ["volume", "show", "nonsense"]).status == 64)
        #expect(try await server.cairn(account, ["import", folder.file("nothing-here"), "--new"]).status == 66)
        #expect(try await server.cairn(account, ["volume", "create", "--size", "3"]).status == 1)
        var environment = try server.environment(account)
        environment["CAIRN_CERT"] = folder.file("no.crt")
        #expect(try await run(Program.cairn, ["status"], environment: environment, in: folder).status == 78)
        environment = try server.environment(account)
        environment["CAIRN_SERVER"] = "127.0.0.1:1"
        let refused = try await run(Program.cairn, ["status", "--timeout", "2s"], environment: environment, in: folder)
        #expect(refused.status == 69)
        let odd = try server.issue("odd-exit", [.uri("cairn://nobody")])
        environment = try server.environment(account)
        (environment["CAIRN_CERT"], environment["CAIRN_KEY"]) = (odd.certificate, odd.privateKey)
        #expect(try await run(Program.cairn, ["status"], environment: environment, in: folder).status == 77)
        #expect(try await server.cairn(account, ["export", missing, folder.file("x")]).status == 44)
        #expect(!Image.exists(folder.file("x")))
    }

    @Test(
        "G1: a full target disk: exit code 74, nothing under the final name, and the export goes on when there is room",
        .enabled(if: Mounts.isAllowed, "skipped: a tmpfs cannot be mounted here")
    )
    func fullDisk() async throws {
        let account = freshAccount()
        let source = folder.fresh("image")
        try Image.make(source, size: 16 << 20, [(0, try Image.random(16 << 20))])
        let volume = try await imported(account, [source, "--new"]).text("volume_id")
        let mount = folder.fresh("small")
        try FileManager.default.createDirectory(atPath: mount, withIntermediateDirectories: false)
        try await require("/bin/mount", ["-t", "tmpfs", "-o", "size=6m", "cairn-e2e", mount], in: folder)
        let outcome: ChildProcess.Outcome
        do {
            outcome = try await server.cairn(account, ["export", volume, mount + "/disk.img"])
            #expect(!Image.exists(mount + "/disk.img"))
            try await require("/bin/mount", ["-o", "remount,size=64m", mount], in: folder)
            _ = try await exported(account, [volume, mount + "/disk.img"])
            #expect(try await Image.same(source, mount + "/disk.img", in: folder))
            try await require("/bin/umount", [mount], in: folder)
        } catch {
            _ = try? await run("/bin/umount", ["-l", mount], in: folder)
            throw error
        }
        #expect(outcome.status == 74)
        #expect(outcome.errors.contains("space"))
    }
}
