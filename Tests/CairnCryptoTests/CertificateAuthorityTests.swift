import CairnCore
import Foundation
import Testing

@testable import CairnCrypto

@Suite struct CertificateAuthorityTests {
    let folder: TemporaryFolder
    let authority: CertificateAuthority
    let acme = PeerIdentity.account(AccountID("acme")!)

    init() throws {
        folder = try TemporaryFolder()
        authority = try CertificateAuthority.create(in: folder.path)
    }

    private func verify(_ name: String, _ options: String...) throws -> OpenSSLCommand.Outcome {
        try OpenSSLCommand.run(
            "verify",
            "-x509_strict",
            "-crl_check",
            "-CAfile",
            folder.file("ca.crt"),
            "-CRLfile",
            folder.file("crl.pem"),
            "-purpose",
            options.first ?? "any",
            folder.file(name)
        )
    }

    @Test func authorityCertificate() throws {
        let text = try OpenSSLCommand.run("x509", "-in", folder.file("ca.crt"), "-noout", "-text").text
        #expect(text.contains("Version: 3"))
        #expect(text.contains("X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0"))
        #expect(text.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign"))
        #expect(text.contains("ASN1 OID: prime256v1") && text.contains("ecdsa-with-SHA256"))
        #expect(text.contains("X509v3 Subject Key Identifier"))
        #expect(authority.facts.subject == authority.facts.issuer && authority.facts.subject.hasPrefix("CN=Cairn CA "))
        #expect(try folder.mode("ca.key") == 0o600)
        let list = try OpenSSLCommand.run(
            "crl",
            "-in",
            folder.file("crl.pem"),
            "-noout",
            "-text",
            "-CAfile",
            folder.file("ca.crt")
        )
        #expect(list.text.contains("verify OK") && list.text.contains("No Revoked Certificates"))
    }

