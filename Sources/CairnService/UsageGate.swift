import CairnCore
import DequeModule
import Dispatch
import Synchronization

/// The walks that GetUsage makes: they may take minutes, so they have threads of their own, one walk at a time for each account
/// (SPEC R2, R3). Few are under way at once, for each has a table in memory and holds a view of the index; of these fewer run, and
/// take turns. Who came later waits for one to end, but no longer than it wants to.
final class UsageGate: Sendable {
    private struct Waiter: Sendable {
        let number: UInt64
        let account: AccountID
        /// Why it need not wait any more.
        let refusal: @Sendable () -> ServiceError?
        let refuse: @Sendable (ServiceError) -> Void
        /// On the thread with that number.
        let begin: @Sendable (Int) -> Void
    }

    private struct State {
        /// With a walk under way, or waiting.
        var accounts: Set<AccountID> = []
        var lastNumber: UInt64 = 0
        var waiting: Deque<Waiter> = []
        /// Threads without a walk.
        var idle = Array(0..<UsageGate.walks)
        var running = 0
        /// Those that are under way and gave way, in the order of their turns.
        var paused: Deque<DispatchSemaphore> = []
        /// Whether the next turn is of one that waits to begin, so that neither these nor the paused ones starve.
        var beginsNext = true
        var isSweeping = false

        var hasOthers: Bool { !paused.isEmpty || !waiting.isEmpty && !idle.isEmpty }

        /// Whose turn it is, if one more may run: what lets it.
        mutating func next() -> (@Sendable () -> Void)? {
            guard running < UsageGate.running else { return nil }
            if !waiting.isEmpty, beginsNext || paused.isEmpty, let thread = idle.popLast() {
                running += 1
                beginsNext = false
                let waiter = waiting.removeFirst()
                return { waiter.begin(thread) }
            }
            guard let signal = paused.popFirst() else { return nil }
            running += 1
            beginsNext = true
            return { signal.signal() }
        }
    }

    /// A walk's time, until it gives way. Its thread alone uses it.
    final class Turn {
        private let gate: UsageGate
        private var end = Turn.end

        fileprivate init(_ gate: UsageGate) { self.gate = gate }

        private static var end: UInt64 { DispatchTime.now().uptimeNanoseconds + UsageGate.turn }

        /// Blocks while others have their turns. To be called now and then.
        func giveWay() {
            guard DispatchTime.now().uptimeNanoseconds >= end else { return }
            gate.pause()
            end = Turn.end
        }
    }

    /// Walks under way: each may take 16 MiB for its table.
    static let walks = 8
    /// Of these, those that run at a time.
    static let running = 2
    /// Nanoseconds for which a walk runs while others wait.
    static let turn: UInt64 = 100_000_000
    /// Accounts that wait: beyond, they are told to come again.
    static let maximumWaiting = 1024
    /// How often those that wait are asked whether they still want to.
    private static let sweepInterval = DispatchTimeInterval.milliseconds(250)

    private let state = Mutex(State())
    private let threads = (0..<walks).map { DispatchQueue(label: "cairn.usage.\($0)", qos: .utility) }
    private let sweeper = DispatchQueue(label: "cairn.usage.sweep", qos: .utility)

    /// Runs a walk when it is its turn, and answers, when the account may make the next one already.
    /// - Parameter milliseconds: the longest wait for its begin. Past that it is answered with THROTTLED; past its deadline, or
    ///   cancelled, with what the context says.
    /// - Throws: THROTTLED where the account has one under way or waiting, or too many wait.
    func run<Value: Sendable>(
        _ context: CallContext,
        waiting milliseconds: UInt64,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable (Turn) throws(ServiceError) -> Value
    ) throws(ServiceError) {
        var limited = context
        limited.end(within: milliseconds)
        let patience = limited
        let refusal: @Sendable () -> ServiceError? = {
            do throws(ServiceError) { try context.checkWanted() } catch { return error }
            do throws(ServiceError) { try patience.checkWanted() } catch {
                let text = "other accounts' usage took more than \(milliseconds / 1000) s to compute"
                return ServiceError(.throttled, text, retryAfter: .seconds(1))
            }
            return nil
        }
        let begin: @Sendable (Int) -> Void = { thread in
            self.threads[thread].async {
                let result = Result { () throws(ServiceError) in try body(Turn(self)) }
                self.state.withLock { _ = $0.accounts.remove(context.account) }
                answer(result)
                self.end(on: thread)
            }
        }
        // One that nobody waits for any more is in nobody's way.
        if state.withLock({ $0.accounts.contains(context.account) }) { sweep(of: context.account) }
        let reason = state.withLock { state -> String? in
            if state.accounts.contains(context.account) {
                return "usage is being computed already: one at a time for each account"
            }
            guard state.waiting.count < Self.maximumWaiting else { return "too many accounts wait for their usage" }
            state.accounts.insert(context.account)
            state.lastNumber += 1
            state.waiting.append(
                Waiter(
                    number: state.lastNumber,
                    account: context.account,
                    refusal: refusal,
                    refuse: { answer(.failure($0)) },
                    begin: begin
                )
            )
            return nil
        }
        if let reason { throw ServiceError(.throttled, reason, retryAfter: .seconds(1)) }
        state.withLock { $0.next() }?()
        sweepSoon()
    }

    private func end(on thread: Int) {
        let next = state.withLock { state in
            state.running -= 1
            state.idle.append(thread)
            return state.next()
        }
        next?()
    }

    private func pause() {
        let signal = DispatchSemaphore(value: 0)
        let next = state.withLock { state -> (@Sendable () -> Void)? in
            guard state.hasOthers else { return nil }
            state.paused.append(signal)
            state.running -= 1
            return state.next()
        }
        guard let next else { return }
        next()
        // No longer than the turns of the others under way.
        signal.wait()
    }

    // MARK: Those that have gone

    private func sweepSoon() {
        let isFirst = state.withLock { state in
            guard !state.waiting.isEmpty, !state.isSweeping else { return false }
            state.isSweeping = true
            return true
        }
        guard isFirst else { return }
        sweeper.asyncAfter(deadline: .now() + Self.sweepInterval) { [weak self] in
            guard let self else { return }
            self.sweep(of: nil)
            self.state.withLock { $0.isSweeping = false }
            self.sweepSoon()
        }
    }

    /// Answers those that need not wait any more.
    /// - Parameter account: nil: all.
    private func sweep(of account: AccountID?) {
        let waiting = state.withLock { $0.waiting }
        for waiter in waiting where account == nil || waiter.account == account {
            guard let refusal = waiter.refusal() else { continue }
            let isDropped = state.withLock { state in
                guard let place = state.waiting.firstIndex(where: { $0.number == waiter.number }) else { return false }
                state.waiting.remove(at: place)
                state.accounts.remove(waiter.account)
                return true
            }
            if isDropped { waiter.refuse(refusal) }
        }
    }
}
