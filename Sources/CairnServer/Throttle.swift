import CairnCore
import CairnRPC
import CairnService
import CairnStore
import Synchronization

/// How fast one account asks, and how much of it is under way: judged at its calls' arrival (SPEC R3). Times are nanoseconds of a
/// clock that only goes forward.
struct AccountThrottle: Sendable, Equatable {
    /// A call that comes now uses up the rate until this time: the generic cell rate algorithm, a bucket in one number. An account
    /// that was quiet may make the calls of one second at once.
    private var usedUntil: UInt64 = 0
    var flight = Flight()

    private static let second: UInt64 = 1_000_000_000
    /// When to come back where only answers that are under way make room, which nobody can foretell.
    static let roomRetry: UInt64 = 100_000_000

    enum Verdict: Sendable, Equatable {
        case admitted
        /// Nothing was counted. When to come back, in nanoseconds; which limit, for people.
        case refused(after: UInt64, String)

        /// - Throws: THROTTLED with the time to wait.
        func check() throws(ServiceError) {
            guard case .refused(let after, let text) = self else { return }
            throw ServiceError(.throttled, text, retryAfter: .nanoseconds(Int64(clamping: after)))
        }
    }

    /// Whether a call that counts for `held` bytes may count for so many more.
    func room(for bytes: UInt64, held: UInt64 = 0, _ limits: AccountLimits) -> Verdict {
        // One that is larger than the limit is let in when it is the only one: else it never could be.
        if limits.bytesInFlight != 0, flight.bytes > held, flight.bytes + bytes > limits.bytesInFlight {
            return .refused(
                after: Self.roomRetry,
                "the account may have \(limits.bytesInFlight) bytes in flight, has \(flight.bytes), and wants \(bytes) more"
            )
        }
        return .admitted
    }

    /// Whether a call may come now; then it uses up its part of the rate.
    mutating func turn(_ limits: AccountLimits, now: UInt64) -> Verdict {
        guard limits.requestsPerSecond != 0 else { return .admitted }
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
        return .admitted
    }

    /// Whether it says no more than a new one.
    func isIdle(now: UInt64) -> Bool { flight == .zero && usedUntil <= now }
}

/// Calls that have come and whose answers have not left, and the bytes that they hold in memory.
struct Flight: Sendable, Equatable, AdditiveArithmetic {
    var calls: UInt64 = 0
    var bytes: UInt64 = 0

    static let zero = Flight()
    static func + (left: Flight, right: Flight) -> Flight {
        Flight(calls: left.calls + right.calls, bytes: left.bytes + right.bytes)
    }
    static func - (left: Flight, right: Flight) -> Flight {
        precondition(left.calls >= right.calls && left.bytes >= right.bytes, "more left than came in")
        return Flight(calls: left.calls - right.calls, bytes: left.bytes - right.bytes)
    }

    func fits(_ limit: Flight) -> Bool { calls <= limit.calls && bytes <= limit.bytes }
}

/// One account, as a ``Throttle`` knows it: found once by whoever takes many calls.
// Safety: `throttle` is touched under the throttle's lock alone.
final class ThrottledAccount: @unchecked Sendable {
    fileprivate var throttle = AccountThrottle()
    fileprivate init() {}
}

/// Holds the accounts' calls to their rates, and to their shares of the server's memory.
final class Throttle: Sendable {
    /// What a call takes beside its frames, in bytes; or what its answer has, if it is short.
    static let callBytes: UInt64 = 1 << 10
    /// Calls that the server takes at once, over all connections. Every queue behind is bounded by it.
    static let callLimit: UInt64 = 1 << 18
    /// From so many accounts on, those that are quiet are forgotten.
    fileprivate static let sweepCount = 4096
    fileprivate struct State {
        /// What all may have under way together.
        let limit: Flight
        var total = Flight()
        var accounts: [AccountID: ThrottledAccount] = [:]
        var sweepAt = Throttle.sweepCount
    }
    private let state: Mutex<State>

    /// What an admitted call counts for, until its answer has left: counted down by its `deinit`.
    final class Hold: CallHold {
        private let throttle: Throttle
        private let account: ThrottledAccount
        private let limits: AccountLimits
        private let request: UInt64
        /// Room for the answer.
        private let answer: Atomic<UInt64>

        fileprivate init(_ throttle: Throttle, _ account: ThrottledAccount, _ limits: AccountLimits, request: UInt64) {
            self.throttle = throttle
            self.account = account
            self.limits = limits
            self.request = request
            answer = Atomic(Throttle.callBytes)
        }
        deinit {
            let held = Flight(calls: 1, bytes: request + answer.load(ordering: .relaxed))
            throttle.change(account) { $0 -= held }
        }

