internal import CairnRPC
internal import CairnWire
internal import Collections
internal import Dispatch
internal import Synchronization

/// A bounded number of connections to one server, opened when there is work for them, reopened when they break. Calls go to
/// the least busy one, wait while none stands, and are made again where ``RetryPolicy`` says that this is safe.
///
/// Each slot is a client instance of its own (SPEC C5): a call that may have reached the server is repeated over the same
/// slot, whose next HELLO the server answers only when the slot's older calls have ended.
///
/// It lives until it is closed: its links hold it, and not weakly, for that would make all counting of references to it dearer.
final class ConnectionPool: Caller {
    private struct Slot {
        let instance: [UInt8] = (0..<16).map { _ in .random(in: 0...255) }
        var link: (any Link)?
        var isConnecting = false
        var waiting: Deque<PendingCall> = []
        var inFlight = 0
        /// Connections that failed since the last that stood.
        var failures = 0
        /// Uptime nanoseconds before which no connection is tried.
        var notBefore: UInt64 = 0

        /// Smaller is better: an open connection by its load, one still to be opened as if one call were on it, one that
        /// cannot be opened last.
        var cost: Int {
            if let link, link.isOpen { return 2 * inFlight }
            return 2 * (inFlight + waiting.count) + 1 + (failures > 0 ? 1 << 20 : 0)
        }
    }
    private struct State {
        var slots: [Slot]
        /// Whether any connection ever stood.
        var reached = false
        var firstTry: UInt64?
        var isClosed = false
    }
    private enum Placement {
        case send(any Link, slot: Int)
        case connect(slot: Int, after: Duration)
        case wait
        case refuse
    }

    private let state: Mutex<State>
    private let open: LinkOpener
    private let options: ClientOptions
    private let queue = DispatchQueue(label: "cairn.client.pool")

    init(options: ClientOptions, open: @escaping LinkOpener) {
        self.options = options
        self.open = open
        let count = min(max(options.connections, 1), 64)
        state = Mutex(State(slots: (0..<count).map { _ in Slot() }))
    }

    @discardableResult
    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        let deadline = ConnectionPool.now() + (call.limit ?? options.callLimit).wholeNanoseconds
        let pending = PendingCall(call, deadline: deadline, completion: completion)
        place(pending)
        return pending
    }

    /// Closes all connections; calls under way fail.
    func close() {
        let (links, waiting) = state.withLock { state -> ([any Link], [PendingCall]) in
            state.isClosed = true
            let links = state.slots.compactMap(\.link)
            let waiting = state.slots.flatMap { Array($0.waiting) }
            for index in state.slots.indices {
                state.slots[index].link = nil
                state.slots[index].waiting = []
            }
            return (links, waiting)
        }
        for link in links { link.close() }
        for call in waiting { call.finish(.failure(ConnectionPool.closed)) }
    }

    private static let closed = ClientError(.connectionLost, "the client was closed")
    private static func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }
}

// MARK: - A call's way

extension ConnectionPool {
    /// Sends the call, or puts it in line and sees to it that a connection comes.
    private func place(_ pending: PendingCall) {
        guard !pending.isEnded else { return }
        let placement = state.withLock { state -> Placement in
            guard !state.isClosed else { return .refuse }
            let index = pending.boundSlot ?? state.slots.indices.min { state.slots[$0].cost < state.slots[$1].cost }!
            if let link = state.slots[index].link, link.isOpen {
                state.slots[index].inFlight += 1
                return .send(link, slot: index)
            }
            state.slots[index].waiting.append(pending)
            guard !state.slots[index].isConnecting else { return .wait }
            state.slots[index].isConnecting = true
            let now = ConnectionPool.now()
            state.firstTry = state.firstTry ?? now
            let notBefore = state.slots[index].notBefore
            return .connect(slot: index, after: .nanoseconds(notBefore > now ? notBefore - now : 0))
        }
        switch placement {
        case .send(let link, let slot): send(pending, over: link, slot: slot)
        case .refuse: pending.finish(.failure(ConnectionPool.closed))
        case .wait: limitWait(of: pending)
        case .connect(let slot, let wait):
            limitWait(of: pending)
            connect(slot, after: wait)
        }
    }

