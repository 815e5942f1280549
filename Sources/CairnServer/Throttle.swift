import CairnCore
import CairnService
import CairnStore
import Synchronization

/// How fast one account asks, and how many bytes of it are under way: judged at its calls' arrival (SPEC R3). Times are nanoseconds of a
/// clock that only goes forward.
struct AccountThrottle: Sendable, Equatable {
    /// A call that comes now uses up the rate until this time: the generic cell rate algorithm, a bucket in one number. An account
    /// that was quiet may make the calls of one second at once.
    private var usedUntil: UInt64 = 0
    private(set) var bytesInFlight: UInt64 = 0

    private static let second: UInt64 = 1_000_000_000
    /// When to come back where only answers that are under way make room, which nobody can foretell.
    static let bytesRetry: UInt64 = 100_000_000

    enum Verdict: Sendable, Equatable {
        case admitted
        /// Nothing was counted. When to come back, in nanoseconds; which limit, for people.
        case refused(after: UInt64, String)
    }

    mutating func admit(bytes: UInt64, _ limits: AccountLimits, now: UInt64) -> Verdict {
        if limits.bytesInFlight != 0, bytesInFlight > 0, bytesInFlight + bytes > limits.bytesInFlight {
            // A call that is larger than the limit is let in when it is the only one: else it never could be.
            return .refused(
                after: Self.bytesRetry,
                "the account may have \(limits.bytesInFlight) bytes in flight, has \(bytesInFlight), and wants \(bytes) more"
            )
        }
        if limits.requestsPerSecond != 0 {
            let interval = max(1, Self.second / limits.requestsPerSecond)
            let next = max(usedUntil, now) + interval
            // A second's worth, or one call.
            let latest = now + max(Self.second, interval)
            if next > latest {
                return .refused(
                    after: next - latest,
                    "the account may make \(limits.requestsPerSecond) requests each second"
                )
            }
            usedUntil = next
        }
        if limits.bytesInFlight != 0 { bytesInFlight += bytes }
        return .admitted
    }

    mutating func release(bytes: UInt64) {
        precondition(bytesInFlight >= bytes, "more bytes left than came in")
        bytesInFlight -= bytes
    }

    /// Whether it says no more than a new one.
    func isIdle(now: UInt64) -> Bool { bytesInFlight == 0 && usedUntil <= now }
}

/// Holds the accounts' calls to their rates.
final class Throttle: Sendable {
    /// From so many accounts on, those that are quiet are forgotten.
    fileprivate static let sweepCount = 4096
    fileprivate struct State {
        var accounts: [AccountID: AccountThrottle] = [:]
        var sweepAt = Throttle.sweepCount
    }
    private let state = Mutex(State())

    /// What an admitted call counts for, until its answer has left: counted down by its `deinit`.
    final class Hold: Sendable {
        private let throttle: Throttle
        private let account: AccountID
        private let bytes: UInt64

        fileprivate init(_ throttle: Throttle, _ account: AccountID, _ bytes: UInt64) {
            self.throttle = throttle
            self.account = account
            self.bytes = bytes
        }
        deinit { throttle.release(account, bytes) }
    }

    /// - Returns: what is to be kept until the answer has left, if anything.
    /// - Throws: THROTTLED with the time to wait; nothing was counted.
    func admit(_ account: AccountID, bytes: Int, _ limits: AccountLimits, now: UInt64) throws(ServiceError) -> Hold? {
        guard limits.requestsPerSecond != 0 || limits.bytesInFlight != 0 else { return nil }
        let verdict = state.withLock { state in
            defer { state.sweep(now: now) }
            return state.accounts[account, default: AccountThrottle()].admit(bytes: UInt64(bytes), limits, now: now)
        }
        switch verdict {
        case .admitted: return limits.bytesInFlight == 0 ? nil : Hold(self, account, UInt64(bytes))
        case .refused(let after, let text):
            throw ServiceError(.throttled, text, retryAfter: .nanoseconds(Int64(clamping: after)))
        }
    }

    /// Accounts of which something is known.
    var accountCount: Int { state.withLock { $0.accounts.count } }

    private func release(_ account: AccountID, _ bytes: UInt64) {
        state.withLock { $0.accounts[account]?.release(bytes: bytes) }
    }
}

extension Throttle.State {
    /// Constant work for each call, taken together: the next sweep is due when as many again have come.
    fileprivate mutating func sweep(now: UInt64) {
        guard accounts.count >= sweepAt else { return }
        accounts = accounts.filter { !$0.value.isIdle(now: now) }
        sweepAt = max(Throttle.sweepCount, accounts.count * 2)
    }
}
