public import CairnCrypto
public import CairnTransport
internal import CairnWire
internal import Dispatch
internal import Synchronization

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
    /// Let in: `context` stays with the connection, `hello` (encoded `cairn.v1.Hello`, whose limits are set here) is the answer,
    /// `handler` takes the calls. Connections with the same `party` share what one alone has of the loop (SPEC R3); nil: it is on its own.
    case accept(context: any Sendable, hello: [UInt8], handler: any CallHandler, party: Int? = nil)
    /// Turned away with a GOAWAY of this status and encoded `cairn.v1.ErrorDetail`.
    case refuse(status: UInt32, detail: [UInt8])
}

/// Decides who is let in.
public protocol Authenticator: AnyObject, Sendable {
    /// Called on the connection's loop: must not block. `decide` is called once, now or later, from any thread; not in time
    /// (``RPCConfiguration/handshakeLimit``) is a refusal.
    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void)
}

/// Listens, lets callers in, and keeps the register of their connections.
public final class RPCServer: Sendable {
    public struct Options: Sendable {
        public var rpc = RPCConfiguration()
        /// Connections in all, for each address listened at; beyond: closed at once.
        public var connections = 20_000
        /// Connections of one peer's address.
        public var connectionsPerAddress = 20_000
        /// Connections that the system may hold until they are accepted.
        public var backlog: Int32 = 1024
        /// Counts the calls of all connections.
        public var observer: (any CallObserver)?
        public init() {}
    }
    private struct State {
        var tls: TLSContext
        var listeners: [Listener] = []
        var isStopping = false
        /// All connections from TCP's accept to their end.
        var register: [ObjectIdentifier: RPCConnection] = [:]
        var whenEmpty: [@Sendable () -> Void] = []
    }
    private let state: Mutex<State>
    private let authenticator: any Authenticator
    private let options: Options
    private let loops: EventLoops

    public init(
        tls: TLSContext,
        authenticator: any Authenticator,
        options: Options = Options(),
        loops: EventLoops = .shared
    ) {
        state = Mutex(State(tls: tls))
        self.authenticator = authenticator
        self.options = options
        self.loops = loops
    }

    /// Listens at `endpoint`, and tells where (the port, if it was 0). May be called for several.
    /// - Throws: `.unreachable` with the reason.
    public func listen(at endpoint: Endpoint) throws(RPCError) -> Endpoint {
        let limits = ListenerLimits(
            connections: options.connections,
            connectionsPerAddress: options.connectionsPerAddress,
            handshake: options.rpc.handshakeLimit,
            backlog: options.backlog
        )
        do throws(TransportError) {
            let listener = try Listener(at: endpoint, tls: state.withLock { $0.tls }, limits: limits, loops: loops) {
                [weak self] accepted in self?.receive(accepted)
            }
            state.withLock { $0.listeners.append(listener) }
            return listener.endpoint
        } catch {
            throw RPCError(error)
        }
    }

    private func receive(_ accepted: Accepted) -> RPCConnection? {
        let connection = RPCConnection(.server, loop: accepted.loop, configuration: options.rpc, hello: [])
        let isWelcome = state.withLock { state in
            guard !state.isStopping else { return false }
            state.register[ObjectIdentifier(connection)] = connection
            return true
        }
        guard isWelcome else { return nil }
        connection.authenticator = authenticator
        let rules = accepted.tls
        connection.isStillAccepted = { [weak self] certificate in
            guard let present = self?.state.withLock({ $0.tls }), present !== rules else { return true }
            return present.accepts(certificate)
        }
        connection.observer = options.observer
        connection.closeObservers.append { [weak self] _ in self?.forget(ObjectIdentifier(connection)) }
        return connection
    }

    private func forget(_ id: ObjectIdentifier) {
        let waiting = state.withLock { state -> [@Sendable () -> Void] in
            state.register[id] = nil
            guard state.register.isEmpty else { return [] }
            defer { state.whenEmpty = [] }
            return state.whenEmpty
        }
        for body in waiting { body() }
    }

    /// Connections that were let in and have not ended.
    public var connections: [RPCConnection] {
        state.withLock { Array($0.register.values) }.filter { $0.context != nil }
    }
    /// How many were let in and have not ended.
    public var connectionCount: Int { connections.count }

    /// New connections use `tls`; those that stand and whose certificate it no longer accepts (revoked, its CA removed) are
    /// closed (SPEC C1). Those in mid-handshake are looked at when they are let in.
    public func replaceTLS(_ tls: TLSContext) {
        let listeners = state.withLock { state in
            state.tls = tls
            return state.listeners
        }
        for listener in listeners { listener.replaceTLS(tls) }
        let error = CallError.noLongerAccepted
        for connection in state.withLock({ Array($0.register.values) }) {
            guard let certificate = connection.facts.withLock({ $0.peerCertificate }) else { continue }
            if !tls.accepts(certificate) {
                connection.close(status: error.status.rawValue, detail: error.detail.encode())
            }
        }
    }

    /// Closes those connections for which `predicate` holds, with a GOAWAY of `status` and `detail`.
    public func close(status: UInt32, detail: [UInt8], where predicate: (RPCConnection) -> Bool) {
        for connection in connections where predicate(connection) { connection.close(status: status, detail: detail) }
    }

    /// Stops listening, tells every peer (GOAWAY), lets calls in flight finish, and closes all: at the latest after `limit`.
    public func drain(limit: Duration) async {
        for connection in stopListening() { connection.drain() }
        await whenEmpty(within: limit)
        stop()
    }

    /// Stops listening and closes everything at once.
    public func stop() {
        for connection in stopListening() { connection.close() }
    }

    private func stopListening() -> [RPCConnection] {
        let (listeners, connections) = state.withLock { state in
            state.isStopping = true
            defer { state.listeners = [] }
            return (state.listeners, Array(state.register.values))
        }
        for listener in listeners { listener.stop() }
        return connections
    }

    private func whenEmpty(within limit: Duration) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            // Two may come; the first counts.
            let once = Once(continuation)
            DispatchQueue.global().asyncAfter(deadline: .now() + .nanoseconds(Int(limit.nanoseconds))) { once.resume() }
            let isEmpty = state.withLock { state in
                guard !state.register.isEmpty else { return true }
                state.whenEmpty.append { once.resume() }
                return false
            }
            if isEmpty { once.resume() }
        }
    }
}

extension CallError {
    /// SPEC C1: it was revoked, or its CA is gone.
    static let noLongerAccepted = CallError(.authenticationFailure, "the certificate is no longer accepted")
}

/// Resumes a continuation, however many ask for it.
private final class Once: Sendable {
    private let continuation: Mutex<CheckedContinuation<Void, Never>?>
    init(_ continuation: CheckedContinuation<Void, Never>) { self.continuation = Mutex(continuation) }
    func resume() {
        let continuation = self.continuation.withLock { continuation in
            defer { continuation = nil }
            return continuation
        }
        continuation?.resume()
    }
}
