/// A certificate that an authority issued.
public struct IssuedCertificate: Hashable, Sendable {
    public let serial: CertificateSerial
    public let name: CredentialName
    public let role: CertificateRole
    public let validity: Validity
    public let alternativeNames: [AlternativeName]
    /// When it was revoked, in seconds since 1970-01-01 UTC; nil while it is not.
    public internal(set) var revokedAt: Int64?

    public enum Status: String, Sendable { case pending, valid, expired, revoked }

    /// What it is worth at a time, in seconds since 1970-01-01 UTC.
    public func status(at time: Int64 = Validity.now) -> Status {
        if revokedAt != nil { return .revoked }
        if time < validity.notBefore { return .pending }
        return time > validity.notAfter ? .expired : .valid
    }
}

/// All that an authority issued. The file's first line is
///
///     cairn-pki-index 1 NUMBER
///
/// where 1 is the format's version and NUMBER that of the last revocation list; then a line for each certificate, oldest
/// first, of these fields with a tab between them: serial (hexadecimal), role, not before, not after, revoked at (seconds
/// since 1970 or `-`), name, alternative names (`-` or `DNS:…`, `IP:…`, `URI:…`, a space between them). In a name each
/// byte outside `!`…`~`, and `\`, is written `\xNN`. The file is replaced whole, so half a line is never there.
struct IssuedIndex {
    var certificates: [IssuedCertificate] = []
    var revocationListNumber: UInt64 = 0

    static let magic = "cairn-pki-index 1 "

    var text: String {
        var lines = [Self.magic + String(revocationListNumber)]
        for certificate in certificates {
            let names = certificate.alternativeNames.map { Self.escape($0.description) }.joined(separator: " ")
            let fields = [
                certificate.serial.description, certificate.role.rawValue, String(certificate.validity.notBefore),
                String(certificate.validity.notAfter), certificate.revokedAt.map { String($0) } ?? "-",
                certificate.name.description, names.isEmpty ? "-" : names,
            ]
            lines.append(fields.joined(separator: "\t"))
        }
        return lines.joined(separator: "\n") + "\n"
    }

    init() {}

    /// - Parameter path: the file that `bytes` are from, for the error's text.
    init(_ bytes: [UInt8], path: String) throws(PKIError) {
        guard let text = String(validating: bytes, as: UTF8.self), text.hasSuffix("\n") else {
            throw PKIError(.badData, "the index \(path) is damaged")
        }
        let lines = text.dropLast().split(separator: "\n", omittingEmptySubsequences: false)
        guard let first = lines.first, first.hasPrefix(Self.magic),
            let number = UInt64(first.dropFirst(Self.magic.count))
        else {
            throw PKIError(.badData, "\(path) is no index of this version of cairn")
        }
        revocationListNumber = number
        for (position, line) in lines.enumerated().dropFirst() {
            guard let certificate = Self.certificate(line) else {
                throw PKIError(.badData, "the index \(path) is damaged in line \(position + 1)")
            }
            certificates.append(certificate)
        }
    }

    private static func certificate(_ line: Substring) -> IssuedCertificate? {
        let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        guard fields.count == 7, let serial = CertificateSerial(text: fields[0]),
            let role = CertificateRole(rawValue: fields[1]),
            let notBefore = Int64(fields[2]), let notAfter = Int64(fields[3]), let name = try? CredentialName(fields[5])
        else { return nil }
        let revokedAt = Int64(fields[4])
        guard revokedAt != nil || fields[4] == "-" else { return nil }
        var names: [AlternativeName] = []
        for word in fields[6].split(separator: " ") where word != "-" {
            guard let text = unescape(word), let name = AlternativeName(description: text) else { return nil }
            names.append(name)
        }
        return IssuedCertificate(
            serial: serial,
            name: name,
            role: role,
            validity: Validity(notBefore: notBefore, notAfter: notAfter),
            alternativeNames: names,
            revokedAt: revokedAt
        )
    }

    private static func escape(_ text: String) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var escaped: [UInt8] = []
        for byte in text.utf8 {
            if (0x21...0x7e).contains(byte) && byte != UInt8(ascii: "\\") {
                escaped.append(byte)
            } else {
                escaped += [UInt8(ascii: "\\"), UInt8(ascii: "x"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: escaped, as: UTF8.self)
    }

    private static func unescape(_ text: Substring) -> String? {
        let source = Array(text.utf8)
        var bytes: [UInt8] = []
        var position = 0
        while position < source.count {
            guard source[position] == UInt8(ascii: "\\") else {
                bytes.append(source[position])
                position += 1
                continue
            }
            guard position + 4 <= source.count, source[position + 1] == UInt8(ascii: "x"),
                let byte = UInt8(String(decoding: source[position + 2..<position + 4], as: UTF8.self), radix: 16)
            else { return nil }
            bytes.append(byte)
            position += 4
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
