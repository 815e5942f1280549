internal import CairnRPC
internal import Dispatch
internal import Synchronization

/// A call between its beginning and its end: over however many attempts it takes.
final class PendingCall: Cancellable, Sendable {
    /// Where the call is.
    enum Phase {
        /// In some slot's line, or about to be.
        case waiting
        /// Sent; the closure cancels the attempt.
        case sent(@Sendable () -> Void)
        case ended
    }
    private struct State {
        var phase = Phase.waiting
        var attempts = 0
        var slot: Int?
        var mayBeCarriedOut = false
        var cancelled = false
    }

    let call: OutgoingCall
    /// When the call is given up, in nanoseconds of the uptime clock.
    let deadline: UInt64
    private let state = Mutex(State())
    private let completion: @Sendable (Result<Answer, ClientError>) -> Void

    init(
        _ call: OutgoingCall,
        deadline: UInt64,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) {
        self.call = call
        self.deadline = deadline
        self.completion = completion
    }

    /// Whether nobody waits for the call any more.
    var isEnded: Bool {
        state.withLock { if case .ended = $0.phase { true } else { false } }
    }
    /// The slot that further attempts must use, so that the server orders them (SPEC C5); nil: any.
    var boundSlot: Int? { state.withLock { $0.slot } }

    /// Whether an attempt that failed may have been carried out all the same: its repetition can meet what it did.
    var mayBeCarriedOut: Bool { state.withLock { $0.mayBeCarriedOut } }

    /// An attempt may have arrived whose answer was lost: further ones go over the same slot.
    func bind(to slot: Int) {
        state.withLock { state in
            state.slot = slot
            state.mayBeCarriedOut = true
        }
    }

    /// An attempt was answered, and may have been carried out or not.
    func noteMayBeCarriedOut() { state.withLock { $0.mayBeCarriedOut = true } }

    /// Counts a failure, and tells which one it is.
    func countFailure() -> Int {
        state.withLock { state in
            state.attempts += 1
            state.phase = if case .ended = state.phase { .ended } else { .waiting }
            return state.attempts
        }
    }

    /// How many attempts have failed: names the present one.
    var attempt: Int { state.withLock { $0.attempts } }

    /// The attempt is on its way; if the call was cancelled meanwhile, the attempt is too. An attempt that has failed
    /// already, before its sender came to say so, changes nothing.
    func sent(attempt: Int, cancel: @escaping @Sendable () -> Void) {
        let late = state.withLock { state -> Bool in
            if case .ended = state.phase { return state.cancelled }
            if state.attempts == attempt { state.phase = .sent(cancel) }
            return false
        }
        if late { cancel() }
    }

    /// Ends the call. Further ends are ignored.
    func finish(_ result: Result<Answer, ClientError>) {
        let first = state.withLock { state -> Bool in
            if case .ended = state.phase { return false }
            state.phase = .ended
            return true
        }
        if first { completion(result) }
    }

    func cancel() {
        let attempt = state.withLock { state -> (@Sendable () -> Void)? in
            state.cancelled = true
            guard case .sent(let cancel) = state.phase else { return nil }
            return cancel
        }
        attempt?()
        finish(.failure(.cancelled))
    }

    /// What is left of the call's time.
    func remaining(now: UInt64 = DispatchTime.now().uptimeNanoseconds) -> Duration {
        .nanoseconds(deadline > now ? deadline - now : 0)
    }
}