    @Test func serverCertificate() throws {
        let names: [AlternativeName] = [
            try #require(AlternativeName(hostName: "store.example")), .address(try #require(.init(text: "127.0.0.1"))),
            .address(try #require(.init(text: "::1"))),
        ]
        let made = try authority.issueServer(CredentialName("server"), names: names)
        #expect(try verify("server.crt", "sslserver").status == 0)
        #expect(try verify("server.crt", "sslclient").status != 0, "a server's certificate is no caller's")
        let text = try OpenSSLCommand.run("x509", "-in", made.certificatePath, "-noout", "-text").text
        #expect(text.contains("DNS:store.example, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"))
        #expect(text.contains("TLS Web Server Authentication") && text.contains("CA:FALSE"))
        #expect(text.contains("X509v3 Authority Key Identifier"))
        #expect(try CertificateFacts.read(file: made.certificatePath).alternativeNames == names)
        for (option, name) in [("-verify_hostname", "store.example"), ("-verify_ip", "::1")] {
            let outcome = try OpenSSLCommand.run(
                "verify",
                "-CAfile",
                folder.file("ca.crt"),
                option,
                name,
                made.certificatePath
            )
            #expect(outcome.status == 0, "\(outcome.text)")
        }
    }

    @Test func clientCertificate() throws {
        for (name, identity) in [
            ("app", acme), ("host", .host(AccountID("acme")!)), ("operator", PeerIdentity.admin),
        ] {
            let made = try authority.issueClient(CredentialName(name), identity: identity)
            #expect(try verify("\(name).crt", "sslclient").status == 0)
            #expect(try verify("\(name).crt", "sslserver").status != 0)
            let text = try OpenSSLCommand.run("x509", "-in", made.certificatePath, "-noout", "-ext", "subjectAltName")
                .text
            #expect(text.contains("\n    URI:\(identity.uri)\n"), "\(text)")
            let facts = try CertificateFacts.read(file: made.certificatePath)
            #expect(try PeerIdentity.parse(uriSANs: facts.uris) == identity)
            #expect(facts.issuer == authority.facts.subject && facts.subject == "CN=\(name)")
            #expect(facts.serial == made.certificate.serial && facts.validity == made.certificate.validity)
            #expect(try folder.mode("\(name).key") == 0o600)
            let serial = try OpenSSLCommand.run("x509", "-in", made.certificatePath, "-noout", "-serial").text
            #expect(serial == "serial=\(facts.serial.description.uppercased())\n")
            let key = try OpenSSLCommand.run("pkey", "-in", made.keyPath, "-noout", "-check")
            #expect(key.status == 0 && key.text.contains("Key is valid"))
        }
    }

    @Test func revocation() throws {
        let first = try authority.issueClient(CredentialName("first"), identity: acme)
        _ = try authority.issueClient(CredentialName("second"), identity: acme)
        #expect(try verify("first.crt").status == 0)

        let revoked = try authority.revoke(first.certificate.serial)
        #expect(revoked.status() == .revoked && revoked.name.description == "first")
        let outcome = try verify("first.crt")
        #expect(outcome.status != 0 && outcome.text.contains("certificate revoked"), "\(outcome.text)")
        #expect(try verify("second.crt").status == 0)
        let list = try OpenSSLCommand.run(
            "crl",
            "-in",
            folder.file("crl.pem"),
            "-noout",
            "-text",
            "-CAfile",
            folder.file("ca.crt")
        )
        #expect(list.text.contains("verify OK") && list.text.contains("X509v3 CRL Number: \n                2"))
        #expect(list.text.contains("Serial Number: \(first.certificate.serial.description.uppercased())"))

        // Once more: the date stays, the list is signed anew.
        #expect(try authority.revoke(first.certificate.serial) == revoked)
        #expect(try verify("first.crt").status != 0)
        #expect(throws: PKIError.self) { try authority.revoke(CertificateSerial(bytes: [1, 2, 3])) }
    }

    @Test func expiredAndFutureCertificates() throws {
        let now = Validity.now
        let names: [AlternativeName] = [.uri(acme.uri)]
        let cases: [(String, Validity, String)] = [
            ("old", Validity(notBefore: now - 200, notAfter: now - 100), "certificate has expired"),
            ("young", Validity(notBefore: now + 1000, notAfter: now + 2000), "certificate is not yet valid"),
            ("far", Validity(notBefore: now - 1, notAfter: 4_102_444_800), ""),  // 2100: beyond UTCTime
        ]
        for (name, validity, complaint) in cases {
            let made = try authority.issue(
                CredentialName(name),
                role: .client,
                alternativeNames: names,
                validity: validity
            )
            let outcome = try verify("\(name).crt")
            #expect(complaint.isEmpty ? outcome.status == 0 : outcome.text.contains(complaint), "\(outcome.text)")
            #expect(try CertificateFacts.read(file: made.certificatePath).validity == validity)
        }
        let statuses = try authority.issuedCertificates().map { $0.status() }
        #expect(statuses == [.expired, .pending, .valid])
        #expect(throws: PKIError.self) {
            let backwards = Validity(notBefore: now, notAfter: now - 1)
            _ = try authority.issue(CredentialName("x"), role: .client, alternativeNames: [], validity: backwards)
        }
    }

    /// What a good authority never issues to a caller, so that the server's refusal can be tested.
    @Test func anyListOfNames() throws {
        let lists: [[AlternativeName]] = [
            [], [.uri(acme.uri), .uri("cairn://admin")], [.uri("cairn://account/acme/")],
            [.uri("cairn://admin\0.evil")],
            [.uri("")], [.uri("cairn://account/é \\,DNS:x\t\n")], [.dns("cairn://admin")],
        ]
        for (number, list) in lists.enumerated() {
            let made = try authority.issue(
                CredentialName("c\(number)"),
                role: .client,
                alternativeNames: list,
                validity: .days(1)
            )
            let facts = try CertificateFacts.read(file: made.certificatePath)
            #expect(facts.alternativeNames == list)
            #expect(throws: IdentityError.self) { try PeerIdentity.parse(uriSANs: facts.uris) }
        }
        #expect(try authority.issuedCertificates().map(\.alternativeNames) == lists)
    }

    @Test func aForeignAuthorityDoesNotVerify() throws {
        let other = try TemporaryFolder()
        let foreign = try CertificateAuthority.create(in: other.path, commonName: "Cairn CA")
        let made = try foreign.issueClient(CredentialName("x"), identity: acme)
        let outcome = try OpenSSLCommand.run("verify", "-CAfile", folder.file("ca.crt"), made.certificatePath)
        #expect(outcome.status != 0)
    }
}
