import CairnClient
import CairnCore
import Foundation
import Testing

/// `cairn grant` and `cairn snapshot show --owners`, as users of two accounts run them.
@Suite(.serialized, .server())
struct SharingCommandTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    private func report(_ account: String, _ arguments: [String]) async throws -> Report {
        try Report(try await server.cairn(account, arguments + ["--json"]))
    }

    @Test(
        "D5: a snapshot is shared to be used, then to be exported; what is whose is shown, and why an export is refused"
    )
    func sharing() async throws {
        let (alice, bob) = (freshAccount("alice"), freshAccount("bob"))
        let source = try folder.write(Content.noise(501, 1 << 20), to: "shared")
        let made = try await report(alice, ["import", source, "--new", "--chunk-size", "64KiB", "--snapshot"])
        let snapshot = try made.text("snapshot_id")
        #expect(try await server.cairn(bob, ["volume", "create", "--from", snapshot]).status == 44)
        let granted = try await report(alice, ["grant", "create", "use", snapshot, "--to", bob])
        #expect(try granted.text("grantee") == bob && granted.text("permission") == "use")
        let received = try await server.cairn(bob, ["grant", "list", "--received"]).output
        #expect(received.contains(snapshot) && received.contains(alice), "what, and from whom")
        #expect(try await server.cairn(alice, ["grant", "list"]).output.contains(bob))
        // Bob builds on it, and adds data of his own.
        let volume = try await report(bob, ["volume", "create", "--from", snapshot]).text("volume_id")
        let client = try server.client(bob)
        let own = Buffer(copying: Content.noise(502, 2 * 65536)).slice
        _ = try await client.upload(
            [.init(offset: 0, length: 2 * 65536, content: .plain(own))],
            to: .volume(VolumeID(text: volume)!)
        )
        let mixed = try await report(bob, ["snapshot", "create", volume]).text("snapshot_id")
        let shown = try await server.cairn(bob, ["snapshot", "show", mixed, "--owners", "--wait-seal"]).output
        #expect(shown.contains(alice) && shown.contains("An export is refused"), "\(shown)")
        let refused = try await server.cairn(bob, ["export", mixed, folder.fresh("back")])
        #expect(refused.status == 77 && refused.errors.contains(alice))
        #expect(try await server.cairn(bob, ["export", snapshot, folder.fresh("back")]).status == 44)
        _ = try await report(alice, ["grant", "create", "export", snapshot, "--to", bob])
        let back = folder.fresh("back")
        #expect(try await report(bob, ["export", mixed, back, "--verify"]).text("seal_check") == "matched")
        let expected = Content.noise(502, 2 * 65536) + Content.noise(501, 1 << 20)[(2 * 65536)...]
        #expect(try Image.bytes(back) == expected)
        #expect(try await !server.cairn(bob, ["snapshot", "show", mixed, "--owners"]).output.contains("refused"))
        // Withdrawn: with the next call.
        _ = try await report(alice, ["grant", "delete", "export", snapshot, "--to", bob])
        #expect(try await server.cairn(bob, ["export", mixed, folder.fresh("back")]).status == 77)
    }

    @Test("D5, G1, S3: onto a clone and a restore of what may only be used, an import and a backup send all, holes too")
    func replaced() async throws {
        let (alice, bob) = (freshAccount("alice"), freshAccount("bob"))
        let source = try folder.write(Content.noise(503, 1 << 20), to: "used")
        let made = try await report(alice, ["import", source, "--new", "--chunk-size", "64KiB", "--snapshot"])
        let snapshot = try made.text("snapshot_id")
        _ = try await report(alice, ["grant", "create", "use", snapshot, "--to", bob])
        let disk = folder.fresh("disk")
        let zeros = [UInt8](repeating: 0, count: 65536)
        try Image.make(disk, size: 1 << 20, [(0, Content.noise(504, 2 * 65536)), (8 * 65536, zeros)])
        let clone = try await report(bob, ["volume", "create", "--from", snapshot]).text("volume_id")
        let imported = try await report(bob, ["import", disk, "--volume", clone, "--snapshot", "--verify"])
        #expect(try imported.text("seal_check") == "matched" && imported.number("transferred_bytes") == 2 * 65536)
        let back = folder.fresh("back")
        _ = try await report(bob, ["export", clone, back])
        #expect(try Image.bytes(back) == Image.bytes(disk))
        _ = try await report(bob, ["volume", "create", "--local", "--from", snapshot, "--tag", "name=again"])
        let backup = try await report(bob, ["backup", disk, "--volume", "again"])
        #expect(try backup.text("seal_check") == "matched" && backup.number("in_place_bytes") == 0)
    }
}
