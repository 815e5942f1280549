internal import COpenSSL

/// What a certificate says of its holder. Nothing is verified by reading it.
public struct CertificateFacts: Hashable, Sendable {
    public let serial: CertificateSerial
    /// The subject's and the issuer's names, one line each (RFC 2253).
    public let subject: String
    public let issuer: String
    public let validity: Validity
    /// DNS names, addresses and URIs, in the certificate's order; other kinds are left out.
    public let alternativeNames: [AlternativeName]

    /// The URI names: what ``PeerIdentity`` is parsed from.
    public var uris: [String] {
        alternativeNames.compactMap { if case .uri(let uri) = $0 { uri } else { nil } }
    }

    /// Reads the first certificate of a PEM file.
    public static func read(file path: String) throws(PKIError) -> CertificateFacts {
        try Certificate.read(pem: try AuthorityFolder.read(path), origin: path).facts(origin: path)
    }
}

/// An X.509 certificate in OpenSSL's hands.
// Safety: nothing changes a certificate once it is signed or read; what OpenSSL caches in it, it caches under its own lock.
struct Certificate: ~Copyable, @unchecked Sendable {
    let handle: OpaquePointer

    init(owning handle: OpaquePointer) { self.handle = handle }

    deinit { X509_free(handle) }

    /// The first certificate in PEM text. `origin` is the file it was read from, for the error's text.
    static func read(pem: [UInt8], origin: String) throws(PKIError) -> Certificate {
        let handle = try PEM.parse(pem, "read the certificate \(origin)") { PEM_read_bio_X509($0, nil, nil, nil) }
        return Certificate(owning: handle)
    }

    func withPEM<R>(_ take: (UnsafeRawBufferPointer) throws(PKIError) -> R) throws(PKIError) -> R {
        try PEM.text("encode a certificate", write: { PEM_write_bio_X509($0, handle) }, take: take)
    }

    func matches(_ key: borrowing PrivateKey) -> Bool {
        defer { ERR_clear_error() }
        return X509_check_private_key(handle, key.handle) == 1
    }

    func facts(origin: String) throws(PKIError) -> CertificateFacts {
        guard let facts = CertificateFacts(handle) else {
            throw PKIError(.badData, "the certificate \(origin) lacks a serial number or readable dates")
        }
        return facts
    }
}

extension CertificateFacts {
    /// Of an X509 that the caller keeps; nil where it lacks a serial number or readable dates.
    init?(_ handle: OpaquePointer) {
        guard let serial = X509_get0_serialNumber(handle),
            let notBefore = CertificateTime.seconds(X509_get0_notBefore(handle)),
            let notAfter = CertificateTime.seconds(X509_get0_notAfter(handle))
        else { return nil }
        self.init(
            serial: CertificateSerial(serial),
            subject: Self.line(X509_get_subject_name(handle)),
            issuer: Self.line(X509_get_issuer_name(handle)),
            validity: Validity(notBefore: notBefore, notAfter: notAfter),
            alternativeNames: Self.alternativeNames(of: handle)
        )
    }

    private static func alternativeNames(of handle: OpaquePointer) -> [AlternativeName] {
        guard let found = X509_get_ext_d2i(handle, NID_subject_alt_name, nil, nil) else { return [] }
        let stack = OpaquePointer(found)
        defer { GENERAL_NAMES_free(stack) }
        return (0..<max(OPENSSL_sk_num(stack), 0)).compactMap { index in
            OPENSSL_sk_value(stack, index).flatMap { AlternativeName($0.assumingMemoryBound(to: GENERAL_NAME.self)) }
        }
    }

    private static func line(_ name: OpaquePointer?) -> String {
        guard let name, let bio = BIO_new(BIO_s_mem()) else { return "" }
        defer { BIO_free(bio) }
        guard X509_NAME_print_ex(bio, name, 0, cairn_x509_name_flags()) >= 0 else { return "" }
        var start: UnsafeMutablePointer<CChar>?
        let count = BIO_ctrl(bio, BIO_CTRL_INFO, 0, &start)
        return String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
    }
}
