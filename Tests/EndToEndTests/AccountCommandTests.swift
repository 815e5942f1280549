import CairnClient
import CairnCore
import CairnCrypto
import Foundation
import Testing

/// `cairn account`, as the operator and a user run it.
@Suite(.serialized, .server())
struct AccountCommandTests {
    private let server = ServerProcess.shared

    private func admin(_ arguments: [String]) async throws -> ChildProcess.Outcome {
        let identity = server.folder.file("pki/operator")
        if !FileManager.default.fileExists(atPath: identity + ".crt") {
            _ = try server.authority.issueClient(CredentialName("operator"), identity: .admin)
        }
        var environment = try server.environment("nobody")
        (environment["CAIRN_CERT"], environment["CAIRN_KEY"]) = (identity + ".crt", identity + ".key")
        return try await run(Program.cairn, arguments, environment: environment, in: server.folder)
    }

    @Test("R3: the operator limits an account; it is told which limit stopped it; others are not")
    func limits() async throws {
        let (limited, free) = (freshAccount(), freshAccount())
        for account in [limited, free] {
            #expect(try await server.cairn(account, ["volume", "create", "--size", "1MiB"]).status == 0)
        }
        let list = try await admin(["account", "list"])
        #expect(list.output.contains(limited) && list.output.contains(free))
        let set = try Report(
            try await admin(["account", "limit", limited, "--volumes", "2", "--stored", "1GiB", "--json"])
        )
        #expect(try set.object("limits").number("volumes") == 2)
        // What is not given stays.
        let more = try Report(try await admin(["account", "limit", limited, "--stored", "none", "--json"]))
        #expect(try more.object("limits").number("volumes") == 2 && more.object("limits").number("stored_bytes") == 0)
        #expect(try await server.cairn(limited, ["volume", "create", "--size", "1MiB"]).status == 0)
        let refused = try await server.cairn(limited, ["volume", "create", "--size", "1MiB", "--json"])
        #expect(try Report(refused.errors).object("error").text("reason") == "QUOTA_EXCEEDED")
        #expect(try await server.cairn(free, ["volume", "create", "--size", "1MiB"]).status == 0)
        let shown = try await server.cairn(limited, ["account", "show"])
        #expect(shown.output.contains("2 of at most 2"))
        // The server's defaults again: this one has none.
        let back = try Report(try await admin(["account", "limit", limited, "--defaults", "--json"]))
        #expect(try back.object("limits").number("volumes") == 0)
        #expect(try await server.cairn(limited, ["volume", "create", "--size", "1MiB"]).status == 0)
        #expect(try await admin(["account", "limit", limited]).status == 64)
        // The rest is the operator's.
        #expect(try await server.cairn(limited, ["account", "list"]).status == 77)
        #expect(try await server.cairn(limited, ["account", "limit", limited, "--volumes", "9"]).status == 77)
        #expect(try await server.cairn(limited, ["account", "show", free]).status == 77)
    }
}
