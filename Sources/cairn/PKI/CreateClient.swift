import ArgumentParser
import CairnCore
import CairnCrypto

struct CreateClient: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create-client",
        abstract: "Issue a certificate for a caller.",
        discussion: """
            Makes NAME.crt and NAME.key (mode 0600) in the authority's folder. The caller needs both, and ca.crt.
            The certificate says who the caller is: an account's client, one of the operator's compute hosts that acts for \
            an account (--account ID --host), or the operator (--admin).
            """
    )

    @OptionGroup var authority: AuthorityOptions

    @Argument(help: "What the files are called: NAME.crt, NAME.key.")
    var name: String

    @Option(help: "The caller's account: 1 to 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit.")
    var account: String?

    @Flag(help: "The caller is one of the operator's compute hosts, acting for the account.")
    var host = false

    @Flag(help: "The caller is the operator.")
    var admin = false

    @OptionGroup var lifetime: LifetimeOptions

    func validate() throws { _ = try identity() }

    func run() throws {
        try authority.run {
            let opened = try CertificateAuthority.open(authority.dir)
            let made = try opened.issueClient(
                CredentialName(name),
                identity: identity(),
                validity: lifetime.validity(under: opened)
            )
            CredentialsReport(made, of: opened).print(json: authority.json)
        }
    }

    private func identity() throws -> PeerIdentity {
        switch (account, admin) {
        case (nil, true) where !host: return .admin
        case (let text?, false):
            guard let account = AccountID(text) else { throw ValidationError("'\(text)' is no account ID.") }
            return host ? .host(account) : .account(account)
        default: throw ValidationError("Give either --account ID (and --host for a compute host) or --admin.")
        }
    }
}
