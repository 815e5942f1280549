import ArgumentParser
import CairnCrypto

struct Revoke: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke",
        abstract: "Take a certificate back.",
        discussion: """
            Replaces crl.pem, which must then be copied to the servers: they refuse the certificate, and end the connections \
            that were made with it, as soon as they have read the new list. Revoking twice does no harm.
            """
    )

    @OptionGroup var authority: AuthorityOptions

    @Argument(help: "The certificate's name or serial number; the number where several good ones have the name.")
    var certificate: String

    func run() throws {
        try authority.run {
            let opened = try CertificateAuthority.open(authority.dir)
            let revoked = CertificateReport(try opened.revoke(opened.find(certificate).serial))
            if authority.json { return Output.print(PKIOutput.json(revoked)) }
            Output.print(
                """
                Revoked \(revoked.name) (\(revoked.holder)), serial \(revoked.serial).
                  revocation list  \(opened.revocationListPath)
                """
            )
        }
    }
}
