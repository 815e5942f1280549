import CairnClient
import CairnCore
import CairnCrypto
import Foundation
import Testing

/// Rot under a real server: told to its owner and to nobody else, and healed by an import of the same image.
@Suite(.serialized) struct DamageTests {
    /// Spoils a piece of `content` wherever the store's segments hold it.
    private func spoil(_ content: ArraySlice<UInt8>, in server: ServerProcess) throws -> Int {
        var spoiled = 0
        let needle = Data(content)
        for path in try server.files(under: server.store, ending: ".seg") {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            guard let found = bytes.range(of: needle) else { continue }
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
            try file.seek(toOffset: UInt64(found.lowerBound))
            try file.write(contentsOf: Data(repeating: 0x5a, count: needle.count))
            try file.close()
            spoiled += 1
        }
        return spoiled
    }

    private func operatorClient(_ server: ServerProcess) throws -> [String: String] {
        let identity = server.folder.file("pki/operator")
        if !FileManager.default.fileExists(atPath: identity + ".crt") {
            _ = try server.authority.issueClient(CredentialName("operator"), identity: .admin)
        }
        var environment = try server.environment("nobody")
        (environment["CAIRN_CERT"], environment["CAIRN_KEY"]) = (identity + ".crt", identity + ".key")
        return environment
    }

    @Test("D4: scrub finds rot, its owner is told where, others learn nothing, and importing the image again heals it")
    func foundToldHealed() async throws {
        let server = try await ServerProcess.started()
        var random = SystemRandomNumberGenerator()
        let image = (0..<(1 << 20) / 8).flatMap { _ in
            withUnsafeBytes(of: random.next()) { Array($0) }
        }
        let file = try server.folder.write(image, to: "image.raw")
        func account(_ name: String) async throws -> (volume: String, snapshot: String) {
            let made = try Report(
                try await server.cairn(name, ["volume", "create", "--size", "1MiB", "--json"])
            ).text("volume_id")
            #expect(try await server.cairn(name, ["import", file, "--volume", made]).status == 0)
            let snapshot = try Report(try await server.cairn(name, ["snapshot", "create", made, "--json"]))
            return (made, try snapshot.text("snapshot_id"))
        }
        let own = try await account("owner")
        // Damaged before another account has the same data: that one keeps its own copy, and it is whole.
        #expect(try spoil(image[(5 << 16) + 1000..<(5 << 16) + 1064], in: server) == 1)
        let other = try await account("other")
        let environment = try operatorClient(server)
        let scrubbed = try await run(
            Program.cairn,
            ["scrub", "--wait", "--json"],
            environment: environment,
            in: server.folder
        )
        #expect(scrubbed.status == 0, "\(scrubbed.errors)")
        #expect(scrubbed.output.contains("\"owner\"") && !scrubbed.output.contains("\"other\""))

        let client = try server.client("owner")
        defer { client.close() }
        let volume = try #require(VolumeID(text: own.volume))
        let snapshot = try #require(SnapshotID(text: own.snapshot))
        let damage = try await client.damage().all()
        #expect(damage.map(\.offset) == [5 << 16, 5 << 16])
        #expect(Set(damage.map(\.target)) == [.volume(volume), .snapshot(snapshot)])
        #expect(try await client.damage(of: .volume(volume)).all().map(\.offset) == [5 << 16])
        let token = try #require(damage.first?.token)
        #expect(token == image[5 << 16..<6 << 16].withUnsafeBytes { SHA256.hash($0) })
        let read = await server.failure {
            try await client.download(
                [BlockRange(offset: 5 << 16, length: 1 << 16)],
                from: .volume(volume)
            )
        }
        #expect(read?.answer?.reason == .dataLoss, "\(String(describing: read))")
        #expect(read?.text.contains(own.volume) == true && read?.text.contains("\(5 << 16)") == true)
        #expect(read?.text.contains("\(token)") == true)

        // SPEC C2, C3: another account has no damage, and sees no such volume; and the operator's calls are the operator's.
        let stranger = try server.client("other")
        defer { stranger.close() }
        #expect(try await stranger.damage().all() == [])
        let unseen = await server.failure { try await stranger.damage(of: .volume(volume)).all() }
        #expect(unseen?.answer?.reason == .invalidVolumeID)
        let refused = await server.failure { try await stranger.scrub() }
        #expect(refused?.answer?.reason == .permissionDenied)
        #expect(try await server.cairn("other", ["scrub"]).status == 77)
        #expect(try await server.cairn("owner", ["damage", own.snapshot]).output.contains("\(5 << 16)"))

        // Over a restart, then the same image once more: the chunk is asked for, and comes.
        try await server.stop()
        try await server.start()
        #expect(try await server.cairn("owner", ["damage", "--json"]).output.contains("\(token)"))
        let again = try await server.cairn("owner", ["import", file, "--volume", own.volume])
        #expect(again.status == 0, "\(again.errors)")
        let healed = try server.client("owner")
        defer { healed.close() }
        #expect(try await healed.damage().all() == [])
        for name in [own.volume, own.snapshot, other.volume] {
            let out = server.folder.fresh("out")
            let who = name == other.volume ? "other" : "owner"
            let exported = try await server.cairn(who, ["export", name, out])
            #expect(exported.status == 0, "\(exported.errors)")
            #expect(FileManager.default.contents(atPath: out) == Data(image))
        }
        let metrics = try await run(
            Program.cairn,
            ["scrub", "--status"],
            environment: try operatorClient(server),
            in: server.folder
        )
        #expect(metrics.status == 0 && !metrics.output.contains("owner:"))
        try await server.stop()
    }
}

extension ServerProcess {
    /// The error that `body` ends with.
    fileprivate func failure(_ body: () async throws -> some Sendable) async -> ClientError? {
        do {
            _ = try await body()
            return nil
        } catch { return error as? ClientError }
    }
}
