import Foundation
import Testing

/// `cairn pki`, run as a program: what it makes, prints and exits with.
@Suite final class PKICommandTests {
    let folder: String
    var pki: String { folder + "/pki" }

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("cairn-pki-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    private func run(_ arguments: String...) throws -> CairnCommand.Outcome {
        try CairnCommand.run(["pki"] + arguments)
    }

    private func mode(_ file: String) throws -> Int? {
        (try FileManager.default.attributesOfItem(atPath: "\(pki)/\(file)")[.posixPermissions] as? NSNumber)?.intValue
    }

    @Test func wholeLife() throws {
        #expect(try run("create-ca", pki).status == 0)
        #expect(
            try run("create-server", pki, "server", "--dns", "localhost", "--ip", "127.0.0.1", "--ip", "::1").status
                == 0
        )
        let client = try run("create-client", pki, "app", "--account", "acme", "--json")
        #expect(client.status == 0 && client.errors.isEmpty)
        let report = try client.object()
        let certificate = try #require(report["certificate"] as? [String: Any])
        #expect(certificate["identity"] as? String == "cairn://account/acme")
        #expect(
            report["key_path"] as? String == "\(pki)/app.key" && report["authority_path"] as? String == "\(pki)/ca.crt"
        )
        #expect(
            try run("create-client", pki, "vmhost", "--account", "acme", "--host").output.contains(
                "cairn://account/acme/host"
            )
        )
        #expect(try run("create-client", pki, "operator", "--admin").output.contains("cairn://admin"))
        for key in ["ca.key", "server.key", "app.key", "operator.key"] { #expect(try mode(key) == 0o600) }

        let serial = try #require(certificate["serial"] as? String)
        #expect(try run("revoke", pki, "app").output.contains("Revoked app (cairn://account/acme), serial \(serial)."))
        #expect(try run("revoke", pki, serial, "--json").object()["status"] as? String == "revoked")

        let listed = try run("list", pki, "--json")
        let list = try #require(JSONSerialization.jsonObject(with: Data(listed.output.utf8)) as? [[String: Any]])
        #expect(list.map { $0["name"] as? String } == ["server", "app", "vmhost", "operator"])
        #expect(list.map { $0["status"] as? String } == ["valid", "revoked", "valid", "valid"])
        #expect(
            list[0]["dns_names"] as? [String] == ["localhost"]
                && list[0]["addresses"] as? [String] == ["127.0.0.1", "::1"]
        )
        let table = try run("list", pki).output.split(separator: "\n")
        #expect(table.count == 5 && table[0].hasPrefix("NAME") && table[2].contains(serial))
    }

    @Test func nothingIsOverwritten() throws {
        #expect(try run("create-ca", pki).status == 0)
        #expect(try run("create-client", pki, "app", "--admin").status == 0)
        let key = try Data(contentsOf: URL(fileURLWithPath: "\(pki)/app.key"))
        #expect(try run("create-ca", pki).status == 73)
        let again = try run("create-client", pki, "app", "--admin", "--json")
        #expect(again.status == 73 && again.output.isEmpty)
        let error = try JSONSerialization.jsonObject(with: Data(again.errors.utf8)) as? [String: [String: String]]
        #expect(error?["error"]?["reason"] == "ALREADY_EXISTS")
        #expect(try Data(contentsOf: URL(fileURLWithPath: "\(pki)/app.key")) == key)
    }

    @Test func exitCodes() throws {
        #expect(try run("list", pki).status == 66)
        #expect(try run("create-ca", pki, "--days", "2").status == 0)
        let usages: [[String]] = [
            ["create-client", pki, "x"], ["create-client", pki, "x", "--account", "A"],
            ["create-client", pki, "x", "--account", "a", "--admin"], ["create-client", pki, "x", "--admin", "--host"],
            ["create-client", pki, "../x", "--admin"], ["create-client", pki, "ca", "--admin"],
            ["create-client", pki, "x", "--admin", "--days", "0"], ["create-server", pki, "x"],
            ["create-server", pki, "x", "--ip", "1.2.3"], ["create-server", pki, "x", "--dns", "a b"], ["frobnicate"],
            ["create-ca", pki + "2", "--days", "40000"],
        ]
        for usage in usages { #expect(try CairnCommand.run(["pki"] + usage).status == 64, "\(usage)") }
        #expect(try run("revoke", pki, "nobody").status == 66)

        let cut = try run("create-client", pki, "short", "--admin")
        #expect(cut.status == 0 && cut.errors.contains("cut to the authority's own end"))

        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: "\(pki)/ca.key")
        #expect(try run("create-client", pki, "x", "--admin").status == 77)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(pki)/ca.key")
        try Data("no index\n".utf8).write(to: URL(fileURLWithPath: "\(pki)/index.tsv"))
        #expect(try run("list", pki).status == 65)
    }

    @Test(arguments: [[], ["create-ca"], ["create-server"], ["create-client"], ["list"], ["revoke"]])
    func help(command: [String]) throws {
        let outcome = try CairnCommand.run(["pki"] + command + ["--help"])
        #expect(outcome.status == 0 && outcome.output.contains("USAGE: cairn pki"))
    }
}
