import ArgumentParser
import CairnCrypto

struct ListCertificates: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the certificates that an authority has issued.",
        discussion: "Oldest first. The status is valid, pending (not good yet), expired or revoked."
    )

    @OptionGroup var authority: AuthorityOptions

    func run() throws {
        try authority.run {
            let reports = try CertificateAuthority.open(authority.dir).issuedCertificates().map(CertificateReport.init)
            if authority.json { return Output.print(PKIOutput.json(reports)) }
            let rows = reports.map { [$0.name, $0.role, $0.status, $0.notAfter, $0.serial, Self.printable($0.holder)] }
            Output.print(PKIOutput.table([["NAME", "ROLE", "STATUS", "EXPIRES", "SERIAL", "HOLDER"]] + rows))
        }
    }

    /// A certificate may hold any bytes; a terminal should not get to see all of them.
    private static func printable(_ text: String) -> String {
        String(text.map { $0.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f } ? $0 : "?" })
    }
}
