import ArgumentParser
import CairnCore
import CairnCrypto
import Foundation

/// Where the authority is, and how to answer: what all commands of `cairn pki` take.
struct AuthorityOptions: ParsableArguments {
    @Argument(help: "The certificate authority's folder.", completion: .directory)
    var dir: String

    @Flag(help: "Print one JSON object or array, and errors as {\"error\": {\"reason\": …, \"text\": …}}.")
    var json = false

    /// Runs a command's body. An error goes to standard error, and becomes the exit code documented at `cairn pki`.
    func run(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch let error as PKIError {
            if json {
                let failure = FailureReport(error: .init(reason: error.code.rawValue, text: error.text))
                Output.printError(PKIOutput.json(failure))
            } else {
                Output.printError("Error: " + error.text)
            }
            throw error.code.exitCode
        }
    }
}

/// How long a certificate is good: what the commands that issue one take.
struct LifetimeOptions: ParsableArguments {
    @Option(help: "How many days the certificate is good, at most until the authority expires.")
    var days = 365

    func validate() throws {
        guard (1...36500).contains(days) else { throw ValidationError("--days is between 1 and 36500.") }
    }

    /// A certificate that outlives its authority would only look good, so its life is cut to the authority's.
    func validity(under authority: CertificateAuthority) throws -> Validity {
        let end = authority.facts.validity.notAfter
        guard end > Validity.now else { throw LifetimeOptions.expired(authority) }
        let wanted = Validity.days(days)
        if wanted.notAfter > end {
            Output.printError("Note: cut to the authority's own end, \(PKIOutput.date(end)).")
        }
        return wanted.ending(by: end)
    }

    private static func expired(_ authority: CertificateAuthority) -> PKIError {
        PKIError(
            .badData,
            "the authority \(authority.certificatePath) expired on \(PKIOutput.date(authority.facts.validity.notAfter))"
        )
    }
}

extension PKIError.Code {
    /// After sysexits.h; documented at `cairn pki`.
    var exitCode: ExitCode {
        switch self {
        case .invalidArgument, .ambiguousName: ExitCode(64)
        case .badData: ExitCode(65)
        case .noSuchFile, .unknownCertificate: ExitCode(66)
        case .crypto: ExitCode(70)
        case .alreadyExists: ExitCode(73)
        case .io: ExitCode(74)
        case .busy: ExitCode(75)
        case .permission: ExitCode(77)
        }
    }
}

private struct FailureReport: Encodable {
    struct Failure: Encodable {
        let reason: String
        let text: String
    }
    let error: Failure
}

/// A certificate as `--json` shows it.
struct CertificateReport: Encodable {
    let name: String
    let serial: String
    let role: String
    let status: String
    let notBefore: String
    let notAfter: String
    let revokedAt: String?
    /// A caller's identity; absent for servers.
    let identity: String?
    let dnsNames: [String]
    let addresses: [String]

    init(_ issued: IssuedCertificate) {
        name = issued.name.description
        serial = issued.serial.description
        role = issued.role.rawValue
        status = issued.status().rawValue
        notBefore = PKIOutput.date(issued.validity.notBefore)
        notAfter = PKIOutput.date(issued.validity.notAfter)
        revokedAt = issued.revokedAt.map(PKIOutput.date)
        var uris: [String] = []
        var dnsNames: [String] = []
        var addresses: [String] = []
        for alternative in issued.alternativeNames {
            switch alternative {
            case .uri(let uri): uris.append(uri)
            case .dns(let name): dnsNames.append(name)
            case .address(let address): addresses.append(address.description)
            }
        }
        identity = uris.first
        self.dnsNames = dnsNames
        self.addresses = addresses
    }

    /// Whom the certificate is for: identity, names, addresses.
    var holder: String {
        ([identity].compactMap { $0 } + dnsNames + addresses).joined(separator: " ")
    }
}

/// A certificate and where its files are, as `--json` shows them.
struct CredentialsReport: Encodable {
    let certificate: CertificateReport
    let certificatePath: String
    let keyPath: String
    let authorityPath: String

    init(_ credentials: CertificateAuthority.Credentials, of authority: CertificateAuthority) {
        certificate = CertificateReport(credentials.certificate)
        certificatePath = credentials.certificatePath
        keyPath = credentials.keyPath
        authorityPath = authority.certificatePath
    }

    func print(json: Bool) {
        if json { return Output.print(PKIOutput.json(self)) }
        Output.print(
            """
            Issued \(certificate.name) for \(certificate.holder), good until \(certificate.notAfter).
              certificate  \(certificatePath)
              private key  \(keyPath)
              authority    \(authorityPath)
            """
        )
    }
}

enum PKIOutput {
    /// Pretty, with the keys in snake_case and in order, so that two runs can be compared.
    static func json(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        // The reports are strings and arrays of strings, which always encode.
        guard let data = try? encoder.encode(value) else { preconditionFailure("a report that does not encode") }
        return String(decoding: data, as: UTF8.self)
    }

    /// RFC 3339 in UTC, to the second.
    static func date(_ seconds: Int64) -> String {
        Date(timeIntervalSince1970: TimeInterval(seconds)).formatted(.iso8601)
    }

    /// Columns as wide as their widest cell, two spaces between them.
    static func table(_ rows: [[String]]) -> String {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                column == columns - 1 ? cell : cell + String(repeating: " ", count: widths[column] - cell.count)
            }
            return cells.joined(separator: "  ")
        }.joined(separator: "\n")
    }
}
