import CairnCore
import CairnCrypto
import CairnRPC
import CairnTransport
import CairnWire
import Foundation
import Testing

/// SPEC C1: who has no good certificate gets a TLS alert, and a good one ends its connections when it ends.
@Suite(.timeLimit(.minutes(5))) struct CertificateTests {
    private let installation = TestInstallation.shared

    /// What `openssl s_client` says after having connected.
    private func openssl(_ server: TestServer, _ arguments: [String]) async throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments =
            [
                "s_client", "-connect", "127.0.0.1:\(server.endpoint.port)", "-CAfile",
                installation.authority.certificatePath,
            ]
            + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        let input = Pipe()
        process.standardInput = input
        try process.run()
        let limit = Task {
            try await Task.sleep(for: .seconds(10))
            process.terminate()
        }
        // The input stays open: s_client goes when the server closes.
        let data = try await Task.detached { try output.fileHandleForReading.readToEnd() ?? Data() }.value
        limit.cancel()
        try input.fileHandleForWriting.close()
        process.waitUntilExit()
        return String(decoding: data, as: UTF8.self)
    }

    private func credentials(_ files: TLSFiles) -> [String] { ["-cert", files.certificate, "-key", files.privateKey] }

    @Test func alerts() async throws {
        let server = try TestServer()
        let alpn = ["-alpn", "cairn/1"]
        let foreign = try CertificateAuthority.create(in: installation.folder + "/foreign-\(UUID().uuidString)")
        let stranger = TestInstallation.client(of: foreign, "stranger")
        let past = Validity(notBefore: Validity.now - 7200, notAfter: Validity.now - 3600)
        let expired = TestInstallation.client(
            of: installation.authority,
            "expired-\(UUID().uuidString.prefix(8))",
            validity: past
        )
        let good = credentials(installation.client)
        let cases: [(String, [String], String)] = [
            ("no certificate", alpn, "alert certificate required"),
            ("foreign CA", alpn + credentials(stranger), "alert unknown ca"),
            ("expired", alpn + credentials(expired), "alert certificate expired"),
            ("a server's certificate", alpn + credentials(installation.server), "alert unsupported certificate"),
            ("TLS 1.2", alpn + good + ["-tls1_2"], "alert protocol version"),
            ("no ALPN", good, "alert no application protocol"),
            ("foreign ALPN", good + ["-alpn", "h2"], "alert no application protocol"),
        ]
        for (name, arguments, alert) in cases {
            let said = try await openssl(server, arguments)
            #expect(said.contains(alert), "\(name): \(said.suffix(600))")
        }
        // No ticket is ever sent, and a decent client gets in.
        #expect(server.authenticator.applicants.withLock { $0.isEmpty })
        let client = try await server.connect()
        client.close()
    }

    @Test func ourClientSaysSo() async throws {
        let server = try TestServer()
        let foreign = try CertificateAuthority.create(in: installation.folder + "/foreign-\(UUID().uuidString)")
        var files = TestInstallation.client(of: foreign, "stranger")
        files.authorities = installation.client.authorities
        let error = await #expect(throws: RPCError.self) { try await server.connect(files: files) }
        #expect(error?.code == .insecure)
        // The client trusts only its own CA's servers, and only under their name.
        files.authorities = [foreign.certificatePath]
        let distrusted = await #expect(throws: RPCError.self) { try await server.connect(files: files) }
        #expect(distrusted?.code == .insecure)
        let elsewhere = await #expect(throws: RPCError.self) { try await server.connect(verifiedHost: "other.example") }
        #expect(elsewhere?.code == .insecure)
        let named = try await server.connect(verifiedHost: "localhost")
        named.close()
    }

    @Test func factsOfTheCertificate() async throws {
        let name = "facts-\(UUID().uuidString.prefix(8))"
        let uris = ["cairn://admin", "https://example.org/ü", "urn:x"]
        let files = TestInstallation.client(of: installation.authority, name, uris: [uris[0], uris[2]])
        let server = try TestServer()
        let client = try await server.connect(files: files)
        defer { client.close() }
        let facts = try #require(server.authenticator.applicants.withLock { $0.first?.certificate })
        let issued = try installation.authority.find(name)
        #expect(facts.uriNames == [uris[0], uris[2]])
        #expect(facts.notAfter == issued.validity.notAfter)
        #expect(
            facts.serial.lowercased().drop { $0 == "0" } == issued.serial.description.lowercased().drop { $0 == "0" }
        )
        #expect(facts.subject.contains(name))
        #expect(client.peerCertificate.subject.contains("server"))
    }

    @Test func revocationEndsConnections() async throws {
        let authority = try CertificateAuthority.create(in: installation.folder + "/revoking-\(UUID().uuidString)")
        let names: [AlternativeName] = [.address(.init(text: "127.0.0.1")!)]
        var files = TestInstallation.files(try authority.issueServer(CredentialName("server"), names: names), authority)
        files.revocations = authority.revocationListPath
        let server = try TestServer(files: files)
        let staying = try await server.connect(files: TestInstallation.client(of: authority, "staying"))
        let leaver = TestInstallation.client(of: authority, "leaving")
        let leaving = try await server.connect(files: leaver)
        _ = try authority.revoke(try authority.find("leaving").serial)
        server.server.replaceTLS(try TLSContext(.server, files: files))
        #expect(await eventually { !leaving.isOpen })
        #expect(staying.isOpen)
        let error = await #expect(throws: RPCError.self) { try await server.connect(files: leaver) }
        #expect(error?.code == .insecure)
        #expect(try await staying.call(Request(method: TestMethod.echo, message: [3])).message == [3])
        staying.close()
    }

    /// Its handshake is made by the rules that were in force when it began; who lets it in looks at the present ones.
    @Test func revocationInMidHandshake() async throws {
        let authority = try CertificateAuthority.create(in: installation.folder + "/midway-\(UUID().uuidString)")
        let names: [AlternativeName] = [.address(.init(text: "127.0.0.1")!)]
        var files = TestInstallation.files(try authority.issueServer(CredentialName("server"), names: names), authority)
        files.revocations = authority.revocationListPath
        let server = try TestServer(files: files)
        func replaceTLS() throws { server.server.replaceTLS(try TLSContext(.server, files: files)) }
        let staying = TestInstallation.client(of: authority, "staying")
        let first = try DeafPeer(to: server.endpoint, files: staying, beforeLastFlight: replaceTLS)
        let stayer = try #require(first)
        let isGreeted = try stayer.send(RawPeer.hello)
        #expect(isGreeted)
        #expect(await eventually { server.server.connectionCount == 1 })
        let leaving = TestInstallation.client(of: authority, "leaving")
        let second = try DeafPeer(to: server.endpoint, files: leaving) {
            _ = try authority.revoke(try authority.find("leaving").serial)
            try replaceTLS()
        }
        let leaver = try #require(second)
        // The server may have gone before all of it is sent.
        _ = try leaver.send(RawPeer.hello)
        #expect(await eventually { server.authenticator.applicants.withLock { $0.count } == 2 })
        #expect(leaver.waitForEnd(seconds: 5))
        #expect(server.server.connectionCount == 1)
        withExtendedLifetime((stayer, leaver)) {}
    }

    @Test func expiryEndsConnections() async throws {
        let short = Validity(notBefore: Validity.now - 10, notAfter: Validity.now + 2)
        let files = TestInstallation.client(
            of: installation.authority,
            "short-\(UUID().uuidString.prefix(8))",
            validity: short
        )
        let server = try TestServer()
        let client = try await server.connect(files: files)
        #expect(await eventually { !client.isOpen })
        #expect(Validity.now > short.notAfter)
    }
}
