internal import COpenSSL

/// Where a TLS context's certificates and keys lie: PEM files.
public struct TLSFiles: Sendable, Equatable {
    /// Files with the CA certificates that the peer's chain may end in: at least one.
    public var authorities: [String]
    /// Our certificate, followed by intermediates, if any.
    public var certificate: String
    /// The private key of our certificate.
    public var privateKey: String
    /// A file of certificate revocation lists: with one, a peer whose issuer has no current list in it is refused.
    public var revocations: String?

    public init(authorities: [String], certificate: String, privateKey: String, revocations: String? = nil) {
        self.authorities = authorities
        self.certificate = certificate
        self.privateKey = privateKey
        self.revocations = revocations
    }
}

public final class TLSContext: Sendable {
    public enum Role: Sendable { case client, server }
    public let role: Role
    public init(_ role: Role, files: TLSFiles) throws(TLSError) {
        self.role = role
    }
    public func accepts(_ certificate: PeerCertificate) -> Bool { fatalError() }
}
