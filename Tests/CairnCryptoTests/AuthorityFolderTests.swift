import CairnCore
import Foundation
import Testing

@testable import CairnCrypto

@Suite struct AuthorityFolderTests {
    let folder: TemporaryFolder
    let authority: CertificateAuthority
    let acme = PeerIdentity.account(AccountID("acme")!)

    init() throws {
        folder = try TemporaryFolder()
        authority = try CertificateAuthority.create(in: folder.file("ca"))
    }

    private func code(_ body: () throws -> Void) -> PKIError.Code? {
        do { try body() } catch { return (error as? PKIError)?.code }
        return nil
    }

    @Test func nothingIsOverwritten() throws {
        let made = try authority.issueClient(CredentialName("app"), identity: acme)
        let before = try ["ca/ca.key", "ca/ca.crt", "ca/app.key", "ca/app.crt"].map(folder.text)
        #expect(code { _ = try CertificateAuthority.create(in: folder.file("ca")) } == .alreadyExists)
        #expect(code { _ = try authority.issueClient(CredentialName("app"), identity: acme) } == .alreadyExists)
        // A key without its certificate is in the way just so, and nothing is indexed for it.
        try FileManager.default.removeItem(atPath: made.certificatePath)
        #expect(code { _ = try authority.issueClient(CredentialName("app"), identity: acme) } == .alreadyExists)
        #expect(try authority.issuedCertificates().count == 1)
        #expect(try ["ca/ca.key", "ca/ca.crt", "ca/app.key"].map(folder.text) == Array(before[0...2]))
    }

    @Test func aFailedCreationLeavesNothing() throws {
        try FileManager.default.createDirectory(atPath: folder.file("half"), withIntermediateDirectories: false)
        try Data().write(to: URL(fileURLWithPath: folder.file("half/crl.pem")))
        #expect(code { _ = try CertificateAuthority.create(in: folder.file("half")) } == .alreadyExists)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.file("half")) == ["crl.pem"])
        #expect(code { _ = try CertificateAuthority.create(in: folder.file("no/such")) } == .noSuchFile)
        #expect(folder.path.isEmpty == false && (try? folder.mode("ca")) == 0o700)
    }

    @Test func openingChecks() throws {
        let again = try CertificateAuthority.open(folder.file("ca"))
        #expect(again.facts == authority.facts)
        #expect(code { _ = try CertificateAuthority.open(folder.file("none")) } == .noSuchFile)

        try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: folder.file("ca/ca.key"))
        #expect(code { _ = try CertificateAuthority.open(folder.file("ca")) } == .permission)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: folder.file("ca/ca.key"))

