import Foundation
import Testing

/// Block devices as sources and targets, as a user runs the commands on them.
@Suite(.serialized, .server())
struct BlockDeviceCommandTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    private func report(_ account: String, _ arguments: [String]) async throws -> Report {
        try Report(try await server.cairn(account, arguments + ["--json"]))
    }

    @Test(
        "G1: a block device in, and out",
        .enabled(if: Mounts.hasLoopDevices, "skipped: loop devices are missing here")
    )
    func blockDevice() async throws {
        let account = freshAccount()
        let (source, target) = (folder.fresh("disk"), folder.fresh("disk"))
        try Image.make(
            source,
            size: 8 << 20,
            [(1 << 20, Content.noise(109, 2 << 20)), (7 << 20, Content.text(110, 65536))]
        )
        try Image.make(target, size: 8 << 20, [(0, Content.noise(111, 8 << 20))])
        var devices: [String] = []
        defer { for device in devices { Mounts.detach(device) } }
        for file in [source, target] { devices.append(try await Mounts.attach(file, in: folder)) }
        let made = try await report(account, ["import", devices[0], "--new", "--snapshot", "--verify"])
        let snapshot = try made.text("snapshot_id")
        #expect(try await server.cairn(account, ["export", snapshot, devices[1]]).status == 73)
        _ = try await report(account, ["export", snapshot, devices[1], "--force"])
        for device in devices { Mounts.detach(device) }
        devices = []
        #expect(try await Image.same(source, target, in: folder))
    }

    @Test(
        "S3, S6, G1: a block device is backed up, written to, backed up again and restored; only what changed travels",
        .enabled(if: Mounts.hasLoopDevices, "skipped: loop devices are missing here")
    )
    func backup() async throws {
        let account = freshAccount()
        let disk = folder.fresh("disk")
        try Image.make(
            disk,
            size: 8 << 20,
            [(1 << 20, Content.noise(601, 2 << 20)), (6 << 20, Content.text(602, 65536))]
        )
        let device = try await Mounts.attach(disk, in: folder)
        defer { Mounts.detach(device) }
        let create = ["--create", "--chunk-size", "64KiB"]
        let first = try await report(account, ["backup", device, "--volume", "home"] + create)
        #expect(try first.text("seal_check") == "matched" && first.number("transferred_bytes") == 33 * 65536)
        let monday = try await copy(device)
        // Parts of two chunks, data where none was, and zeros over a chunk.
        for (offset, bytes) in [
            ((1 << 20) + 70_000, [1, 2, 3]), ((2 << 20) + 5, Content.noise(603, 100)),
            (5 << 20, Content.noise(604, 65536)),
            ((1 << 20) + 4 * 65536, [UInt8](repeating: 0, count: 65536)),
        ] { try Image.overwrite(device, at: offset, bytes) }
        let second = try await report(account, ["backup", device, "--volume", "home"])
        #expect(try second.text("seal_check") == "matched" && second.number("transferred_bytes") == 3 * 65536)
        let tuesday = try await copy(device)
        let snapshots = [try first.text("snapshot_id"), try second.text("snapshot_id")]
        #expect(try await report(account, ["diff"] + snapshots).number("changed_bytes") == 4 * 65536)
        // It is not overwritten unasked.
        #expect(try await server.cairn(account, ["restore", snapshots[0], device]).status == 73)
        #expect(try await Image.same(device, tuesday, in: folder))
        // Back to monday and on to tuesday: three chunks each, and zeros.
        for (snapshot, image) in zip(snapshots, [monday, tuesday]) {
            let restored = try await report(account, ["restore", snapshot, device, "--onto"])
            #expect(try restored.number("transferred_bytes") == 3 * 65536 && restored.text("seal_check") == "matched")
            #expect(try await Image.same(device, image, in: folder))
        }
        // Another disk, which is larger and holds other things: what lies behind the image stays.
        let other = folder.fresh("disk")
        try Image.make(other, size: 10 << 20, [(0, Content.noise(605, 10 << 20))])
        let larger = try await Mounts.attach(other, in: folder)
        defer { Mounts.detach(larger) }
        _ = try await report(account, ["restore", snapshots[0], larger, "--onto"])
        let bytes = try Image.bytes(try await copy(larger))
        #expect(try Array(bytes[0..<8 << 20]) == Image.bytes(monday))
        #expect(Array(bytes[(8 << 20)...]) == Array(Content.noise(605, 10 << 20)[(8 << 20)...]))
    }

    /// What a device holds now.
    private func copy(_ device: String) async throws -> String {
        let path = folder.fresh("copy")
        try await require("/bin/cp", [device, path], in: folder)
        return path
    }
}
