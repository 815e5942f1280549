internal import CEpoll
internal import CairnCore
public import CairnCrypto
internal import Dispatch
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// What a listener lets in at most.
public struct ListenerLimits: Sendable {
    /// Connections in all, those that are ending included; beyond: closed at once.
    public var connections: Int
    /// Connections of one address.
    public var connectionsPerAddress: Int
    /// From accepting to the end of the TLS handshake.
    public var handshake: Duration
    /// Connections that the system may hold for us.
    public var backlog: Int32

    public init(
        connections: Int = 20_000,
        connectionsPerAddress: Int = 20_000,
        handshake: Duration = .seconds(10),
        backlog: Int32 = 1024
    ) {
        self.connections = connections
        self.connectionsPerAddress = connectionsPerAddress
        self.handshake = handshake
        self.backlog = backlog
    }
}

/// Accepts connections at one address and spreads them over the loops.
// Safety: the source is made in init and its state confined to its queue; the counts and the context have a mutex.
public final class Listener: @unchecked Sendable {
    private struct Counts {
        var total = 0
        var perAddress = Tally<String>()
    }
    /// Accepted in one wake-up before others have their turn.
    private static let burst = 64
    /// How long accepting rests when the process or the system is out of descriptors or memory.
    private static let pause = DispatchTimeInterval.milliseconds(100)

    /// Where it listens.
    public let endpoint: Endpoint
    private let limits: ListenerLimits
    private let loops: EventLoops
    private let descriptor: Int32
    private let queue = DispatchQueue(label: "cairn.listener")
    private let source: any DispatchSourceRead
    private let counts = Mutex(Counts())
    private let context: Mutex<TLSContext>
    private let owner: @Sendable (Accepted) -> (any ConnectionOwner)?

    /// Listens at once.
    /// - Parameter owner: makes an accepted connection's owner, on the connection's loop; nil turns it away.
    package init(
        at endpoint: Endpoint,
        tls: TLSContext,
        limits: ListenerLimits = ListenerLimits(),
        loops: EventLoops = .shared,
        owner: @escaping @Sendable (Accepted) -> (any ConnectionOwner)?
    ) throws(TransportError) {
        self.limits = limits
        self.loops = loops
        self.owner = owner
        context = Mutex(tls)
        (descriptor, self.endpoint) = try Listener.open(endpoint, backlog: limits.backlog)
        source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: queue)
        source.setEventHandler { [weak self] in self?.accept() }
        source.setCancelHandler { [descriptor] in close(descriptor) }
        source.activate()
    }

    deinit { source.cancel() }

    /// New connections use `tls`.
    public func replaceTLS(_ tls: TLSContext) { context.withLock { $0 = tls } }
    /// Accepts no more.
    public func stop() { source.cancel() }
    /// Accepted and not yet closed.
    public var connectionCount: Int { counts.withLock { $0.total } }

    private static func open(_ endpoint: Endpoint, backlog: Int32) throws(TransportError) -> (Int32, Endpoint) {
        var last = TransportError(.cannotListen, "\(endpoint): no address")
        for address in try SocketAddress.resolve(endpoint, listening: true) {
            let descriptor = try makeSocket(address.family)
            setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
            // "::" takes IPv4 as well.
            if address.family == AF_INET6 { setOption(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
            if address.withPointer({ bind(descriptor, $0, $1) }) == 0, listen(descriptor, backlog) == 0 {
                var bound = SocketAddress()
                _ = bound.fill { getsockname(descriptor, $0, $1) }
                return (descriptor, bound.endpoint)
            }
            last = TransportError(.cannotListen, "listen at \(endpoint)", errno: errno)
            close(descriptor)
        }
        throw last
    }

    private func accept() {
        for _ in 0..<Listener.burst {
            var address = SocketAddress()
            let accepted = address.fill {
                cairn_accept(descriptor, $0, $1, Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue))
            }
            if accepted >= 0 {
                take(accepted, from: address.endpoint)
                continue
            }
            switch errno {
            case EMFILE, ENFILE, ENOBUFS, ENOMEM:
                // The waiting connections stay in the backlog; trying at once again would only burn the processor.
                source.suspend()
                // Keeps the listener alive: a suspended source must not be let go.
                queue.asyncAfter(deadline: .now() + Listener.pause) { self.source.resume() }
                return
            case EAGAIN: return
            // The rest are faults of the one connection that was about to be accepted (accept(2)).
            default: continue
            }
        }
    }

    private func take(_ descriptor: Int32, from peer: Endpoint) {
        let isWithinLimits = counts.withLock { counts in
            guard counts.total < limits.connections, counts.perAddress[peer.host] < limits.connectionsPerAddress
            else { return false }
            counts.total += 1
            counts.perAddress.add(peer.host)
            return true
        }
        guard isWithinLimits else {
            close(descriptor)
            return
        }
        setNoDelay(descriptor)
        let loop = loops.next()
        loop.execute { self.start(descriptor, from: peer, on: loop) }
    }

    private func start(_ descriptor: Int32, from peer: Endpoint, on loop: EventLoop) {
        let tls = context.withLock { $0 }
        guard let session = try? TLSSession(context: tls, buffers: loop.buffers),
            let owner = owner(Accepted(loop: loop, peer: peer, tls: tls))
        else {
            close(descriptor)
            forget(peer)
            return
        }
        let connection = Connection(
            loop: loop,
            descriptor: descriptor,
            peerAddress: "\(peer)",
            session: session,
            owner: owner,
            atEnd: { [weak self] in self?.forget(peer) }
        )
        connection.start(handshakeLimit: limits.handshake)
    }

    private func forget(_ peer: Endpoint) {
        counts.withLock { counts in
            counts.total -= 1
            counts.perAddress.remove(peer.host)
        }
    }
}

/// A connection that was accepted, before its handshake.
public struct Accepted: Sendable {
    public let loop: EventLoop
    public let peer: Endpoint
    /// By whose rules its handshake is made, also where the listener has others meanwhile.
    public let tls: TLSContext
}
