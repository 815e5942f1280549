import CairnCore
import CairnCrypto
import CairnLog
import Logging
import Synchronization

/// Finds damage before somebody needs the data: walks the index, and reads every record that it names. Slowly and by itself,
/// or as fast as the operator wants. What readers stumble over is looked at here too, and remembered.
///
/// It has a queue of its own, reads from views, and changes the index by transactions, as a client does: compaction and
/// deletions go on meanwhile. What fails is looked up again in a newer view: only what is named there still is damaged.
// Safety: its queue does all the work and alone touches `pass` and the times; the rest is synchronized.
public final class Scrubber: @unchecked Sendable {
    /// What a reader stumbled over.
    enum Suspect: Hashable, Sendable {
        case chunk(ChunkKey)
        /// A manifest names it, and in the same view the dictionary did not know it.
        case missing(ChunkKey)
        /// All parts that a version shows of a chunk.
        case parts(LineageID, DataVersion, ChunkIndex)
    }

    private struct Shared {
        var isStopped = false
        var suspects: Set<Suspect> = []
        var status = ScrubRecord()
        var indexProblem: String?
        /// Since the server was started.
        var bytesInAll: UInt64 = 0
    }

    unowned let shard: Shard
    let execution: any ShardExecution
    private let queue: any SerialQueue
    /// Made by `init`, and never changed.
    private var timer: (any ShardTimer)!
    private let shared = Mutex(Shared())
    private var pass = ScrubRecord()
    private var isLooping = false
    /// In nanoseconds of uptime.
    private var lastTick: UInt64
    private var lastSave: UInt64
    /// Bytes that may be read now; below 0 where a step read more.
    private var budget = 0.0

    /// More suspects than so are left to the next pass.
    private static let maximumSuspects = 4096
    /// How long one that is asked for runs before other work of the queue gets its turn.
    private static let turn = Duration.milliseconds(100)
    /// The least bytes each second of one that runs by itself: a small store is done soon.
    private static let leastRate = 256.0 * 1024

    init(_ shard: Shard) {
        self.shard = shard
        execution = shard.options.execution
        queue = execution.makeQueue("cairn.shard.\(shard.index).scrub", isBackground: true)
        (lastTick, lastSave) = (execution.uptime, execution.uptime)
        timer = execution.makeTimer(on: queue, every: .seconds(1)) { [weak self] in self?.tick() }
    }

    // MARK: Life

    func start() {
        queue.async { [self] in
            attempt { () throws(StoreError) in
                if let bytes = try shard.makeView().index.get(Key.scrub) { pass = try ScrubRecord.decode(bytes) }
            }
            publish()
            recount()
            if pass.isRunning, pass.isOnDemand { loop() }
        }
        if shard.options.scrubPeriod != nil { timer.activate() }
    }

    /// Waits for the step that runs, and does no other.
    func stop() {
        shared.withLock { $0.isStopped = true }
        timer.cancel()
        // Where the machine stops meanwhile, that step is over as well.
        try? queue.sync { () throws(StoreError) in }
    }

    var isStopped: Bool { shared.withLock { $0.isStopped } || shard.fenceReason != nil }

    // MARK: Asked for

    /// Begins a pass through all data, now; one that runs begins anew.
    /// - Parameter bytesPerSecond: the most to read; 0: as fast as it can.
    public func begin(bytesPerSecond: UInt64) {
        queue.async { [self] in
            beginPass(onDemand: true, rate: bytesPerSecond)
            loop()
        }
        // So that who asks next is not told of the one before.
        try? queue.sync { () throws(StoreError) in }
    }

    public var status: ScrubStatus {
        let (record, problem) = shared.withLock { ($0.status, $0.indexProblem) }
        return ScrubStatus(
            isRunning: record.isRunning,
            isOnDemand: record.isOnDemand,
            startedAt: record.startedAt,
            finishedAt: record.finishedAt,
            bytes: record.bytes,
            totalBytes: record.total,
            found: record.found,
            indexProblem: problem
        )
    }

    /// Bytes of records read since the server was started.
    public var bytesRead: UInt64 { shared.withLock { $0.bytesInAll } }

    /// A reader could not have this. Any thread; returns at once.
    func suspect(_ suspect: Suspect) {
        let isFirst = shared.withLock { shared in
            guard !shared.isStopped, shared.suspects.count < Self.maximumSuspects else { return false }
            let wasEmpty = shared.suspects.isEmpty
            return shared.suspects.insert(suspect).inserted && wasEmpty
        }
        if isFirst { queue.async { self.examineSuspects() } }
    }

    private func examineSuspects() {
        let suspects = shared.withLock { shared in
            defer { shared.suspects = [] }
            return shared.suspects
        }
        for suspect in suspects where !isStopped {
            attempt { () throws(StoreError) in _ = try mark(try examine(suspect)) }
        }
        recount()
    }

    // MARK: Passes

