public import CairnCrypto

#if canImport(Glibc)
    internal import Glibc
#endif

/// Why there is no connection, or no longer one.
public struct TransportError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The host has no address, or nobody listens there.
        case unreachable
        /// Connecting or the handshake took longer than its limit.
        case timedOut
        /// TLS failed: what exactly is in ``TransportError/tls``.
        case tls
        /// The peer closed without saying so: what came may be cut short.
        case truncated
        /// The system reported an error on the connection.
        case broken
        /// The peer lets its answers to our protocol's own messages pile up.
        case stuck
        /// The address cannot be listened at.
        case cannotListen
    }
    public let code: Code
    /// The system's error number; 0 where there is none.
    public let errno: Int32
    public let tls: TLSError?
    /// For people.
    public let text: String

    init(_ code: Code, _ text: String, errno: Int32 = 0) {
        self.code = code
        self.errno = errno
        self.tls = nil
        self.text = errno == 0 ? text : "\(text): \(String(cString: strerror(errno)))"
    }
    init(_ error: TLSError) {
        code = .tls
        errno = 0
        tls = error
        text = error.text
    }
    public var description: String { text }
}