    private func send(_ pending: PendingCall, over link: any Link, slot: Int) {
        let attempt = pending.attempt
        var request = Request(
            method: pending.call.method,
            message: pending.call.message,
            payload: pending.call.payload
        )
        request.deadline = pending.deadline
        let cancel = link.start(request) { [self] result in ended(pending, slot: slot, result) }
        pending.sent(attempt: attempt, cancel: cancel)
    }

    private func ended(_ pending: PendingCall, slot: Int, _ result: Result<Answer, RPCError>) {
        state.withLock { $0.slots[slot].inFlight -= 1 }
        switch result {
        case .success(let answer): pending.finish(.success(answer))
        case .failure(let failure): failed(pending, slot: slot, failure)
        }
    }

    private func failed(_ pending: PendingCall, slot: Int, _ failure: RPCError) {
        guard !pending.isEnded else { return }
        let decision = options.retry.decide(
            failure,
            attempt: pending.countFailure(),
            repeatable: pending.call.repeatable,
            dice: .random(in: 0..<1)
        )
        guard case .again(let wait, let sameInstance) = decision, wait < pending.remaining(), !isHopeless(failure)
        else {
            var error = ClientError(failure)
            error.isOfRepetition = pending.mayBeCarriedOut
            return pending.finish(.failure(error))
        }
        if sameInstance { pending.bind(to: slot) }
        // A call that a failure of the server's disk met is answered so, carried out or not.
        if failure.code == .answered, CallError(answered: failure)?.reason == .unavailable {
            pending.noteMayBeCarriedOut()
        }
        // After a failed connection the slot itself waits before the next.
        if failure.code == .unreachable { return place(pending) }
        queue.asyncAfter(deadline: .now() + .nanoseconds(Int(wait.wholeNanoseconds))) { self.place(pending) }
    }

    /// Whether a server that was never reached has been tried for long enough.
    private func isHopeless(_ failure: RPCError) -> Bool {
        guard failure.code == .unreachable else { return false }
        return state.withLock { state in
            guard !state.reached, let first = state.firstTry else { return false }
            return ConnectionPool.now() - first >= options.connectLimit.wholeNanoseconds
        }
    }

    /// A call in line is not yet under RPC's own deadline.
    private func limitWait(of pending: PendingCall) {
        let wait = Int(pending.remaining().wholeNanoseconds)
        queue.asyncAfter(deadline: .now() + .nanoseconds(wait)) { [weak pending] in
            guard let pending, pending.remaining() == .zero else { return }
            pending.finish(.failure(ClientError(.timedOut, "no connection to the server in time")))
        }
    }
}

// MARK: - Connections

extension ConnectionPool {
    private func connect(_ index: Int, after wait: Duration) {
        let instance = state.withLock { $0.slots[index].instance }
        Task {
            if wait > .zero { try? await Task.sleep(for: wait) }
            if state.withLock({ $0.isClosed }) { return }
            do throws(RPCError) { connected(index, try await open(instance)) } catch { connectFailed(index, error) }
        }
    }

    private func connected(_ index: Int, _ link: any Link) {
        let waiting = state.withLock { state -> Deque<PendingCall>? in
            guard !state.isClosed else { return nil }
            state.reached = true
            state.slots[index].link = link
            state.slots[index].isConnecting = false
            state.slots[index].failures = 0
            let waiting = state.slots[index].waiting
            state.slots[index].waiting = []
            return waiting
        }
        guard let waiting else { return link.close() }
        let identity = ObjectIdentifier(link)
        link.onClose { [self] _ in
            state.withLock { state in
                if state.slots[index].link.map(ObjectIdentifier.init) == identity { state.slots[index].link = nil }
            }
        }
        for pending in waiting { place(pending) }
    }

    private func connectFailed(_ index: Int, _ failure: RPCError) {
        let waiting = state.withLock { state -> Deque<PendingCall> in
            state.slots[index].isConnecting = false
            state.slots[index].failures += 1
            let wait = options.retry.backOff(attempt: state.slots[index].failures, dice: .random(in: 0.5..<1))
            state.slots[index].notBefore = ConnectionPool.now() + wait.wholeNanoseconds
            let waiting = state.slots[index].waiting
            state.slots[index].waiting = []
            return waiting
        }
        for pending in waiting { failed(pending, slot: index, failure) }
    }
}

extension Duration {
    /// Nanoseconds, capped to what a clock of 64 bits can carry; never negative.
    var wholeNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        guard seconds < 1 << 32 else { return UInt64(1 << 32) * 1_000_000_000 }
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds) / 1_000_000_000
    }
}
