import CairnClient
import CairnCore
import CairnCrypto
import CairnRPC
import CairnWire
import Foundation
import Testing

/// SPEC C1, case by case, with OpenSSL's own client on the other side.
@Suite(.serialized, .server())
struct CertificateTests {
    private let server = ServerProcess.shared

    private func stream(_ credentials: Credentials?, _ extra: [String] = []) throws -> TLSStream {
        try TLSStream(
            server.endpoint,
            credentials,
            authority: server.authority.certificatePath,
            extra: extra,
            in: server.folder
        )
    }

    /// The connection must end by a TLS alert, before a byte of ours has come.
    private func expectAlert(
        _ credentials: Credentials?,
        _ alert: String,
        _ extra: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let stream = try stream(credentials, extra)
        stream.child.write(TLSStream.hello)
        let outcome = try await stream.child.wait(limit: .seconds(15))
        #expect(stream.child.outputBytes.isEmpty, sourceLocation: sourceLocation)
        #expect(outcome.errors.contains("alert"), "\(outcome.errors)", sourceLocation: sourceLocation)
        #expect(outcome.errors.contains(alert), "\(outcome.errors)", sourceLocation: sourceLocation)
    }

    /// The handshake succeeds; after HELLO comes GOAWAY, and the end.
    private func expectRefusal(_ names: [AlternativeName], sourceLocation: SourceLocation = #_sourceLocation)
        async throws
    {
        let credentials = try server.issue("odd-\(UInt32.random(in: 0 ... .max))", names)
        let stream = try stream(credentials)
        stream.child.write(TLSStream.hello)
        _ = try await stream.child.wait(limit: .seconds(15))
        let frames = try stream.frames
        try #require(frames.count == 1, sourceLocation: sourceLocation)
        #expect(frames[0].header.kind == .goAway, sourceLocation: sourceLocation)
        #expect(frames[0].header.value == Status.unauthenticated.rawValue, sourceLocation: sourceLocation)
        let detail = try Wire.ErrorDetail.decode(frames[0].message)
        #expect(detail.reason == .authenticationFailure, sourceLocation: sourceLocation)
        #expect(!detail.text.contains("store"), sourceLocation: sourceLocation)
    }

    @Test("C1: a good certificate is let in, over TLS 1.3")
    func good() async throws {
        let stream = try stream(try server.credentials("good"))
        try await stream.greet()
        let hello = try Wire.Hello.decode(try stream.frames[0].message)
        #expect(hello.server?.shardCount == 2)
        #expect(hello.protocolVersion >= 1)
    }

    @Test("C1: no certificate ends in a TLS alert")
    func none() async throws { try await expectAlert(nil, "certificate required") }

    @Test("C1: a foreign CA ends in a TLS alert")
    func foreign() async throws {
        let other = try CertificateAuthority.create(in: server.folder.file("foreign"))
        let issued = try other.issueClient(CredentialName("mallory"), identity: .account(AccountID("good")!))
        let credentials = Credentials(
            certificate: issued.certificatePath,
            privateKey: issued.keyPath,
            authorities: server.authority.certificatePath
        )
        try await expectAlert(credentials, "unknown ca")
    }

    @Test("C1: an expired certificate ends in a TLS alert, one of the future too")
    func expired() async throws {
        let uri = AlternativeName.uri("cairn://account/late")
        let now = Validity.now
        let past = try server.issue("past", [uri], validity: Validity(notBefore: now - 7200, notAfter: now - 3600))
        try await expectAlert(past, "certificate expired")
        let future = try server.issue("future", [uri], validity: Validity(notBefore: now + 3600, notAfter: now + 7200))
        try await expectAlert(future, "alert")
    }

    @Test("C1: a server's certificate is no client's")
    func serverAsClient() async throws {
        let credentials = Credentials(
            certificate: server.pki + "/server.crt",
            privateKey: server.pki + "/server.key",
            authorities: server.authority.certificatePath
        )
        try await expectAlert(credentials, "alert")
    }

    @Test("C1: TLS 1.2 is refused, with a good certificate too")
    func oldTLS() async throws {
        try await expectAlert(try server.credentials("good"), "protocol version", ["-tls1_2"])
    }

    @Test("A stranger without our ALPN name is refused in the handshake")
    func alpn() async throws {
        try await expectAlert(try server.credentials("good"), "no application protocol", ["-alpn", "http/1.1"])
    }

    @Test(
        "C1: no URI name, two, or a malformed one: the handshake is done, then AUTHENTICATION_FAILURE and the end",
        arguments: [
            [], [.dns("localhost")], [.uri("cairn://account/a"), .uri("cairn://account/b")],
            [.uri("cairn://account/a"), .uri("cairn://account/a")],
            [.uri("cairn://account/a"), .uri("https://example.com")],
            [.uri("cairn://account/")], [.uri("cairn://account/A")], [.uri("cairn://account/a/")],
            [.uri("cairn://account/a/hosts")],
            [.uri("cairn://account/a/host/")], [.uri("cairn://account/%61")], [.uri("cairn://account/a?x")],
            [.uri("cairn://admin/")],
            [.uri("Cairn://account/a")], [.uri("cairn://account:1/a")], [.uri("https://account/a")],
            [.uri("cairn://account/" + String(repeating: "a", count: 65))],
        ] as [[AlternativeName]]
    )
    func badNames(_ names: [AlternativeName]) async throws { try await expectRefusal(names) }

    @Test(
        "C1: the operator's certificate is no account's; a compute host's acts for its account, and is known as a host"
    )
    func otherRoles() async throws {
        let admin = try await server.connect(try server.issue("operator", [.uri("cairn://admin")]))
        #expect(try await admin.call(Wire.GetServerFactsRequest()).message.identity == "admin")
        #expect(try await failure { try await admin.createVolume() }.status == .permissionDenied)
        let account = freshAccount("tenant")
        let host = try await server.connect(try server.issue("node", [.uri("cairn://account/\(account)/host")]))
        #expect(try await host.call(Wire.GetServerFactsRequest()).message.identity == "\(account)/host")
        let volume = try await host.createVolume().volumeID
        let tenant = try await server.connect(account)
        #expect(try await tenant.describeVolume(volume).account == account)
        let other = try await server.connect(freshAccount())
        try await expectFailure(.invalidVolumeID) { try await other.describeVolume(volume) }
    }

    @Test("C1: no session is resumed: no ticket is given")
    func noResumption() async throws {
        let session = server.folder.file("session.pem")
        let stream = try stream(try server.credentials("good"), ["-sess_out", session])
        try await stream.greet()
        // A ticket would have come with the handshake.
        try await Task.sleep(for: .milliseconds(300))
        stream.child.send(SIGKILL)
        _ = try await stream.child.wait(limit: .seconds(10))
        #expect(!FileManager.default.fileExists(atPath: session))
    }

    @Test(
        "C1: `cairn pki revoke` ends the connection that is there within seconds, and lets no new one in; others stay"
    )
    func revoked() async throws {
        let victim = try await server.connect("victim")
        let witness = try await server.connect("witness")
        let stream = try stream(try server.credentials("victim"))
        try await stream.greet()
        _ = try await victim.createVolume()
        try await require(Program.cairn, ["pki", "revoke", server.pki, "victim"], in: server.folder)
        try await eventually("the revoked certificate's connections end", within: .seconds(10)) {
            !victim.connection.isOpen && !stream.child.isRunning
        }
        let last = try #require(try stream.frames.last)
        #expect(last.header.kind == .goAway)
        try await expectAlert(try server.credentials("victim"), "certificate revoked")
        _ = try await witness.createVolume()
        #expect(witness.connection.isOpen)
    }

    @Test("C1: a connection ends when its certificate expires")
    func expiresWhileConnected() async throws {
        let end = Validity.now + 4
        let brief = try server.issue(
            "brief",
            [.uri("cairn://account/brief")],
            validity: Validity(notBefore: end - 3600, notAfter: end)
        )
        let caller = try await server.connect(brief)
        _ = try await caller.createVolume()
        try await eventually("the expired certificate's connection ends", within: .seconds(10)) {
            !caller.connection.isOpen
        }
        #expect(Validity.now >= end)
    }
}
