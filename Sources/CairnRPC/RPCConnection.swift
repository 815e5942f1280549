internal import CairnCore
public import CairnCrypto
internal import CairnTransport
internal import CairnWire
internal import Collections
internal import Synchronization

/// A connection whose two sides call each other. Every method may be called from any thread.
///
/// It stays open, and alive, until one side ends it: who no longer needs it says ``close(status:detail:)``.
// Safety: everything that changes is confined to the loop (asserted at each entry), but for what has a mutex or is atomic.
public final class RPCConnection: @unchecked Sendable {
    struct Facts {
        var peerHello: [UInt8] = []
        var peerLimits = SessionLimits()
        var peerCertificate: PeerCertificate?
        var context: (any Sendable)?
        var isOpen = false
    }
    /// A call of ours that has not completed.
    struct Outgoing {
        /// Nil once it was sent.
        var request: Request?
        let completion: @Sendable (Result<Answer, RPCError>) -> Void
        let deadline: UInt64?
        /// 0 until it was sent.
        var id: UInt64 = 0
    }
    /// A call of the peer's that has not been answered.
    struct Served {
        let state: CallState
        let method: UInt32
        /// The whole frame.
        let requestBytes: Int
        /// `DispatchTime`'s uptime.
        let arrival: UInt64
        /// Credit to give back when the request's buffers are free.
        var cost: Int
        /// What the answer budget holds for it.
        var charged = 0
        /// Waits in the answer budget.
        var turn: (@Sendable () -> Void)?
    }
    /// What is to be done once the bytes before `end` are with the system.
    struct WriteMark {
        enum Kind { case answer, reserve }
        let end: UInt64
        let bytes: Int
        let kind: Kind
        /// Of the call whose answer it is.
        var hold: (any CallHold)?
    }

    let loop: EventLoop
    let configuration: RPCConfiguration
    let facts = Mutex(Facts())
    private let lastToken = Atomic<UInt64>(0)

    // Confined to the loop.
    var session: Session
    var transport: Connection?
    var decoder: FrameDecoder
    var hello: [UInt8]
    var handler: (any CallHandler)?
    /// Counts the peer's calls.
    var observer: (any CallObserver)?
    var authenticator: (any Authenticator)?
    /// Whether the server's rules, which may have changed since the handshake began, still let a certificate in; nil: always.
    var isStillAccepted: (@Sendable (PeerCertificate) -> Bool)?
    /// Tells who made the connection how opening went: called once.
    var opened: (@Sendable (RPCError?) -> Void)?
    var liveness: Liveness
    var timer: LoopTimer!
    /// By when HELLOs must have been exchanged; nil once they were.
    var helloDeadline: UInt64?
    /// By when the peer must have closed after our GOAWAY.
    var farewellDeadline: UInt64?
    var framesReceived: UInt64 = 0
    var requestArrival: UInt64 = 0
    /// When what is being decoded came in: the clock is looked at once for all of it.
    var now: UInt64 = 0
    /// What becomes of the call that is coming in.
    var reception = Reception.welcome(nil)
    /// Calls that came with the bytes of this event.
    var callsOfEvent = 0
    var outgoing: [CallToken: Outgoing] = [:]
    var outgoingDeadlines = DeadlineQueue<CallToken>()
    var served: [UInt64: Served] = [:]
    var servedDeadlines = DeadlineQueue<UInt64>()
    /// Calls that wait until the answer budget has room at all.
    var undelivered = Deque<IncomingCall>()
    var budget: AnswerBudget
    var marks = Deque<WriteMark>()
    /// Frames that were given to the transport since it last sent.
    var gathered = 0
    /// Bytes of frames on their way that no call pays for.
    var reserveBytes = 0
    /// The authenticator has not said yet what it thinks of the peer.
    var awaitsDecision = false
    var isSettling = false
    /// Frames are being cut out of what came in.
    var isDecoding = false
    var hasEnded = false
    var endError: RPCError?
    var closeObservers: [@Sendable (RPCError?) -> Void] = []
    var retireObservers: [@Sendable () -> Void] = []

    init(_ role: Session.Role, loop: EventLoop, configuration: RPCConfiguration, hello: [UInt8]) {
        self.loop = loop
        self.configuration = configuration
        self.hello = hello
        let now = EventLoop.now
        session = Session(role, limits: configuration.limits)
        decoder = FrameDecoder(messageLimit: SessionLimits.helloBytes, payloadLimit: 0)
        budget = AnswerBudget(limit: configuration.answerBudgetBytes)
        liveness = Liveness(configuration, now: now)
        helloDeadline = now + configuration.handshakeLimit.nanoseconds
        // Not weak: that would make all counting of references to the connection dearer, for good.
        timer = LoopTimer(loop: loop) { [unowned self] in timePassed() }
    }

