public import CairnCrypto
public import CairnTransport

/// Who asks to be let in: what the server's authenticator decides on.
public struct Applicant: Sendable {
    public let certificate: PeerCertificate
    /// The client's encoded `cairn.v1.Hello`.
    public let hello: [UInt8]
    /// The connection to be: identifies it in later decisions (SPEC C5). It carries no calls yet.
    public let connection: RPCConnection
}

/// What the authenticator decides.
public enum Admission: Sendable {
    /// Let in: `context` stays with the connection, `hello` (encoded `cairn.v1.Hello`, without limits) is the answer,
    /// `handler` takes the calls.
    case accept(context: any Sendable, hello: [UInt8], handler: any CallHandler)
    /// Turned away with a GOAWAY of this status and encoded `cairn.v1.ErrorDetail`.
    case refuse(status: UInt32, detail: [UInt8])
}

public protocol Authenticator: AnyObject, Sendable {
    /// Called on the connection's loop: must not block. `decide` is called once, now or later, from any thread; not in time
    /// (``RPCConfiguration/handshakeLimit``) is a refusal.
    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void)
}

/// Listens, lets callers in, and keeps the register of their connections.
public final class RPCServer: Sendable {
    public struct Options: Sendable {
        public var rpc = RPCConfiguration()
        /// Connections in all, and for each address; beyond: closed at once.
        public var connections = 20_000
        public var connectionsPerAddress = 20_000
        public var backlog: Int32 = 1024
        public init() {}
    }

    public init(
        tls: TLSContext, authenticator: any Authenticator, options: Options = Options(), loops: EventLoops = .shared
    ) { fatalError("skeleton") }

    /// Listens at `endpoint`, and tells where (the port, if it was 0). May be called for several.
    public func listen(at endpoint: Endpoint) throws(RPCError) -> Endpoint { fatalError("skeleton") }
    /// New connections use `tls`; those that stand and whose certificate it no longer accepts (revoked) are closed (SPEC C1).
    public func replaceTLS(_ tls: TLSContext) { fatalError("skeleton") }
    /// Connections that were let in.
    public var connectionCount: Int { fatalError("skeleton") }
    public var connections: [RPCConnection] { fatalError("skeleton") }
    /// Closes those connections for which `predicate` holds, with a GOAWAY of `status` and `detail`.
    public func close(status: UInt32, detail: [UInt8], where predicate: (RPCConnection) -> Bool) { fatalError("skeleton") }
    /// Stops listening, tells every peer (GOAWAY), lets calls in flight finish, and closes all: at the latest after `limit`.
    public func drain(limit: Duration) async { fatalError("skeleton") }
    /// Stops listening and closes everything at once.
    public func stop() { fatalError("skeleton") }
}
