import CairnCore
import CairnCrypto
import CairnLog
import Dispatch
import Logging
import Synchronization

/// What a shard does on its own: frees what nobody reads, merges parts of chunks, seals snapshots, keeps the index durable and
/// gives segments back. One thing after the other, each change a transaction of its own, so that it can stop at any point.
// Safety: its own queue does all the work; the flags are synchronized.
final class Background: @unchecked Sendable {
    private unowned let shard: Shard
    private let queue: DispatchQueue
    private struct Flags {
        var isScheduled = false
        var isStopped = false
    }
    private let flags = Mutex(Flags())
    private let timer: any DispatchSourceTimer

    /// Chunks that one transaction purges; pieces that one merges.
    private static let purgeStep = 256
    private static let mergeStep = 16
    /// How often it looks for what only time makes possible: leases that have ended.
    private static let interval = DispatchTimeInterval.seconds(1)

    init(_ shard: Shard) {
        self.shard = shard
        queue = DispatchQueue(label: "cairn.shard.\(shard.index).background", qos: .utility)
        timer = DispatchSource.makeTimerSource(queue: queue)
        timer.schedule(deadline: .now() + Self.interval, repeating: Self.interval, leeway: .milliseconds(100))
        timer.setEventHandler { [weak self] in self?.run() }
    }

    func start() {
        timer.activate()
        schedule()
    }

    /// After a group: is there something to do at once?
    func wake(newWork: Bool, isFull: Bool) {
        if newWork || isFull || needsCheckpoint { schedule() }
    }

    /// Waits for the step that runs, and does no other.
    func stop() {
        flags.withLock { $0.isStopped = true }
        timer.cancel()
        queue.sync {}
    }

    private var isStopped: Bool { flags.withLock { $0.isStopped } }

    private func schedule() {
        let isFirst = flags.withLock { flags in
            defer { flags.isScheduled = true }
            return !flags.isScheduled
        }
        if isFirst {
            queue.async { [self] in
                flags.withLock { $0.isScheduled = false }
                run()
            }
        }
    }

    private func run() {
        dispatchPrecondition(condition: .onQueue(queue))
        guard !isStopped, shard.fenceReason == nil else { return }
        do throws(StoreError) {
            if needsCheckpoint { try checkpoint() }
            try doWork()
            try mergePatches(where: { _, count in count >= Transaction.mergePatches })
            try purge()
            try reclaimSegments()
        } catch {
            if error.code != .closed, error.code != .fenced, error.code != .full {
                shard.logger.error("background work failed", metadata: ["reason": "\(error)"])
            }
        }
    }

    /// Runs a transaction and waits for it.
    private func change<Value: Sendable>(
        records: Int = 0, bytes: Int = 0, entries: Int, reclaims: Bool = true,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value
    ) throws(StoreError) -> Value {
        if isStopped { throw StoreError(.closed, "the shard is closing") }
        let done = DispatchSemaphore(value: 0)
        let outcome = Mutex<Result<Value, StoreError>?>(nil)
        shard.submit(records: records, bytes: bytes, entries: entries, reclaims: reclaims, body) { result in
            outcome.withLock { $0 = result }
            done.signal()
        }
        done.wait()
        return try outcome.withLock { $0! }.get()
    }

    // MARK: Work items

    /// Every item in the order in which they came: those of a lineage build on each other.
    private func doWork() throws(StoreError) {
        while let (key, item) = try nextWork() {
            switch item {
            case .releaseVersion(let lineage, let version):
                try steps { (transaction, cursor) throws(StoreError) in
                    try transaction.releaseStep(lineage, version, &cursor)
                } finally: { $0.overlay.delete(key) }
            case .trimHead(let lineage):
                try steps { (transaction, cursor) throws(StoreError) in
                    try transaction.trimStep(lineage, &cursor)
                } finally: { $0.overlay.delete(key) }
            case .seal(let id):
                try seal(id, work: key)
            }
        }
    }