    deinit { timer.invalidate() }

    // MARK: Public facts

    /// The server's encoded `cairn.v1.Hello`; empty on the server's side, where an ``Applicant`` has the client's.
    public var peerHello: [UInt8] { facts.withLock { $0.peerHello } }
    /// What the peer takes.
    public var peerLimits: SessionLimits { facts.withLock { $0.peerLimits } }
    /// Who the peer is. Known on every connection that this module hands out.
    public var peerCertificate: PeerCertificate {
        guard let certificate = facts.withLock({ $0.peerCertificate }) else {
            preconditionFailure("before the handshake")
        }
        return certificate
    }
    /// What the server's authenticator attached to the connection; nil before, and on the client's side.
    public var context: (any Sendable)? { facts.withLock { $0.context } }
    /// Whether new calls are taken: not after a GOAWAY from either side, nor after the end.
    public var isOpen: Bool { facts.withLock { $0.isOpen } }

    /// How many of the peer's calls were given to the handler at one go so far; asked by the handler, within `handle`.
    public var callsAtOnce: Int {
        loop.assertCurrent()
        return callsOfEvent
    }

    // MARK: Public calls

    /// Makes a call. `completion` is called exactly once, on the connection's loop: it must not block.
    @discardableResult
    public func call(
        _ request: Request,
        completion: @escaping @Sendable (Result<Answer, RPCError>) -> Void
    ) -> CallToken {
        let token = CallToken(rawValue: lastToken.add(1, ordering: .relaxed).newValue)
        var deadline = request.deadline
        if let timeout = request.timeout { deadline = min(deadline ?? .max, EventLoop.now + timeout.nanoseconds) }
        let call = Outgoing(request: request, completion: completion, deadline: deadline)
        // Most calls of who makes many are made on the loop: no closure for them.
        if loop.isCurrent { begin(token, call) } else { loop.execute { [self] in begin(token, call) } }
        return token
    }

    /// Makes a call. Cancelling the task cancels the call and throws `.cancelled` at once; the peer may yet carry it out.
    public func call(_ request: Request) async throws(RPCError) -> Answer {
        let placed = Mutex<(token: CallToken?, isCancelled: Bool)>((nil, false))
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Result<Answer, RPCError>, Never>) in
                let token = call(request) { continuation.resume(returning: $0) }
                let isCancelled = placed.withLock { placed in
                    placed.token = token
                    return placed.isCancelled
                }
                if isCancelled { cancel(token) }
            }
        } onCancel: {
            let token = placed.withLock { placed in
                placed.isCancelled = true
                return placed.token
            }
            if let token { cancel(token) }
        }
        return try result.get()
    }

    /// Cancels a call: it completes with `.cancelled` at once, unless it has already completed. The peer is told; until it has
    /// answered, the call holds its slot among those in flight.
    public func cancel(_ token: CallToken) { onLoop { $0.giveUp(token, .cancelled) } }

    /// Takes no more calls from the peer, cancels those under way, and calls `body` on the loop when the last of them has ended
    /// and nothing more can come of them (SPEC C5); then closes. Also after the connection's end: its calls may go on.
    /// A connection that is still being authenticated counts as under way until the authenticator has decided: it may
    /// itself wait for an older one.
    public func retire(then body: @escaping @Sendable () -> Void) { onLoop { $0.beginRetirement(body) } }
    /// Finishes what is in flight, in both directions, and closes. The peer is told to make no new calls.
    public func drain() { onLoop { $0.beginDrain() } }
    /// Ends the connection: calls in flight fail with `.connectionLost`. With a status, a GOAWAY says why first.
    public func close(status: UInt32 = 0, detail: [UInt8] = []) { onLoop { $0.end(status: status, detail: detail) } }
    /// Calls `body` once, on the loop, when the connection has ended: soon, if it has. Nil: closed in order.
    public func onClose(_ body: @escaping @Sendable (RPCError?) -> Void) {
        onLoop { connection in
            if connection.hasEnded {
                body(connection.endError)
            } else {
                connection.closeObservers.append(body)
            }
        }
    }

    /// Runs `body` in one of the loop's batches: at once when already there.
    func onLoop(_ body: @escaping @Sendable (RPCConnection) -> Void) {
        if loop.isCurrent {
            body(self)
        } else {
            loop.execute { body(self) }
        }
    }
}