        /// Makes room for an answer, or for what the work on it takes: before that begins, and beside what the call counts for already.
        /// Never while another thread widens it or answers.
        /// - Throws: THROTTLED with the time to wait; the call counts as before.
        func widen(by bytes: Int) throws(ServiceError) {
            let held = request + answer.load(ordering: .relaxed)
            let more = Flight(bytes: UInt64(bytes))
            try throttle.state.withLock { state in
                state.take(more, for: account) { $0.room(for: more.bytes, held: held, limits) }
            }.check()
            answer.add(more.bytes, ordering: .relaxed)
        }

        /// It is there: nobody is asked.
        func answers(bytes: Int) {
            let (old, new) = (answer.load(ordering: .relaxed), max(Throttle.callBytes, UInt64(bytes)))
            guard old != new else { return }
            throttle.change(account) { $0 = $0 - Flight(bytes: old) + Flight(bytes: new) }
            answer.store(new, ordering: .relaxed)
        }
    }

    /// - Parameter bytes: that calls may hold at once, over all connections.
    init(bytes: UInt64) { state = Mutex(State(limit: Flight(calls: Self.callLimit, bytes: bytes))) }

    /// An account whose calls are to be admitted: it is known as long as somebody holds it, or it is not quiet.
    func account(_ id: AccountID, now: UInt64) -> ThrottledAccount {
        state.withLock { state in
            if let known = state.accounts[id] { return known }
            state.sweep(now: now)
            let account = ThrottledAccount()
            state.accounts[id] = account
            return account
        }
    }

    /// - Parameters:
    ///   - account: of this throttle.
    ///   - bytes: of the request.
    /// - Returns: to be kept until the answer has left.
    /// - Throws: THROTTLED with the time to wait; nothing was counted.
    func admit(
        _ account: ThrottledAccount,
        bytes: Int,
        _ limits: AccountLimits,
        now: UInt64
    ) throws(ServiceError) -> Hold {
        let call = Flight(calls: 1, bytes: UInt64(bytes) + Self.callBytes)
        try state.withLock { state in
            state.take(call, for: account) { account in
                let room = account.room(for: call.bytes, limits)
                return room == .admitted ? account.turn(limits, now: now) : room
            }
        }.check()
        return Hold(self, account, limits, request: UInt64(bytes))
    }

    /// Accounts of which something is known.
    var accountCount: Int { state.withLock { $0.accounts.count } }
    /// Bytes that calls hold.
    var bytesInFlight: UInt64 { state.withLock { $0.total.bytes } }

    private func change(_ account: ThrottledAccount, _ body: (inout Flight) -> Void) {
        state.withLock { state in
            body(&state.total)
            body(&account.throttle.flight)
        }
    }
}

extension Throttle.State {
    /// Of what the server may have under way, each account may have as much as is free: one alone has at most half, n of them that want
    /// all have 1/(n+1) each, and who comes next finds as much (dynamic thresholds; Choudhury and Hahne, 1998).
    fileprivate mutating func take(
        _ more: Flight,
        for throttled: ThrottledAccount,
        if isAdmitted: (inout AccountThrottle) -> AccountThrottle.Verdict
    ) -> AccountThrottle.Verdict {
        var account = throttled.throttle
        guard (account.flight + more + total).fits(limit) else {
            return .refused(
                after: AccountThrottle.roomRetry,
                "the account has as much under way as the server has room for"
            )
        }
        let verdict = isAdmitted(&account)
        guard verdict == .admitted else { return verdict }
        account.flight += more
        total += more
        throttled.throttle = account
        return .admitted
    }

    /// Constant work for each account, taken together: the next sweep is due when as many again have come.
    fileprivate mutating func sweep(now: UInt64) {
        guard accounts.count >= sweepAt else { return }
        // Who holds one may have it admitted to any moment, and then it must be the one that others find.
        var quiet: [AccountID] = []
        var index = accounts.startIndex
        while index != accounts.endIndex {
            let isIdle = accounts[index].value.throttle.isIdle(now: now)
            if isIdle, isKnownUniquelyReferenced(&accounts.values[index]) { quiet.append(accounts[index].key) }
            accounts.formIndex(after: &index)
        }
        for id in quiet { accounts[id] = nil }
        sweepAt = max(Throttle.sweepCount, accounts.count * 2)
    }
}
