import CairnCore
import DequeModule
import Dispatch
import Synchronization

/// The walks that GetUsage makes: they may take minutes, so they have threads of their own, one walk at a time for each account,
/// and few in all (SPEC R2, R3). Accounts wait for one another in the order in which they came.
final class UsageGate: Sendable {
    private struct State {
        /// With a walk under way, or waiting.
        var accounts: Set<AccountID> = []
        var running = 0
        var waiting: Deque<@Sendable () -> Void> = []
    }
    /// Walks at a time: each may take 64 MiB for its table.
    private static let walks = 2
    /// Accounts that wait: beyond, they are told to come again.
    static let maximumWaiting = 1024

    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "cairn.usage", qos: .utility, attributes: .concurrent)

    /// Runs a walk when it is its turn, and answers, when the account may make the next one already.
    /// - Throws: THROTTLED where the account has one under way or waiting, or too many wait.
    func run<Value: Sendable>(
        for account: AccountID,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable () throws(ServiceError) -> Value
    ) throws(ServiceError) {
        let walk: @Sendable () -> Void = {
            let result = Result { () throws(ServiceError) in try body() }
            self.state.withLock { _ = $0.accounts.remove(account) }
            answer(result)
            self.next()
        }
        let refusal = state.withLock { state -> String? in
            if state.accounts.contains(account) {
                return "usage is being computed already: one at a time for each account"
            }
            guard state.waiting.count < Self.maximumWaiting else { return "too many accounts wait for their usage" }
            state.accounts.insert(account)
            state.waiting.append(walk)
            return nil
        }
        if let refusal { throw ServiceError(.throttled, refusal, retryAfter: .seconds(1)) }
        begin()
    }

    private func next() {
        state.withLock { $0.running -= 1 }
        begin()
    }

    private func begin() {
        let walk = state.withLock { state -> (@Sendable () -> Void)? in
            guard state.running < Self.walks, let walk = state.waiting.popFirst() else { return nil }
            state.running += 1
            return walk
        }
        if let walk { queue.async(execute: walk) }
    }
}
