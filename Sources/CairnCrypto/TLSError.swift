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
}
