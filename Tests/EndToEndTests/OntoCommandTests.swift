import CairnClient
import CairnCore
import Foundation
import Testing

/// Exports onto files that exist.
@Suite(.serialized, .server())
struct OntoCommandTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    @Test("A4: an export onto a file that is almost right fetches and writes only what differs")
    func onto() async throws {
        let account = freshAccount()
        let source = folder.fresh("image")
        try Image.make(source, size: 8 << 20, [(0, Content.noise(301, 3 << 20)), (6 << 20, Content.noise(302, 65536))])
        let made = try Report(
            try await server.cairn(account, ["import", source, "--new", "--snapshot", "--verify", "--json"])
        )
        let snapshot = try made.text("snapshot_id")
        let target = folder.fresh("old")
        try FileManager.default.copyItem(atPath: source, toPath: target)
        try Image.overwrite(target, at: 70_000, [1, 2, 3])
        try Image.overwrite(target, at: 5 << 20, Content.noise(303, 4096))
        #expect(try await server.cairn(account, ["export", snapshot, target]).status == 73)
        let export = try Report(
            try await server.cairn(account, ["export", snapshot, target, "--onto", "--verify", "--json"])
        )
        #expect(try export.number("transferred_bytes") == 65536)
        #expect(try export.number("in_place_bytes") == (3 << 20))
        #expect(try export.text("seal_check") == "matched")
        #expect(try await Image.same(source, target, in: folder))
        let absent = try await server.cairn(account, ["export", snapshot, folder.fresh("absent"), "--onto"])
        #expect(absent.status == 73)
    }
}
