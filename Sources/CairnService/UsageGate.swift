import CairnCore
import Dispatch
import Synchronization

/// The walks that GetUsage makes: they may take minutes, so they have threads of their own, one walk at a time for each account,
/// and few in all (SPEC R2, R3).
final class UsageGate: Sendable {
    /// Walks at a time: each may take 64 MiB for its table.
    private static let walks = 2

    private let running = Mutex<Set<AccountID>>([])
    private let queue = DispatchQueue(label: "cairn.usage", qos: .utility, attributes: .concurrent)

    /// Runs a walk and answers, when the account may make the next one already.
    /// - Throws: THROTTLED where the account has one under way, or there are too many.
    func run<Value: Sendable>(
        for account: AccountID,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable () throws(ServiceError) -> Value
    ) throws(ServiceError) {
        let mayRun = running.withLock { running in
            guard running.count < Self.walks else { return false }
            return running.insert(account).inserted
        }
        guard mayRun else {
            throw ServiceError(
                .throttled,
                "usage is being computed already: one at a time for each account",
                retryAfter: .seconds(1)
            )
        }
        queue.async {
            let result = Result { () throws(ServiceError) in try body() }
            self.running.withLock { _ = $0.remove(account) }
            answer(result)
        }
    }
}