    private func nextWork() throws(StoreError) -> (key: [UInt8], item: WorkItem)? {
        let cursor = shard.makeView().index.makeCursor()
        cursor.seek(Key(.work).bytes)
        guard try cursor.isValid(), cursor.key.first == Table.work.rawValue else { return nil }
        return (Array(cursor.key), try WorkItem.decode(cursor.value))
    }

    private func steps(
        _ step: @escaping @Sendable (Transaction, inout [UInt8]?) throws(StoreError) -> Bool,
        finally: @escaping @Sendable (Transaction) -> Void
    ) throws(StoreError) {
        var cursor: [UInt8]?
        while true {
            let from = cursor
            let (isDone, next) = try change(entries: Transaction.releaseStep * 2) { (transaction) throws(StoreError) in
                var cursor = from
                let isDone = try step(transaction, &cursor)
                if isDone { finally(transaction) }
                return (isDone, cursor)
            }
            if isDone { return }
            cursor = next
        }
    }

    // MARK: Seals

    private func seal(_ id: SnapshotID, work key: [UInt8]) throws(StoreError) {
        let view = shard.makeView()
        var seal: Fingerprint?
        if let snapshot = try view.snapshot(id), snapshot.state == .complete, snapshot.seal == nil {
            let (lineage, version) = (snapshot.lineage, snapshot.version)
            try mergePatches(where: { place, _ in place.lineage == lineage && place.version <= version }, from: lineage)
            do throws(StoreError) {
                seal = try SealWalk(shard: shard, snapshot: snapshot).seal { self.isStopped }
            } catch {
                // A snapshot with damaged data has no seal; scrub and reads name the damage.
                guard error.code == .damaged else { throw error }
                shard.logger.error("a snapshot cannot be sealed", metadata: ["snapshot": "\(id)", "reason": "\(error)"])
            }
        }
        let result = seal
        try change(entries: 4) { (transaction) throws(StoreError) in
            if let result { try transaction.setSeal(result, of: id) }
            transaction.overlay.delete(key)
        }
    }

    // MARK: Merging parts of chunks

    struct PatchedPlace: Hashable, Sendable {
        let lineage: LineageID
        let version: DataVersion
        let chunk: ChunkIndex
    }

    /// Turns entries with parts into whole chunks: their content stays the same.
    private func mergePatches(
        where isWanted: (PatchedPlace, UInt8) -> Bool, from lineage: LineageID? = nil
    ) throws(StoreError) {
        var start = lineage.map { Key(.patched).then($0.rawValue).bytes } ?? Key(.patched).bytes
        let prefix = start
        while true {
            let view = shard.makeView()
            let cursor = view.index.makeCursor()
            cursor.seek(start)
            var places: [PatchedPlace] = []
            while places.count < Self.mergeStep, try cursor.isValid(), cursor.key.starts(with: prefix),
                var key = KeyReader(cursor.key, .patched), let lineage = key.take(UInt64.self), let version = key.take(UInt64.self),
                let chunk = key.take(UInt64.self)
            {
                let place = PatchedPlace(lineage: LineageID(lineage), version: DataVersion(version), chunk: ChunkIndex(chunk))
                if isWanted(place, cursor.value.first ?? 255) { places.append(place) }
                start = Array(cursor.key) + [0]
                cursor.next()
            }
            if places.isEmpty { return }
            for place in places { try merge(place, view) }
        }
    }

    private func merge(_ place: PatchedPlace, _ view: ReadView) throws(StoreError) {
        guard let entry = try view.entries(place.lineage, place.chunk, upTo: place.version, all: false).first,
            entry.version == place.version, !entry.entry.patches.isEmpty
        else { return }
        let lineage = try view.lineage(place.lineage)
        guard let data = try MergedChunk(shard: shard, place: place, lineage: lineage, view: view).load() else { return }
        let expected = entry.entry
        // Not a call that frees space by itself: where the store is full it waits.
        try change(records: 1, bytes: data.chunk?.bytes.count ?? 0, entries: 8, reclaims: false) { (transaction) throws(StoreError) in
            try transaction.replaceMerged(place, expected: expected, with: data.chunk)
        }
    }

