import CairnCore
import Testing

@Suite struct PeerIdentityTests {
    @Test func threeForms() throws {
        let acme = try #require(AccountID("acme"))
        let forms: [(String, PeerIdentity)] = [
            ("cairn://account/acme", .account(acme)), ("cairn://account/acme/host", .host(acme)),
            ("cairn://admin", .admin),
        ]
        for (uri, identity) in forms {
            #expect(try PeerIdentity.parse(uriSANs: [uri]) == identity)
            #expect(identity.uri == uri)
        }
        #expect(PeerIdentity.host(acme).account == acme && PeerIdentity.admin.account == nil)
        // An account may be called as the words of the grammar are.
        #expect(PeerIdentity(uri: "cairn://account/host/host") == AccountID("host").map(PeerIdentity.host))
        #expect(PeerIdentity(uri: "cairn://account/admin") == AccountID("admin").map(PeerIdentity.account))
    }

    @Test func exactlyOne() {
        #expect(throws: IdentityError.missing) { try PeerIdentity.parse(uriSANs: []) }
        #expect(throws: IdentityError.several(2)) {
            try PeerIdentity.parse(uriSANs: ["cairn://account/acme", "cairn://account/acme"])
        }
        #expect(throws: IdentityError.several(2)) { try PeerIdentity.parse(uriSANs: ["cairn://admin", "https://x"]) }
        #expect(throws: IdentityError.malformed) { try PeerIdentity.parse(uriSANs: ["https://x"]) }
    }

    @Test(arguments: [
        "", "cairn:", "cairn://", "cairn://account", "cairn://account/", "cairn://account//", "cairn://account//host",
        "cairn://account/acme/", "cairn://account/acme//host", "cairn://account/acme/host/",
        "cairn://account/acme/Host",
        "cairn://account/acme/admin", "cairn://account/acme/host/x", "cairn://account/Acme", "CAIRN://account/acme",
        "cairn://Account/acme", "cairn://user@account/acme", "cairn://account:1/acme", "cairn://account/%61cme",
        "cairn://account/acme?x", "cairn://account/acme#x", "cairn://account/acme ", " cairn://account/acme",
        "cairn://account/acme\n", "cairn://account/acme\0", "cairn://account/acme\0.evil", "cairn://account/../admin",
        "cairn://account/-x", "cairn://account/\u{e9}", "cairn://account/e\u{301}",
        "cairn://account/acme/hos\u{74}\u{301}",
        "cairn://admin/", "cairn://admin\0", "cairn://admin?", "cairn://ADMIN", "cairn://admin:443",
        "cairn://admin/host",
        "cairn:///account/acme", "cairn:/account/acme", "https://account/acme", "cairn://account/\u{FFFD}",
        "cairn://account/" + String(repeating: "a", count: 65),
    ]) func malformed(uri: String) {
        #expect(throws: IdentityError.malformed) { try PeerIdentity.parse(uriSANs: [uri]) }
    }
}
