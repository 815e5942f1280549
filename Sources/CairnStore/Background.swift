import CairnCore
import CairnCrypto
import CairnLog
import Logging
import Synchronization

/// What a shard does on its own: frees what nobody reads, merges parts of chunks, seals snapshots, keeps the index durable,
/// empties segments that hold little, and gives them back. One thing after the other, each change a transaction of its own, so
/// that it can stop at any point; and no thing for long, so that no account's work waits for all of another's (SPEC R3).
// Safety: its own queue does all the work; the flags are synchronized.
final class Background: @unchecked Sendable {
    unowned let shard: Shard
    let queue: any SerialQueue
    private struct Flags {
        var isScheduled = false
        var isStopped = false
        /// Something was to be done since the last round began.
        var isWoken = false
    }
    private let flags = Mutex(Flags())
    let execution: any ShardExecution
    /// Made by `init`, and never changed.
    private var timer: (any ShardTimer)!
    let merges = MergeList()
    /// What the index holds durably at the least; the background's queue alone uses it.
    var durable: LogPosition?
    /// Segments that compaction could not empty, for what they hold is damaged, and how many live bytes were left in each: tried
    /// again when it is less.
    var stubborn: [SegmentID: UInt64] = [:]
    /// Until when no segment is emptied on a full log, in nanoseconds of uptime, and for how long; nil while that gains something. The
    /// background's queue alone uses it.
    var packingRest: (end: UInt64, length: UInt64)?
    /// Until when all chunks that nothing names are pinned, in nanoseconds of uptime; the background's queue alone uses it.
    var purgeRest: UInt64?
    /// Releases and the like, and seals; the background's queue alone uses them.
    var releases = WorkLanes<ReleaseCursor> { !$0.isSeal }
    /// No release that can be carried out has a lower number.
    let firstRelease = Atomic<UInt64>(0)
    var seals = WorkLanes<Sealing>(mostBegun: Background.mostSealing) { $0.isSeal }
    /// Snapshots that cannot be sealed for damage, and when it is tried again, in nanoseconds of uptime; the background's queue alone
    /// uses it.
    var unsealable: [SnapshotID: UInt64] = [:]
    /// Lineages of which something that is due cannot be carried out; the background's queue alone uses it.
    var stuck: Set<LineageID> = []
    /// What the last round of purging and merging left over; the background's queue alone uses it.
    var purgeWalk: PurgeWalk?
    var isMergeLeft = false
    /// Merges that quotas did not allow, and when they are tried again, in nanoseconds of uptime.
    var refusedMerges: Set<PatchedPlace> = []
    var refusedMergesUntil: UInt64 = 0
    /// Where leases that have ended are looked for, nil: from the first on; and when from there again, in nanoseconds of uptime.
    var leasesFrom: [UInt8]?
    var leasesFromStart: UInt64 = 0
    /// When the last round began, in nanoseconds of uptime; the background's queue alone uses it.
    private var lastRound: UInt64

    /// How often it looks for what only time makes possible: leases that have ended.
    private static let interval = Duration.seconds(1)
    /// Seals that are begun at a time: each may take 40 KiB.
    private static let mostSealing = 64
    /// Beyond that many damaged snapshots all are tried again.
    static let mostUnsealable = 1 << 16

    init(_ shard: Shard) {
        self.shard = shard
        execution = shard.options.execution
        queue = execution.makeQueue("cairn.shard.\(shard.index).background", isBackground: true)
        lastRound = execution.uptime
        timer = execution.makeTimer(on: queue, every: Self.interval) { [weak self] in self?.run() }
    }

    func start() {
        timer.activate()
        schedule()
        shard.scrubber.start()
    }

    /// After a group: is there something to do at once?
    func wake(newWork: Bool, isFull: Bool) {
        if newWork || isFull || needsFlush { schedule() }
    }

    /// Entries that got so many parts that they should be merged at the next occasion.
    func merge(soon places: [PatchedPlace]) {
        if !places.isEmpty { merges.add(places) }
    }

