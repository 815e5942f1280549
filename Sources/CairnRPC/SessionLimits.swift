internal import CairnCore

/// What one side of a connection is ready to receive: it says so in its HELLO, and holds its peer to it.
public struct SessionLimits: Sendable, Equatable {
    /// The longest message of a frame, in bytes.
    public var messageBytes: UInt32 = UInt32(Limits.messageBytes)
    /// The longest payload of a frame, in bytes.
    public var payloadBytes: UInt32 = UInt32(Limits.payloadBytes)
    /// Calls that the peer may have in flight: bounds the small calls, which need no credit.
    public var calls: UInt32 = 1024
    /// Bytes of credited request bodies that the peer may have outstanding on the connection.
    public var credit: UInt32 = 32 << 20

    public init() {}
}

/// How a connection's calls behave: each limit in one place.
public struct RPCConfiguration: Sendable {
    /// What we are ready to receive; announced to the peer.
    public var limits = SessionLimits()
    /// Bytes of answers that may be in preparation or on their way out on one connection.
    public var answerBudgetBytes = 64 << 20
    /// Calls that wait locally for the peer's credit or for one of its call slots.
    public var waitingCalls = 16384
    /// From the TCP connection to the end of HELLO.
    public var handshakeLimit: Duration = .seconds(10)
    /// A connection that heard nothing for this long sends a PING…
    public var pingAfter: Duration = .seconds(30)
    /// …and is closed when nothing at all came within this time.
    public var pongWithin: Duration = .seconds(20)
    /// How long a peer may take for a frame's header and message.
    public var frameLimit: Duration = .seconds(30)
    /// The slowest that a payload may come in, in bytes a second, beyond ``frameLimit``.
    public var payloadRate = 64 << 10
    /// How long a peer may take nothing of what is sent to it.
    public var stallLimit: Duration = .seconds(30)
    /// The slowest that a peer may take what is sent to it, in bytes a second, beyond ``stallLimit``.
    public var sendRate = 64 << 10

    public init() {}
}
