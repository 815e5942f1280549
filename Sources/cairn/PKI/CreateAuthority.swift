import ArgumentParser
import CairnCrypto

struct CreateAuthority: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create-ca",
        abstract: "Make a certificate authority.",
        discussion: "Makes ca.crt, ca.key (mode 0600), crl.pem (an empty revocation list) and index.tsv."
    )

    @OptionGroup var authority: AuthorityOptions

    @Option(help: "The authority's name in certificates, at most 64 characters.")
    var name: String?

    @Option(help: "How many days the authority is good.")
    var days = 3650

    func validate() throws {
        guard (1...36500).contains(days) else { throw ValidationError("--days is between 1 and 36500.") }
        if let name, !(1...64).contains(name.unicodeScalars.count) {
            throw ValidationError("--name has between 1 and 64 characters.")
        }
    }

    func run() throws {
        try authority.run {
            let made = try CertificateAuthority.create(in: authority.dir, commonName: name, validity: .days(days))
            let report = AuthorityReport(
                subject: made.facts.subject,
                serial: made.facts.serial.description,
                notAfter: PKIOutput.date(made.facts.validity.notAfter),
                certificatePath: made.certificatePath,
                revocationListPath: made.revocationListPath
            )
            if authority.json { return Output.print(PKIOutput.json(report)) }
            Output.print(
                """
                Made the certificate authority \(report.subject), good until \(report.notAfter).
                  certificate      \(report.certificatePath)
                  revocation list  \(report.revocationListPath)
                """
            )
        }
    }
}

private struct AuthorityReport: Encodable {
    let subject: String
    let serial: String
    let notAfter: String
    let certificatePath: String
    let revocationListPath: String
}
