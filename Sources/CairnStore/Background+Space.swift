import CairnCore
import CairnLog
import Dispatch
import Synchronization

/// Giving space back: unnamed chunks, then segments without live records that lie behind the checkpoint.
extension Background {
    /// Chunks that one transaction purges.
    private static let purgeStep = 256

    // MARK: Purging

    /// Removes chunks that nothing names and no lease holds.
    /// - Parameter isWoken: whether something may have lost its last name since; else nothing is looked at before the first of the
    ///   pins ends that were met the last time.
    func purge(isWoken: Bool) throws(StoreError) {
        if !isWoken, let rest = purgeRest, DispatchTime.now().uptimeNanoseconds < rest { return }
        purgeRest = nil
        var earliest = UInt64.max
        defer { purgeRest = earliest == .max ? nil : earliest }
        // For one lease time after a start nothing may go: then the table is not walked in vain.
        guard shard.leases.mayPurge else { return }
        var start = Key(.unreferenced).bytes
        while !isStopped {
            let cursor = shard.makeView().index.makeCursor()
            cursor.seek(start)
            var chunks: [ChunkKey] = []
            while chunks.count < Self.purgeStep, try cursor.isValid(), var key = KeyReader(cursor.key, .unreferenced),
                let chunk = key.takeChunk()
            {
                chunks.append(chunk)
                start = Array(cursor.key) + [0]
                cursor.next()
            }
            if chunks.isEmpty { return }
            let (free, end) = shard.leases.beginPurge(chunks)
            earliest = min(earliest, end ?? .max)
            defer { shard.leases.endPurge(free) }
            if free.isEmpty { continue }
            try change(entries: free.count) { (transaction) throws(StoreError) in
                for chunk in free { try transaction.purge(chunk) }
            }
        }
    }

    // MARK: Checkpoints and segments

    var needsCheckpoint: Bool {
        let options = shard.options
        return shard.unflushed.withLock {
            $0.indexBytes >= options.indexFlushBytes || $0.logBytes >= Int(options.checkpointBytes)
        }
    }

    /// Makes the index durable up to now; the log before it is then only needed for its live records.
    func checkpoint() throws(StoreError) {
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
    func reclaimSegments() throws(StoreError) {
        var dead = try deadSegments()
        guard !dead.isEmpty || shard.log.isFull else { return }
        if dead.contains(where: { !isBehindCheckpoint($0) }) {
            try checkpoint()
            dead = try deadSegments()
        }
        if let durable, !dead.isEmpty {
            try syncDeaths()
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
        if let error = outcome.withLock({ $0 }) {
            if log.isFenced { shard.fence(error) }
            throw error
        }
    }

    /// What freed the segments' last records may have been applied without a sync (SPEC U8): after a crash it is undone, and they
    /// are named again. So they must not be written over before it is durable.
    private func syncDeaths() throws(StoreError) {
        let outcome = Mutex<StoreError?>(nil)
        shard.io.sync {
            do throws(StoreError) { try logCall { () throws(LogError) in try shard.log.sync() } } catch {
                shard.fence(error)
                outcome.withLock { $0 = error }
            }
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
