/// What a session's peer proved about itself: the facts of its leaf certificate, whose chain was verified.
public struct PeerCertificate: Sendable, Equatable {
    /// The URI names of the subject alternative name extension, in order (SPEC C1 wants exactly one).
    public let uriNames: [String]
    /// When the certificate ends: seconds since 1970, UTC.
    public let notAfter: Int64
    /// The serial number, in upper-case hex without leading zeros, as `openssl x509 -serial` prints it.
    public let serial: String
    /// The issuer's distinguished name (RFC 2253).
    public let issuer: String
    /// The subject's distinguished name (RFC 2253).
    public let subject: String
    /// The certificate in DER, for ``TLSContext/accepts(_:)``.
    public let der: [UInt8]

    public init(uriNames: [String], notAfter: Int64, serial: String, issuer: String, subject: String, der: [UInt8]) {
        self.uriNames = uriNames
        self.notAfter = notAfter
        self.serial = serial
        self.issuer = issuer
        self.subject = subject
        self.der = der
    }
}