    /// Waits for the step that runs, and does no other.
    func stop() {
        flags.withLock { $0.isStopped = true }
        timer.cancel()
        // Where the machine stops meanwhile, that step is over as well.
        try? queue.sync { () throws(StoreError) in }
        shard.checkpoints.stop()
        shard.scrubber.stop()
    }

    var isStopped: Bool { flags.withLock { $0.isStopped } }

    func schedule() {
        let isFirst = flags.withLock { flags in
            defer { (flags.isScheduled, flags.isWoken) = (true, true) }
            return !flags.isScheduled
        }
        if isFirst {
            queue.async { [self] in
                flags.withLock { $0.isScheduled = false }
                run()
            }
        }
    }

    /// After a copy of the index. Nothing else: on a full log compaction always finds something to move, which needs a copy again
    /// before it frees anything; that shall go on once a second, and not without end.
    func reclaimSoon() {
        queue.async { [self] in attempt("reclaim") { () throws(StoreError) in try reclaimSegments() } }
    }

    /// Rounds, until nothing is left that can be done now: what frees space, then some turns of the seals. It may take hours.
    private func run() {
        // What was left where it is may be possible now.
        releases.restart()
        seals.restart()
        repeat {
            tidy()
            attempt("seal") { () throws(StoreError) in try sealSnapshots() }
        } while !isStopped && shard.fenceReason == nil && (isLeft || !seals.isEmpty)
    }

    /// Whether a round ended before all was done.
    private var isLeft: Bool { !releases.isEmpty || purgeWalk != nil || isMergeLeft }

    /// Whether there is something to do that cannot wait for the last seal.
    var isTidyDue: Bool {
        isLeft || flags.withLock { $0.isWoken } || execution.uptime - lastRound > 1_000_000_000
    }

    /// Each kind of work for itself: what one cannot do now keeps no other from being done.
    private func tidy() {
        queue.checkIsCurrent()
        let isWoken = flags.withLock { flags in
            defer { flags.isWoken = false }
            return flags.isWoken
        }
        lastRound = execution.uptime
        attempt("room") { () throws(StoreError) in try watchIndex() }
        attempt("flush") { () throws(StoreError) in if needsFlush { try flushIndex() } }
        attempt("leases") { () throws(StoreError) in try expireLeases() }
        attempt("release") { () throws(StoreError) in try release() }
        attempt("purge") { () throws(StoreError) in try purge(isWoken: isWoken) }
        attempt("reclaim") { () throws(StoreError) in try reclaimSegments() }
        attempt("checkpoint") { () throws(StoreError) in try backUp() }
        attempt("compact") { () throws(StoreError) in try compact() }
        attempt("merge") { () throws(StoreError) in try mergeListed() }
    }

    private func attempt(_ work: String, _ body: () throws(StoreError) -> Void) {
        guard !isStopped, shard.fenceReason == nil else { return }
        do throws(StoreError) { try body() } catch {
            switch error.code {
            // Where the store is full, what needs space waits for what frees it.
            case .closed, .fenced, .full: break
            default: shard.logger.error("background work failed", metadata: ["work": "\(work)", "reason": "\(error)"])
            }
        }
    }

    /// Runs a transaction and waits for it, as ``Shard/perform(records:bytes:entries:reclaims:_:ended:)`` does.
    func change<Value: Sendable>(
        records: Int = 0,
        bytes: Int = 0,
        entries: Int,
        reclaims: Bool = true,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value,
        ended: @escaping @Sendable () -> Void = {}
    ) throws(StoreError) -> Value {
        if isStopped { throw StoreError(.closed, "the shard is closing") }
        // Work may take hours; what bounds recovery and RocksDB's memory cannot wait for its end.
        if needsFlush {
            do throws(StoreError) { try flushIndex() } catch { guard error.code == .full else { throw error } }
        }
        return try shard.perform(
            records: records,
            bytes: bytes,
            entries: entries,
            reclaims: reclaims,
            body,
            ended: ended
        )
    }
}
