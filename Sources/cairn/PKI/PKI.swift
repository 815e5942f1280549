import ArgumentParser

/// `cairn pki`: the certificates that callers and servers prove themselves with (SPEC C1).
struct PKI: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pki",
        abstract: "Make the certificates that servers and callers know each other by.",
        discussion: """
            A certificate authority is a folder. Whoever can read its ca.key can be anybody, so keep the folder off the \
            machines that run cairnd. Nothing that exists is ever overwritten.

              cairn pki create-ca pki
              cairn pki create-server pki server --dns store.example.com --ip 192.0.2.1
              cairn pki create-client pki app --account acme

            cairnd needs server.crt, server.key, ca.crt and crl.pem. A caller needs its own .crt and .key, and ca.crt.

            Exit codes: 0 done; 64 wrong usage; 65 a file is damaged, or the authority has expired; 66 no such authority \
            or certificate; 70 OpenSSL failed; 73 something to be made exists already; 74 reading or writing failed; \
            75 the folder is locked, try again; 77 permission denied, or the authority's key is open to other users.
            """,
        subcommands: [CreateAuthority.self, CreateServer.self, CreateClient.self, ListCertificates.self, Revoke.self]
    )
}