    private func beginPass(onDemand: Bool, rate: UInt64) {
        let finished = pass.finishedAt
        pass = ScrubRecord()
        pass.finishedAt = finished
        pass.startedAt = execution.milliseconds
        (pass.isRunning, pass.isOnDemand, pass.rate) = (true, onDemand, rate)
        attempt { () throws(StoreError) in pass.total = try shard.liveBytes() }
        shared.withLock { $0.indexProblem = nil }
        (budget, lastTick) = (0, execution.uptime)
        save()
    }

    /// Once a second, where the shard is scrubbed by itself.
    private func tick() {
        guard !isStopped, !isLooping, let period = shard.options.scrubPeriod else { return }
        if shard.damage.isPossible { recount() }
        let now = execution.milliseconds
        if !pass.isRunning {
            guard pass.startedAt + UInt64(period / .milliseconds(1)) <= now else { return }
            beginPass(onDemand: false, rate: 0)
        }
        // A little faster than it must be, for what is written meanwhile.
        let needed = Double(pass.total) / max(1, period / .seconds(1)) * 1.25
        let rate = min(max(needed, Self.leastRate), Double(shard.options.scrubBytesPerSecond))
        read(atMost: rate, for: .seconds(1))
    }

    /// Goes on with what was asked for, turn by turn.
    private func loop() {
        guard !isLooping else { return }
        isLooping = true
        queue.async { self.takeTurn() }
    }

    private func takeTurn() {
        guard !isStopped, pass.isRunning, pass.isOnDemand else {
            isLooping = false
            return
        }
        read(atMost: pass.rate == 0 ? .infinity : Double(pass.rate), for: Self.turn)
        let next: @Sendable () -> Void = { self.takeTurn() }
        if budget < 0 { queue.async(after: 50_000_000, next) } else { queue.async(next) }
    }

    private func read(atMost rate: Double, for turn: Duration) {
        let nanoseconds = UInt64(turn / .nanoseconds(1))
        let now = execution.uptime
        let elapsed = Double(min(now - lastTick, 2_000_000_000)) / 1e9
        lastTick = now
        budget = rate.isInfinite ? .infinity : min(budget + rate * elapsed, 2 * rate)
        while budget > 0, pass.isRunning, !isStopped, execution.uptime - now < nanoseconds {
            do throws(StoreError) {
                let step = try ScrubStep(self, from: pass.position, rate: rate).run()
                budget -= Double(step.bytes + step.indexBytes)
                pass.bytes += UInt64(step.bytes)
                pass.found += UInt64(step.found)
                shared.withLock { shared in
                    shared.bytesInAll += UInt64(step.bytes)
                    shared.indexProblem = shared.indexProblem ?? step.indexProblem
                }
                if let next = step.next { pass.position = next } else { finish() }
            } catch {
                // Something else than the data failed: the step is done again, later.
                if error.code != .closed, error.code != .fenced { report(error) }
                budget = min(budget, 0)
                break
            }
        }
        publish()
        let sinceSave = Duration.nanoseconds(Int64(execution.uptime - lastSave))
        if pass.isRunning, sinceSave >= shard.options.scrubSaveInterval { save() }
    }

    private func finish() {
        let problems = shard.checkpoints.verify()
        if let first = problems.first { shared.withLock { $0.indexProblem = $0.indexProblem ?? first } }
        pass.isRunning = false
        pass.finishedAt = execution.milliseconds
        pass.position = []
        recount()
        save()
        shard.logger.info(
            "scrubbed",
            metadata: ["bytes": "\(pass.bytes)", "found": "\(pass.found)", "damaged": "\(shard.damage.count)"]
        )
    }

    private func save() {
        lastSave = execution.uptime
        publish()
        let record = pass
        attempt { () throws(StoreError) in
            try change(entries: 1) { (transaction) throws(StoreError) in
                transaction.overlay.put(Key.scrub, record.encoded)
            }
        }
    }

    private func publish() {
        let record = pass
        shared.withLock { $0.status = record }
    }

    // MARK: Common

    func recount() {
        guard shard.damage.isPossible else { return }
        attempt { () throws(StoreError) in
            var count = 0
            for (_, damage) in try shard.makeView().damageCounts() { count += damage.chunks + damage.parts }
            shard.damage.set(count: count)
        }
    }

    private func attempt(_ body: () throws(StoreError) -> Void) {
        do throws(StoreError) { try body() } catch {
            switch error.code {
            case .closed, .fenced, .full: break
            default: report(error)
            }
        }
    }

    private func report(_ error: StoreError) {
        shard.logger.error("scrub cannot go on", metadata: ["reason": "\(error)"])
    }

    /// Runs a transaction and waits for it.
    func change<Value: Sendable>(
        entries: Int,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value
    ) throws(StoreError) -> Value {
        if isStopped { throw StoreError(.closed, "the shard is closing") }
        return try shard.perform(entries: entries, body)
    }
}
