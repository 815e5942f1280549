/// Why a call, a connection or a listener failed.
public struct RPCError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What happened, for programs.
    public enum Code: Sendable, Equatable {
        /// The peer answered with an error: ``RPCError/status`` and ``RPCError/detail`` are its words.
        case answered
        /// The peer refused the connection at HELLO or ended it with a GOAWAY: `status` and `detail` are its words.
        case refused
        /// We cancelled the call.
        case cancelled
        /// The call's time was over before the answer came.
        case deadlineExceeded
        /// No connection: no such host, nobody listens, or not in time.
        case unreachable
        /// TLS failed: certificates, version, ALPN.
        case insecure
        /// The connection was lost or closed.
        case connectionLost
        /// The peer is going away and takes no new calls; another connection may be made.
        case goingAway
        /// The request is larger than the peer takes, or too many calls wait.
        case tooLarge
        /// The peer broke the protocol, and the connection was closed.
        case protocolViolation
    }

    /// Whether the peer can have acted on the call.
    public enum Delivery: Sendable, Equatable {
        /// Not a byte of it was sent: safe to do again elsewhere.
        case notSent
        /// It was sent, or partly so: it may have been carried out.
        case unknown
        /// The peer answered it.
        case answered
    }

    public let code: Code
    public let delivery: Delivery
    /// One of gRPC's 17 status codes; 0 where none applies.
    public let status: UInt32
    /// The peer's encoded `cairn.v1.ErrorDetail`; empty where there is none.
    public let detail: [UInt8]
    /// For people.
    public let text: String

    public init(_ code: Code, delivery: Delivery, status: UInt32 = 0, detail: [UInt8] = [], text: String = "") {
        self.code = code
        self.delivery = delivery
        self.status = status
        self.detail = detail
        self.text = text
    }

    public var description: String { text.isEmpty ? "\(code)" : "\(code): \(text)" }
}
