internal import COpenSSL

/// What a session's peer proved about itself: the facts of its leaf certificate, whose chain was verified.
public struct PeerCertificate: Sendable, Equatable {
    /// The URI names of the subject alternative name extension, in order (SPEC C1 wants exactly one). A name with a NUL
    /// or a byte beyond ASCII in it appears as an empty string, which is no valid identity.
    public let uriNames: [String]
    /// When the certificate ends: seconds since 1970, UTC.
    public let notAfter: Int64
    /// The serial number, in upper-case hex, as `openssl x509 -serial` prints it.
    public let serial: String
    /// The issuer's distinguished name (RFC 2253).
    public let issuer: String
    /// The subject's distinguished name (RFC 2253).
    public let subject: String
    /// The certificate in DER.
    public let der: [UInt8]
    /// The other certificates that the peer sent, in DER.
    public let intermediates: [[UInt8]]

    public init(
        uriNames: [String],
        notAfter: Int64,
        serial: String,
        issuer: String,
        subject: String,
        der: [UInt8] = [],
        intermediates: [[UInt8]] = []
    ) {
        self.uriNames = uriNames
        self.notAfter = notAfter
        self.serial = serial
        self.issuer = issuer
        self.subject = subject
        self.der = der
        self.intermediates = intermediates
    }

    /// The facts of a certificate. Borrows `certificate`. Nil where the certificate cannot be read.
    init?(_ certificate: OpaquePointer, intermediates: [[UInt8]]) {
        guard let notAfter = PeerCertificate.seconds(X509_get0_notAfter(certificate)),
            let serial = PeerCertificate.hex(X509_get0_serialNumber(certificate)),
            let der = PeerCertificate.der(of: certificate)
        else { return nil }
        self.init(
            uriNames: PeerCertificate.uriNames(of: certificate),
            notAfter: notAfter,
            serial: serial,
            issuer: PeerCertificate.text(X509_get_issuer_name(certificate)),
            subject: PeerCertificate.text(X509_get_subject_name(certificate)),
            der: der,
            intermediates: intermediates
        )
    }

    static func der(of certificate: OpaquePointer) -> [UInt8]? {
        var start: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(certificate, &start)
        guard count > 0, let start else { return nil }
        defer { CRYPTO_free(start, nil, 0) }
        return Array(UnsafeBufferPointer(start: start, count: Int(count)))
    }

    private static func uriNames(of certificate: OpaquePointer) -> [String] {
        // Several SAN extensions make the lookup fail: such a certificate has no name that counts.
        guard let names = X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil).map(OpaquePointer.init) else {
            return []
        }
        defer { GENERAL_NAMES_free(names) }
        return (0..<cairn_general_names_count(names)).compactMap { index in
            guard let name = cairn_general_names_at(names, index), let uri = cairn_general_name_uri(name) else {
                return nil
            }
            let bytes = UnsafeBufferPointer(start: ASN1_STRING_get0_data(uri), count: Int(ASN1_STRING_length(uri)))
            return bytes.allSatisfy { $0 > 0 && $0 < 0x80 } ? String(decoding: bytes, as: UTF8.self) : ""
        }
    }

    private static func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
        guard let time else { return nil }
        let epoch = ASN1_TIME_set(nil, 0)
        defer { ASN1_STRING_free(epoch) }
        var days: Int32 = 0
        var seconds: Int32 = 0
        guard ASN1_TIME_diff(&days, &seconds, epoch, time) == 1 else { return nil }
        return Int64(days) * 86400 + Int64(seconds)
    }

    private static func hex(_ number: UnsafePointer<ASN1_INTEGER>?) -> String? {
        guard let big = ASN1_INTEGER_to_BN(number, nil) else { return nil }
        defer { BN_free(big) }
        guard let text = BN_bn2hex(big) else { return nil }
        defer { CRYPTO_free(text, nil, 0) }
        return String(cString: text)
    }

    private static func text(_ name: OpaquePointer?) -> String {
        guard let name, let bio = BIO_new(BIO_s_mem()) else { return "" }
        defer { BIO_free(bio) }
        guard cairn_print_name(bio, name) >= 0 else { return "" }
        var bytes = [UInt8](repeating: 0, count: Int(BIO_ctrl_pending(bio)))
        let count = BIO_read(bio, &bytes, Int32(bytes.count))
        return String(decoding: bytes.prefix(max(0, Int(count))), as: UTF8.self)
    }
}
