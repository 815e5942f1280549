import ArgumentParser
import CairnCrypto

struct CreateServer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create-server",
        abstract: "Issue a certificate for a server.",
        discussion:
            "Makes NAME.crt and NAME.key (mode 0600) in the authority's folder. Callers compare the host that they "
            + "connect to with the names and addresses given here."
    )

    @OptionGroup var authority: AuthorityOptions

    @Argument(help: "What the files are called: NAME.crt, NAME.key.")
    var name: String

    @Option(help: "A host name that the server is reached by, '*' allowed as its first label; may be repeated.")
    var dns: [String] = []

    @Option(help: "An IPv4 or IPv6 address that the server is reached by; may be repeated.")
    var ip: [String] = []

    @OptionGroup var lifetime: LifetimeOptions

    func validate() throws {
        guard !dns.isEmpty || !ip.isEmpty else { throw ValidationError("Give the server a name with --dns or --ip.") }
        _ = try alternativeNames()
    }

    func run() throws {
        try authority.run {
            let opened = try CertificateAuthority.open(authority.dir)
            let made = try opened.issueServer(
                CredentialName(name),
                names: alternativeNames(),
                validity: lifetime.validity(under: opened)
            )
            CredentialsReport(made, of: opened).print(json: authority.json)
        }
    }

    private func alternativeNames() throws -> [AlternativeName] {
        let hosts = try dns.map { text in
            guard let host = AlternativeName(hostName: text) else {
                throw ValidationError("'\(text)' is no host name.")
            }
            return host
        }
        let addresses = try ip.map { text in
            guard let address = AlternativeName.Address(text: text) else {
                throw ValidationError("'\(text)' is no IPv4 or IPv6 address.")
            }
            return AlternativeName.address(address)
        }
        return hosts + addresses
    }
}
