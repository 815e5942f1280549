public import CairnCrypto
public import CairnTransport

/// A connection whose two sides call each other. Every method may be called from any thread.
public final class RPCConnection: Sendable {
    init() {}

    /// Connects, proves who both sides are, and exchanges HELLOs.
    /// - Parameters:
    ///   - hello: our encoded `cairn.v1.Hello`; its `limits` are set from the configuration.
    ///   - handler: takes the server's calls (SPEC S10); nil: they are answered UNIMPLEMENTED.
    public static func connect(
        to endpoint: Endpoint, tls: TLSContext, hello: [UInt8], configuration: RPCConfiguration = RPCConfiguration(),
        handler: (any CallHandler)? = nil, loops: EventLoops = .shared
    ) async throws(RPCError) -> RPCConnection { fatalError("skeleton") }

    /// The peer's encoded `cairn.v1.Hello`.
    public var peerHello: [UInt8] { fatalError("skeleton") }
    /// What the peer takes.
    public var peerLimits: SessionLimits { fatalError("skeleton") }
    public var peerCertificate: PeerCertificate { fatalError("skeleton") }
    /// What the server's authenticator attached to the connection; nil on the client's side.
    public var context: (any Sendable)? { fatalError("skeleton") }
    /// Whether new calls are taken: not after a GOAWAY from either side, nor after the end.
    public var isOpen: Bool { fatalError("skeleton") }

    /// Makes a call. `completion` is called exactly once, on the connection's loop: it must not block.
    @discardableResult
    public func call(
        _ request: Request, completion: @escaping @Sendable (Result<Answer, RPCError>) -> Void
    ) -> CallToken { fatalError("skeleton") }
    /// Makes a call. Cancelling the task cancels the call and throws `.cancelled` at once; the peer may yet have carried it out.
    public func call(_ request: Request) async throws(RPCError) -> Answer { fatalError("skeleton") }
    /// Cancels a call: it completes with `.cancelled` at once, unless it has already completed.
    public func cancel(_ token: CallToken) { fatalError("skeleton") }

    /// Takes no more calls from the peer (GOAWAY), cancels those under way, and calls `body` on the loop when the last of them
    /// has ended and nothing more can come of them (SPEC C5); then closes.
    public func retire(then body: @escaping @Sendable () -> Void) { fatalError("skeleton") }
    /// Finishes what is in flight, in both directions, and closes.
    public func drain() { fatalError("skeleton") }
    /// Ends the connection: calls in flight fail with `.connectionLost`. With a status, a GOAWAY says why first.
    public func close(status: UInt32 = 0, detail: [UInt8] = []) { fatalError("skeleton") }
    /// Calls `body` once, on the loop, when the connection has ended: at once if it has. Nil: closed in order.
    public func onClose(_ body: @escaping @Sendable (RPCError?) -> Void) { fatalError("skeleton") }
}
