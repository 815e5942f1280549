internal import CairnRPC
internal import CairnWire

/// When a failed call is made again, and after how long: exponential back-off with full jitter, so that the clients of a
/// restarted server do not come back in step.
public struct RetryPolicy: Sendable {
    /// The longest wait before the first repetition; each further one doubles it.
    public var firstWait: Duration = .milliseconds(50)
    /// No wait is longer, unless the server asked for it.
    public var longestWait: Duration = .seconds(5)
    /// Repetitions of one call. 0: never repeat.
    public var repetitions = 30

    public init() {}

    enum Decision: Equatable {
        case giveUp
        /// Again after this wait. Where `sameInstance`, over a connection of the same client instance, so that the server
        /// ends the first attempt before it begins the second (SPEC C5).
        case again(after: Duration, sameInstance: Bool)
    }

    /// Decides on the `attempt`-th failure of a call (counted from 1).
    /// - Parameters:
    ///   - repeatable: whether carrying the call out twice does no harm.
    ///   - dice: 0 ..< 1, the jitter.
    func decide(_ failure: RPCError, attempt: Int, repeatable: Bool, dice: Double) -> Decision {
        guard attempt <= repetitions else { return .giveUp }
        let wait = backOff(attempt: attempt, dice: dice)
        switch failure.code {
        case .answered:
            guard let answer = CallError(answered: failure), answer.isRetryable else { return .giveUp }
            return .again(after: max(wait, answer.retryAfter ?? .zero), sameInstance: false)
        case .goingAway:
            let delivered = failure.delivery != .notSent
            return delivered && !repeatable ? .giveUp : .again(after: wait, sameInstance: delivered)
        case .connectionLost:
            let delivered = failure.delivery != .notSent
            return delivered && !repeatable ? .giveUp : .again(after: wait, sameInstance: delivered)
        case .unreachable:
            return .again(after: wait, sameInstance: false)
        case .refused:
            // A server that is full or draining says that it may be tried again; a bad identity stays bad.
            guard let answer = CallError(answered: failure), answer.isRetryable else { return .giveUp }
            return .again(after: max(wait, answer.retryAfter ?? .zero), sameInstance: false)
        case .cancelled, .deadlineExceeded, .insecure, .tooLarge, .protocolViolation:
            return .giveUp
        }
    }

    /// A wait between nothing and `firstWait` × 2^(attempt-1), capped.
    func backOff(attempt: Int, dice: Double) -> Duration {
        let ceiling = min(firstWait * (1 << min(max(attempt - 1, 0), 20)), longestWait)
        return ceiling * dice
    }
}