        let other = try CertificateAuthority.create(in: folder.file("other"))
        let foreign = try folder.text("other/ca.key")
        try foreign.write(toFile: folder.file("ca/ca.key"), atomically: false, encoding: .utf8)
        #expect(code { _ = try CertificateAuthority.open(folder.file("ca")) } == .badData)
        try "no key".write(toFile: folder.file("ca/ca.key"), atomically: false, encoding: .utf8)
        #expect(code { _ = try CertificateAuthority.open(folder.file("ca")) } == .badData)
        #expect(other.facts.serial != authority.facts.serial)
    }

    @Test func findingByNameAndSerial() throws {
        let first = try authority.issueClient(CredentialName("app"), identity: acme).certificate
        let serial = first.serial.description
        let colons = stride(from: 0, to: 32, by: 2).map { serial.dropFirst($0).prefix(2) }.joined(separator: ":")
        for text in ["app", serial, serial.uppercased(), colons] { #expect(try authority.find(text) == first) }
        #expect(code { _ = try authority.find("nobody") } == .unknownCertificate)

        for file in ["ca/app.crt", "ca/app.key"] { try FileManager.default.removeItem(atPath: folder.file(file)) }
        let second = try authority.issueClient(CredentialName("app"), identity: acme).certificate
        #expect(code { _ = try authority.find("app") } == .ambiguousName)
        _ = try authority.revoke(first.serial)
        #expect(try authority.find("app") == second)
        _ = try authority.revoke(second.serial)
        #expect(try authority.find("app").serial == second.serial)
    }

    @Test func damagedIndexIsNamed() throws {
        _ = try authority.issueClient(CredentialName("app"), identity: acme)
        let good = try folder.text("ca/index.tsv")
        let damages = [
            "", String(good.dropLast()), good + "x\n", good.replacingOccurrences(of: "index 1", with: "index 2"),
            good.replacingOccurrences(of: "\tclient\t", with: "\tfriend\t"),
            good.replacingOccurrences(of: "\tapp\t", with: "\t../app\t"),
            good.replacingOccurrences(of: "URI:", with: "URL:"), good.replacingOccurrences(of: "acme", with: "\\xg0"),
        ]
        for damage in damages {
            try damage.write(toFile: folder.file("ca/index.tsv"), atomically: false, encoding: .utf8)
            #expect(code { _ = try authority.issuedCertificates() } == .badData, "\(damage)")
            #expect(code { _ = try authority.issueClient(CredentialName("next"), identity: acme) } == .badData)
        }
        #expect(!FileManager.default.fileExists(atPath: folder.file("ca/next.key")))
    }

    @Test func manyAtOnce() async throws {
        let path = folder.file("ca")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<12 {
                group.addTask {
                    let mine = try CertificateAuthority.open(path)
                    let made = try mine.issueClient(CredentialName("app\(number)"), identity: .admin)
                    if number.isMultiple(of: 3) { _ = try mine.revoke(made.certificate.serial) }
                }
            }
            try await group.waitForAll()
        }
        let issued = try authority.issuedCertificates()
        #expect(Set(issued.map(\.name.description)).count == 12 && Set(issued.map(\.serial)).count == 12)
        #expect(issued.filter { $0.status() == .revoked }.count == 4)
        let list = try OpenSSLCommand.run("crl", "-in", folder.file("ca/crl.pem"), "-noout", "-text").text
        #expect(list.components(separatedBy: "Serial Number: ").count == 5)
    }

    @Test func names() throws {
        for bad in ["", "ca", "CA", "-x", ".x", "a/b", "a b", "..", "é", String(repeating: "a", count: 65)] {
            #expect(code { _ = try CredentialName(bad) } == .invalidArgument, "\(bad)")
        }
        for good in ["a", "store.example", "app_1-b", String(repeating: "a", count: 64)] {
            #expect(code { _ = try CredentialName(good) } == nil)
        }
        for bad in [
            "", "-a.b", "a-.b", "a..b", "a_b", "*", "*.b", "a.*.b", "a b", "a/b", String(repeating: "a", count: 64),
        ] {
            #expect(AlternativeName(hostName: bad) == nil, "\(bad)")
        }
        for good in ["localhost", "a.b", "*.a.b", "xn--80ak6aa92e.com", "10.example"] {
            #expect(AlternativeName(hostName: good) != nil, "\(good)")
        }
        #expect(AlternativeName.Address(text: "2001:db8::1")?.description == "2001:db8::1")
        for bad in ["", "1.2.3", "1.2.3.4.5", "::g", "1.2.3.4/8", "localhost"] {
            #expect(AlternativeName.Address(text: bad) == nil)
        }
        #expect(CertificateSerial(text: "00:0a") == CertificateSerial(bytes: [10]))
        #expect(CertificateSerial(text: "a") == CertificateSerial(bytes: [10]))
        #expect(CertificateSerial(text: "xy") == nil && CertificateSerial(text: "") == nil)
    }

    /// Golden bytes: the index of one version must read in the next.
    @Test func indexFormat() throws {
        let text =
            "cairn-pki-index 1 7\n"
            + "4a00000000000000000000000000000f\tclient\t1000\t2000\t-\tapp\tURI:cairn://account/acme\n"
            + "4a000000000000000000000000000010\tserver\t1000\t2000\t1500\tsrv\tDNS:a.b IP:::1\n"
            + "4a000000000000000000000000000011\tclient\t1000\t2000\t-\todd\tURI:a\\x20b\\x5c\\x00 URI:\n"
            + "4a000000000000000000000000000012\tclient\t1000\t2000\t-\tbare\t-\n"
        let index = try IssuedIndex(Array(text.utf8), path: "index.tsv")
        #expect(index.text == text)
        #expect(index.revocationListNumber == 7)
        #expect(index.certificates[0].status(at: 999) == .pending && index.certificates[0].status(at: 2000) == .valid)
        #expect(index.certificates[0].status(at: 2001) == .expired && index.certificates[1].status(at: 1) == .revoked)
        #expect(index.certificates[2].alternativeNames == [.uri("a b\\\0"), .uri("")])
        #expect(index.certificates[3].alternativeNames == [])
    }
}
