import CairnClient
import CairnCore
import Foundation
import Testing

/// `cairn diff`, `cairn usage`, labels, attachments, and snapshots of several volumes, as a user runs them.
@Suite(.serialized, .server())
struct QuestionCommandTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    private func report(_ account: String, _ arguments: [String]) async throws -> Report {
        try Report(try await server.cairn(account, arguments + ["--json"]))
    }

    private func imported(_ account: String, _ bytes: [UInt8]) async throws -> (volume: String, snapshot: String) {
        let source = try folder.write(bytes, to: "source-\(UInt32.random(in: .min ... .max))")
        let made = try await report(account, ["import", source, "--new", "--chunk-size", "64KiB", "--snapshot"])
        return (try made.text("volume_id"), try made.text("snapshot_id"))
    }

    @Test("R1: a snapshot and its volume differ by what was written and discarded since, whole ranges in a table")
    func diff() async throws {
        let account = freshAccount()
        let (volume, snapshot) = try await imported(account, Content.noise(401, 2 << 20))
        let client = try server.client(account)
        let id = VolumeID(text: volume)!
        for chunk in [3, 4, 5] {
            let bytes = Buffer(copying: Content.noise(UInt64(chunk), 512)).slice
            _ = try await client.upload(
                [.init(offset: UInt64(chunk) * 65536, length: 512, content: .plain(bytes))],
                to: .volume(id)
            )
        }
        let cleared = try await server.cairn(account, ["volume", "discard", volume, "1MiB", "128KiB"])
        #expect(cleared.status == 0 && cleared.output.contains("discarded"))
        let changed = try await report(account, ["diff", snapshot, volume])
        #expect(try changed.number("data_bytes") == 3 * 65536)
        #expect(try changed.number("hole_bytes") == 2 * 65536)
        let table = try await server.cairn(account, ["diff", snapshot, volume]).output
        let lines = table.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        #expect(lines.contains(["196608", "196608", "data"]) && lines.contains(["1048576", "131072", "hole"]))
        #expect(table.contains("320 KiB differ"))
        let same = try await server.cairn(account, ["diff", snapshot, snapshot])
        #expect(same.output.contains("nothing differs"))
        // Two that have nothing to do with each other, but their content.
        let (_, twin) = try await imported(account, Content.noise(401, 2 << 20))
        #expect(try await report(account, ["diff", snapshot, twin]).number("changed_bytes") == 0)
    }

    @Test("R1, V7: `cairn volume discard` makes holes, with --zeros written zeros; a bad range is refused")
    func discard() async throws {
        let account = freshAccount()
        let (volume, snapshot) = try await imported(account, Content.noise(410, 1 << 20))
        let client = try server.client(account)
        let id = VolumeID(text: volume)!
        for (offset, arguments) in [("128KiB", []), ("256KiB", ["--zeros"])] {
            let cleared = try await report(account, ["volume", "discard", volume, offset, "64KiB"] + arguments)
            #expect(try cleared.text("volume_id") == volume && cleared.number("length") == 65536)
        }
        let listed = try await client.blocks(of: .volume(id), in: BlockRange(offset: 131_072, length: 196_608)).all()
        #expect(listed.filter { $0.state == .zeros }.map(\.offset) == [262_144])
        #expect(listed.filter { $0.state == .data }.map(\.offset) == [196_608])
        let changed = try await report(account, ["diff", snapshot, volume])
        #expect(try changed.number("zero_bytes") == 65536 && changed.number("hole_bytes") == 65536)
        #expect(try await client.read(.volume(id), 131_072..<196_608).allSatisfy { $0 == 0 })
        let text = try await server.cairn(account, ["volume", "discard", volume, "0", "512", "--zeros"]).output
        #expect(text.contains("zeroed"))
        let refused = try await server.cairn(
            account,
            ["volume", "discard", volume, "1MiB", "512", "--zeros", "--json"]
        )
        #expect(refused.status == 64)
        #expect(try Report(refused.errors).object("error").text("reason") == "INVALID_REQUEST")
    }

    @Test("V7: of a range that goes beyond the volume's end nothing is discarded, however many calls it would take")
    func discardBeyond() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        // One call clears 4,096 chunks, 16 MiB of these.
        let volume = try await client.volume(size: 20 << 20, chunkSize: 4096).id
        let bytes = Content.noise(411, 1 << 20)
        try await client.write(bytes, to: .volume(volume))
        for arguments in [["0", "24MiB"], ["0", "20972032", "--zeros"], ["512", "17179869183GiB"]] {
            let refused = try await server.cairn(account, ["volume", "discard", "\(volume)"] + arguments)
            #expect(refused.status == 64)
        }
        #expect(try await client.read(.volume(volume)) == bytes)
    }

    @Test("What standard output cannot take is an error: exit code 74")
    func fullOutput() async throws {
        let outcome = try await run(
            "/bin/sh",
            ["-c", "exec \"$0\" \"$@\" > /dev/full", Program.cairn, "status", "--json"],
            environment: try server.environment(freshAccount()),
            in: folder
        )
        #expect(outcome.status == 74 && outcome.errors.contains("standard output"))
    }

    @Test("R1: two backups of a disk differ by what changed on it")
    func diffOfBackups() async throws {
        let account = freshAccount()
        let disk = folder.fresh("disk")
        try Image.make(disk, size: 4 << 20, [(0, Content.noise(420, 1 << 20))])
        let create = ["--create", "--chunk-size", "64KiB"]
        let monday = try await report(account, ["backup", disk, "--volume", "home"] + create).text("snapshot_id")
        try Image.overwrite(disk, at: 70_000, [1, 2, 3])
        try Image.overwrite(disk, at: 2 << 20, Content.noise(421, 65536))
        try Image.overwrite(disk, at: 0, [UInt8](repeating: 0, count: 65536))
        let tuesday = try await report(account, ["backup", disk, "--volume", "home"]).text("snapshot_id")
        let difference = try await report(account, ["diff", monday, tuesday])
        #expect(try difference.number("changed_bytes") == 3 * 65536)
        #expect(try difference.number("data_bytes") == 2 * 65536)
    }

    @Test("R2: usage of the account and of a set, and what deleting the set would free")
    func usage() async throws {
        let account = freshAccount()
        let (volume, snapshot) = try await imported(account, Content.noise(402, 2 << 20))
        let whole = try await report(account, ["usage"]).object("total")
        #expect(try whole.number("unique_bytes") == 2 << 20)
        let shared = try await report(account, ["usage", snapshot, "--freed"])
        #expect(try shared.number("freed_bytes") == 0, "the volume holds the same chunks")
        let both = try await report(account, ["usage", snapshot, volume, "--freed"])
        #expect(try both.number("freed_bytes") == 2 << 20)
        #expect(try both.object("total").number("unique_bytes") == 2 << 20)
        let text = try await server.cairn(account, ["usage", snapshot, volume, "--freed", "--affinity", "web"]).output
        #expect(text.contains("would free") && text.contains("would have saved"))
    }

    @Test("R1: labels are set and removed")
    func labels() async throws {
        let account = freshAccount()
        let (volume, snapshot) = try await imported(account, Content.noise(403, 1 << 20))
        for (kind, id) in [("volume", volume), ("snapshot", snapshot)] {
            let set = try await report(account, [kind, "tag", id, "a=1", "b=2"])
            #expect(try set.object("tags").text("b") == "2")
            let changed = try await report(account, [kind, "tag", id, "b=3", "--remove", "a"])
            #expect(try changed.object("tags").text("b") == "3")
            #expect(try await server.cairn(account, [kind, "list", "--tag", "b=3"]).output.contains(id))
            #expect(try await !server.cairn(account, [kind, "list", "--tag", "a=1"]).output.contains(id))
        }
    }

    @Test("R5: who attached a volume before is fenced out")
    func attach() async throws {
        let account = freshAccount()
        let (volume, _) = try await imported(account, Content.noise(404, 1 << 20))
        let client = try server.client(account)
        let id = VolumeID(text: volume)!
        let mine = try await client.attachVolume(id)
        let other = try await report(account, ["volume", "attach", volume])
        #expect(try other.number("attachment_generation") == Int(mine.generation) + 1)
        let writer = FlushedWriter(client: client, volume: id, attachment: mine)
        let error = await #expect(throws: ClientError.self) {
            try await writer.write(Buffer(copying: [UInt8](repeating: 1, count: 512)).slice, at: 0)
        }
        #expect(error?.answer?.reason == .staleAttachment)
        await #expect(throws: ClientError.self) {
            try await client.discard([BlockRange(offset: 0, length: 512)], of: .volume(id), attachment: mine)
        }
        #expect(try await client.describeVolume(id).attachment.generation == mine.generation + 1)
    }

    @Test("R6: several volumes get their snapshots at one point in time, or none does")
    func several() async throws {
        let account = freshAccount()
        var volumes: [String] = []
        for seed in UInt64(0)..<4 {
            volumes.append(try await imported(account, Content.noise(405 + seed, 1 << 20)).volume)
        }
        let outcome = try await server.cairn(
            account,
            ["snapshot", "create"] + volumes + ["--description", "all", "--json"]
        )
        let list = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [[String: Any]]
        #expect(list?.map { $0["volume_id"] as? String } == volumes)
        let before = try await server.cairn(account, ["snapshot", "list"]).output.split(separator: "\n").count
        let missing = "\(VolumeID(.random(shard: ShardIndex(0))))"
        #expect(try await server.cairn(account, ["snapshot", "create", volumes[0], missing]).status == 44)
        #expect(try await server.cairn(account, ["snapshot", "list"]).output.split(separator: "\n").count == before)
    }
}
