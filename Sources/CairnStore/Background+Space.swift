import CairnCore
import CairnLog

/// Giving space back: unnamed chunks, then segments without live records that lie behind the checkpoint.
extension Background {
    /// Chunks that one transaction purges.
    private static let purgeStep = 256
    /// Such transactions, or looks at as many, in one round.
    private static let purgeSteps = 256

    // MARK: Purging

    /// A walk through what nothing names.
    struct PurgeWalk {
        /// Where it goes on.
        fileprivate var start = Key(.unreferenced).bytes
        /// When the first of the pins ends that were met, in nanoseconds of uptime.
        fileprivate var earliest = UInt64.max
        /// Whether something may have lost its last name behind it.
        fileprivate var isStale = false
    }

    /// Removes chunks that nothing names and no lease holds, so many in one round: other work comes in between.
    /// - Parameter isWoken: whether something may have lost its last name since; else nothing is looked at before the first of the
    ///   pins ends that were met the last time.
    func purge(isWoken: Bool) throws(StoreError) {
        if purgeWalk == nil, !isWoken, let rest = purgeRest, execution.uptime < rest { return }
        // For one lease time after a start nothing may go: then the table is not walked in vain.
        guard shard.leases.mayPurge else {
            purgeRest = nil
            return
        }
        var walk = purgeWalk ?? PurgeWalk()
        if purgeWalk != nil, isWoken { walk.isStale = true }
        // Where it fails it begins anew.
        (purgeWalk, purgeRest) = (nil, nil)
        for _ in 0..<Self.purgeSteps {
            if isStopped { return }
            if try purgeStep(&walk) {
                purgeRest = walk.isStale || walk.earliest == .max ? nil : walk.earliest
                return
            }
        }
        purgeWalk = walk
    }

    /// - Returns: whether the table's end is reached.
    private func purgeStep(_ walk: inout PurgeWalk) throws(StoreError) -> Bool {
        let cursor = shard.makeView().index.makeCursor()
        cursor.seek(walk.start)
        var chunks: [ChunkKey] = []
        while chunks.count < Self.purgeStep, try cursor.isValid(), var key = KeyReader(cursor.key, .unreferenced),
            let chunk = key.takeChunk()
        {
            chunks.append(chunk)
            walk.start = Array(cursor.key) + [0]
            cursor.next()
        }
        if chunks.isEmpty { return true }
        let leases = shard.leases
        let (free, end) = leases.unheld(chunks)
        walk.earliest = min(walk.earliest, end ?? .max)
        if free.isEmpty { return false }
        try change(entries: free.count) { (transaction) throws(StoreError) in
            for chunk in free { try transaction.purge(chunk, leases) }
        } ended: {
            leases.endPurge(free)
        }
        return false
    }

    // MARK: What the index needs

    /// Gives it room where the file system runs short of it, and looks whether RocksDB has failed at something on its own.
    func watchIndex() throws(StoreError) {
        let isShort = shard.database.lookAtRoom()
        if isShort != shard.isShort.exchange(isShort, ordering: .relaxed) {
            shard.logger.warning(
                isShort ? "the disk is short of room for the index" : "the disk has room for the index again"
            )
        }
        if shard.log.hasSpare, shard.log.isTight {
            try onDisk { () throws(LogError) in try shard.log.trim(spare: shard.options.spareSegments) }
        }
        if isShort, !shard.checkpoints.isRunning {
            do throws(StoreError) { try shard.database.checkRoom() } catch {
                if error.code == .full { try giveUpCopy() }
            }
        }
        guard !shard.unflushed.withLock({ $0.isSuspect }), shard.database.hasFailed else { return }
        shard.logger.warning("RocksDB has failed at a flush or compaction, and will try again")
        shard.unflushed.withLock { $0.isSuspect = true }
        // What is applied already must not be ahead of the log either.
        try onDisk { () throws(LogError) in try shard.log.sync() }
    }

    /// A call of the log on the I/O queue; the shard is fenced where the log is.
    private func onDisk(_ body: () throws(LogError) -> Void) throws(StoreError) {
        try shard.io.sync { () throws(StoreError) in
            do throws(LogError) { try body() } catch {
                let failure = StoreError(error)
                if shard.log.isFenced { shard.fence(failure) }
                throw failure
            }
        }
    }

    // MARK: The durable index, and segments

    var needsFlush: Bool {
        let options = shard.options
        return shard.unflushed.withLock {
            $0.indexBytes >= options.indexFlushBytes || $0.logBytes >= Int(options.checkpointBytes)
        }
    }

    /// Makes the index durable up to now; the log before it is then only needed for its live records, and for copies of the index.
    /// - Throws: `.full` where the disk has no room for it: nothing was done, and the shard goes on.
    func flushIndex() throws(StoreError) {
        try shard.database.checkRoom()
        let position = try syncBeforeFlush()
        do throws(StoreError) { try shard.database.flush() } catch {
            // And nothing is applied that is not synced from now on: RocksDB may try again by itself.
            shard.fence(error)
            throw error
        }
        shard.unflushed.withLock { $0.isFlushing = false }
        if let position { durable = position }
    }

    /// From here until the flush is over, whatever is applied is synced before.
    private func syncBeforeFlush() throws(StoreError) -> LogPosition? {
        var position: LogPosition?
        try onDisk { () throws(LogError) in
            try shard.log.sync()
            position = shard.unflushed.withLock { unflushed in
                unflushed.indexBytes = 0
                unflushed.logBytes = 0
                unflushed.isFlushing = true
                return unflushed.position
            }
        }
        return position
    }

    /// Gives segments back that hold nothing alive, and lie behind what the index holds durably and behind the oldest of its copies.
    func reclaimSegments() throws(StoreError) {
        var dead = try deadSegments()
        guard !dead.free.isEmpty || dead.held > 0 || shard.log.isFull else { return }
        if dead.free.contains(where: { !isBehindFlush($0) }) {
            // Without room for that, those that lie behind the last one are still of use.
            do throws(StoreError) { try flushIndex() } catch { guard error.code == .full else { throw error } }
            dead = try deadSegments()
        }
        let free = dead.free.filter(isBehindFlush)
        if let durable, !free.isEmpty {
            // What freed the segments' last records may have been applied without a sync (SPEC U8): after a crash it is undone, and they
            // are named again. So they must not be written over before it is durable.
            try onDisk { () throws(LogError) in try shard.log.sync() }
            for segment in free { shard.log.recycle(segment.id, checkpoint: durable) }
        }
        if dead.held > 0 { try makeRoom(held: dead.held) }
        try onDisk { () throws(LogError) in
            if shard.log.isFull { try shard.log.refill() }
            try shard.log.trim(spare: shard.options.spareSegments)
        }
    }

    private func isBehindFlush(_ segment: SegmentState) -> Bool {
        guard let durable, segment.id != durable.segment else { return false }
        return segment.lastLSN.map { $0 <= durable.lsn } ?? true
    }

    /// Closed segments that hold nothing alive: those that no copy of the index wants, and how many others there are.
    private func deadSegments() throws(StoreError) -> (free: [SegmentState], held: Int) {
        let closed = shard.log.segments.filter { $0.use == .closed }
        let retention = shard.checkpoints.folder.retention
        let view = shard.makeView()
        var (free, held): ([SegmentState], Int) = ([], 0)
        for segment in closed where try view.index.get(Key.segment(segment.id)) == nil {
            let isHeld = try logCall { () throws(LogError) in try shard.log.isNeeded(segment.id, by: retention) }
            if isHeld { held += 1 } else { free.append(segment) }
        }
        return (free, held)
    }
}
