import CairnCore
import CairnLog
import Dispatch
import Logging
import Synchronization

/// Which shard is given out at a place of the store: the old one until a new one takes calls. Apart from its ``ShardSlot``, to which
/// timers refer weakly: that makes all counting of references to an object dearer, and every call asks here.
final class ShardPlace: Sendable {
    private let present: Mutex<Shard>
    init(_ shard: Shard) { present = Mutex(shard) }
    var shard: Shard { present.withLock { $0 } }
    fileprivate func put(_ shard: Shard) { present.withLock { $0 = shard } }
}

/// The place of one shard in its store, and what opens it anew after it has fenced itself.
///
/// ```
/// present ── a write, sync or flush fails ──> fenced: changes are refused, and so is reading as soon as it is closed
///    ^                                           │ its calls end, its RocksDB is closed, the page cache is dropped
///    └── opened from its log: a new epoch, a new verifier ──┘ (SPEC U8)      again after 1, 2, 4 … 60 s where that fails
/// ```
/// Nothing is taken over from the memory of the old one: it may be ahead of the disk. So promises that are kept in memory alone
/// are made good as after a start: nothing is purged for one lease time.
final class ShardSlot: Sendable {
    /// What came of recoveries since the store was opened.
    struct Counts: Sendable {
        var recoveries = 0
        var failures = 0
    }

    private struct State {
        /// Opened, but it failed before it could take calls.
        var abandoned: Shard?
        var isStarted = false
        var isStopped = false
        var counts = Counts()
        /// Attempts since the shard last worked for ``quiet``.
        var attempts = 0
        var recoveredAt: ContinuousClock.Instant?
        var recovered: @Sendable (Shard) -> Void = { _ in }
    }

    /// What works so long is not the same failure any more.
    private static let quiet = Duration.seconds(60)
    /// No wait between attempts is longer, in multiples of the first.
    private static let longestWait = 60
    /// How long one attempt waits for the users of the old index: whatever they read fails by then, so they are about to go.
    private static let releaseLimit = DispatchTimeInterval.seconds(10)

    private let opening: ShardOpening
    private let index: ShardIndex
    let place: ShardPlace
    private let queue: DispatchQueue
    private let state = Mutex(State())
    private let wakeUp: WakeUp

    /// Opens the shard.
    init(_ index: ShardIndex, _ opening: ShardOpening) throws(StoreError) {
        (self.index, self.opening) = (index, opening)
        wakeUp = WakeUp()
        queue = DispatchQueue(label: "cairn.shard.\(index).recovery")
        let wakeUp = wakeUp
        place = ShardPlace(try opening.open(index) { wakeUp.call() })
    }

    var shard: Shard { place.shard }
    var counts: Counts { state.withLock { $0.counts } }

    /// The shard may work by itself from now on, and is recovered when it fails.
    /// - Parameter recovered: called after each recovery, when the shard is given out; must not block.
    func start(recovered: @escaping @Sendable (Shard) -> Void) {
        state.withLock {
            $0.isStarted = true
            $0.recovered = recovered
        }
        wakeUp.set { [weak self] in self?.wake() }
        shard.background.start()
        // It may have failed before anyone listened.
        wake()
    }

    /// Recovers no more, waits for an attempt that is under way, and closes the shard: it can be opened by others then.
    /// - Parameter killing: as with a process that is killed, nothing is written but what is being written just now.
    func close(killing: Bool = false) {
        state.withLock { $0.isStopped = true }
        queue.sync {}
        let (present, abandoned) = (shard, state.withLock { $0.abandoned })
        if killing { present.fence(StoreError(.closed, "the shard was killed")) }
        for shard in [abandoned, present].compactMap(\.self) {
            shard.close()
            if !shard.database.close(within: Self.releaseLimit) {
                opening.options.logger.warning("the index is still being read", metadata: ["shard": "\(index)"])
            }
        }
    }

    private func wake() {
        queue.async { [weak self] in
            guard let self, shard.fenceReason != nil else { return }
            let wait = state.withLock { state -> Int in
                if let last = state.recoveredAt, last.duration(to: .now) > Self.quiet { state.attempts = 0 }
                return state.attempts == 0 ? 0 : min(1 << min(state.attempts - 1, 16), Self.longestWait)
            }
            if wait == 0 { return recover() }
            let after = opening.options.recoveryWait * wait
            opening.options.logger.notice(
                "the shard is recovered after a wait",
                metadata: ["shard": "\(index)", "wait": "\(after)"]
            )
            queue.asyncAfter(deadline: .now() + .nanoseconds(Int(after / .nanoseconds(1)))) { [weak self] in
                self?.recover()
            }
        }
    }

    private func recover() {
        dispatchPrecondition(condition: .onQueue(queue))
        let isWanted = state.withLock { $0.isStarted && !$0.isStopped } && shard.fenceReason != nil
        guard isWanted else { return }
        state.withLock { $0.attempts += 1 }
        let logger = opening.options.logger
        do throws(StoreError) {
            let started = ContinuousClock.now
            let shard = try openAnew()
            let (attempts, recovered) = state.withLock { ($0.attempts, $0.recovered) }
            place.put(shard)
            state.withLock {
                $0.counts.recoveries += 1
                $0.recoveredAt = .now
            }
            shard.background.start()
            recovered(shard)
            logger.notice(
                "the shard takes changes again; what was not flushed may be lost",
                metadata: ["shard": "\(index)", "attempts": "\(attempts)", "took": "\(started.duration(to: .now))"]
            )
        } catch {
            state.withLock { $0.counts.failures += 1 }
            logger.error("the shard cannot be recovered yet", metadata: ["shard": "\(index)", "reason": "\(error)"])
        }
        // Where that failed, or it has failed again already.
        wake()
    }

    private func openAnew() throws(StoreError) -> Shard {
        let (old, abandoned) = (shard, state.withLock { $0.abandoned })
        for shard in [old, abandoned].compactMap(\.self) {
            shard.close()
            guard shard.database.close(within: Self.releaseLimit) else {
                throw StoreError(.fenced, "the index is still being read")
            }
        }
        state.withLock { $0.abandoned = nil }
        opening.dropCaches(index)
        let wakeUp = wakeUp
        let shard = try opening.open(index) { wakeUp.call() }
        do throws(StoreError) { try shard.undoCreations() } catch {
            state.withLock { $0.abandoned = shard }
            throw error
        }
        return shard
    }
}

/// What a shard calls when it fences itself: it is opened before there is anyone to call.
private final class WakeUp: Sendable {
    private let target = Mutex<@Sendable () -> Void>({})
    func set(_ target: @escaping @Sendable () -> Void) { self.target.withLock { $0 = target } }
    func call() { target.withLock { $0 }() }
}
