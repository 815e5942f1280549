internal import COpenSSL

/// Why a TLS context could not be made or a session ended.
public struct TLSError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// A file of certificates, keys or revocations is missing or not what it should be.
        case configuration
        /// The peer's certificate was not accepted, or ours was not by the peer.
        case certificate
        /// The handshake failed otherwise: version, ALPN, no TLS at all.
        case handshake
        /// The established session was broken: a bad record, an alert.
        case session
    }
    public let code: Code
    /// For people.
    public let text: String

    public init(_ code: Code, _ text: String) {
        self.code = code
        self.text = text
    }
    public var description: String { text }

    /// Takes the thread's OpenSSL error queue as the reason; leaves it empty, so that it cannot taint a later session.
    static func taking(_ code: Code, _ context: String) -> TLSError {
        let first = ERR_get_error()
        ERR_clear_error()
        guard first != 0 else { return TLSError(code, context) }
        let reason = Int32(first & 0x7fffff)
        let text = ERR_reason_error_string(first).map { String(cString: $0) } ?? "error \(reason)"
        return TLSError(concernsCertificate(reason) ? .certificate : code, "\(context): \(text)")
    }

    /// Whether an OpenSSL reason says that one of the two certificates was not accepted.
    private static func concernsCertificate(_ reason: Int32) -> Bool {
        switch reason {
        case SSL_R_CERTIFICATE_VERIFY_FAILED, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE,
            SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED,
            SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED,
            SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE,
            SSL_R_TLSV1_ALERT_UNKNOWN_CA,
            SSL_R_TLSV1_ALERT_ACCESS_DENIED, SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
            true
        default: false
        }
    }
}
