import CairnCore
import Synchronization

/// Lets one call of an idempotency key run at a time, on whichever shard: two that carry the same key at once must not both
/// find it unused (SPEC C5).
final class IdempotencyGate: Sendable {
    struct Key: Hashable, Sendable {
        let account: AccountID
        let bytes: [UInt8]
    }
    /// Calls that wait behind the one that runs; bounded by the connections' limits on calls in flight.
    private let waiting = Mutex<[Key: [@Sendable () -> Void]]>([:])

    /// Runs `body` now, or when the calls of the same key that came before have left. Each must end with ``leave(_:)``.
    func enter(_ key: Key, _ body: @escaping @Sendable () -> Void) {
        let runsNow = waiting.withLock { waiting in
            guard waiting[key] == nil else {
                waiting[key]!.append(body)
                return false
            }
            waiting[key] = []
            return true
        }
        if runsNow { body() }
    }

    func leave(_ key: Key) {
        let next = waiting.withLock { waiting -> (@Sendable () -> Void)? in
            guard var queue = waiting[key], !queue.isEmpty else {
                waiting[key] = nil
                return nil
            }
            let next = queue.removeFirst()
            waiting[key] = queue
            return next
        }
        next?()
    }
}