    // MARK: Purging

    /// Removes chunks that nothing names and no lease holds.
    private func purge() throws(StoreError) {
        var start = Key(.unreferenced).bytes
        while !isStopped {
            let cursor = shard.makeView().index.makeCursor()
            cursor.seek(start)
            var chunks: [ChunkKey] = []
            while chunks.count < Self.purgeStep, try cursor.isValid(), var key = KeyReader(cursor.key, .unreferenced),
                let account = key.take(UInt32.self), let fingerprint = key.takeFingerprint()
            {
                chunks.append(ChunkKey(account: AccountNumber(rawValue: account), fingerprint: fingerprint))
                start = Array(cursor.key) + [0]
                cursor.next()
            }
            if chunks.isEmpty { return }
            let free = shard.leases.beginPurge(chunks)
            defer { shard.leases.endPurge(free) }
            if free.isEmpty { continue }
            try change(entries: free.count) { (transaction) throws(StoreError) in
                for chunk in free { try transaction.purge(chunk.fingerprint, chunk.account) }
            }
        }
    }

    // MARK: Checkpoints and segments

    private var needsCheckpoint: Bool {
        let options = shard.options
        return shard.unflushed.withLock { $0.indexBytes >= options.indexFlushBytes || $0.logBytes >= Int(options.checkpointBytes) }
    }

    /// Makes the index durable up to now; the log before it is then only needed for its live records.
    private func checkpoint() throws(StoreError) {
        let position = try syncBeforeFlush()
        defer { shard.unflushed.withLock { $0.isFlushing = false } }
        do throws(StoreError) { try shard.database.flush() } catch {
            shard.fence(error)
            throw error
        }
        if let position { durable = position }
    }

    /// What the index holds durably at the least.
    var durable: LogPosition?

    /// From here until the flush is over, whatever is applied is synced before.
    private func syncBeforeFlush() throws(StoreError) -> LogPosition? {
        let outcome = Mutex<Result<LogPosition?, StoreError>?>(nil)
        shard.io.sync {
            let result = Result { () throws(StoreError) -> LogPosition? in
                try logCall { () throws(LogError) in try shard.log.sync() }
                return shard.unflushed.withLock { unflushed in
                    unflushed.indexBytes = 0
                    unflushed.logBytes = 0
                    unflushed.isFlushing = true
                    return unflushed.position
                }
            }
            if case .failure(let error) = result { shard.fence(error) }
            outcome.withLock { $0 = result }
        }
        return try outcome.withLock { $0! }.get()
    }

    /// Gives segments back that hold nothing alive and lie behind the checkpoint.
    private func reclaimSegments() throws(StoreError) {
        var dead = try deadSegments()
        guard !dead.isEmpty || shard.log.isFull else { return }
        if dead.contains(where: { !isBehindCheckpoint($0) }) {
            try checkpoint()
            dead = try deadSegments()
        }
        if let durable {
            for segment in dead where isBehindCheckpoint(segment) { shard.log.recycle(segment.id, checkpoint: durable) }
        }
        let log = shard.log
        let outcome = Mutex<StoreError?>(nil)
        shard.io.sync {
            do throws(LogError) {
                if log.isFull { try log.refill() }
                try log.trim(spare: shard.options.spareSegments)
            } catch { outcome.withLock { $0 = StoreError(error) } }
        }
        if let error = outcome.withLock({ $0 }) { throw error }
    }

    private func isBehindCheckpoint(_ segment: SegmentState) -> Bool {
        guard let durable, segment.id != durable.segment else { return false }
        return segment.lastLSN.map { $0 <= durable.lsn } ?? true
    }

    private func deadSegments() throws(StoreError) -> [SegmentState] {
        let closed = shard.log.segments.filter { $0.use == .closed }
        let view = shard.makeView()
        var dead: [SegmentState] = []
        for segment in closed where try view.index.get(Key.segment(segment.id)) == nil { dead.append(segment) }
        return dead
    }
}
