internal import Glibc
internal import Synchronization

/// The state of a segment.
public struct SegmentState: Hashable, Sendable {
    public enum Use: Hashable, Sendable {
        /// Ready to be opened (recycled or new).
        case free
        /// Named as the successor of the open one.
        case next
        /// Written to now.
        case open
        /// Full; may hold live records.
        case closed
    }
    public let id: SegmentID
    public let use: Use
    /// The last group in it, if one was written or replayed since the log was opened.
    public let lastLSN: LSN?
}

extension SegmentLog {
    /// Free segments that even a group which frees space leaves: with the successor of the open segment they are the two
    /// that the next recovery needs.
    static let recoveryReserve = 1

    /// Whether only `.reclaim` groups are taken. Ends with enough ``recycle(_:checkpoint:)`` or a ``refill()``.
    public var isFull: Bool { state.withLock { $0.isFull } }

    /// Whether groups that free space have used up of what is kept for them: another one may not be to be had, also where the file
    /// system says that it has room (a quota).
    public var isBelowReserve: Bool { state.withLock { $0.free.count < $0.reserve } }

    /// What the segments take on disk.
    public var allocatedBytes: UInt64 { state.withLock { UInt64($0.segments.count) * UInt64($0.segmentSize) } }

    /// How many segments can still be opened before only what frees space is let in. Asks the file system.
    public var room: Int {
        let disk = storage.availableBytes
        return state.withLock { state in
            let size = UInt64(state.segmentSize)
            let allowed = state.capacity.map { max(0, Int($0 / size) - state.segments.count) } ?? Int(Int32.max)
            let possible = disk.map { Int(($0 - min($0, state.leave)) / size) } ?? Int(Int32.max)
            let free = max(0, state.free.count - state.reserve)
            return free + min(allowed, possible)
        }
    }

    /// What groups that free space can write before they need another segment, and how many segments must become free until they get
    /// one: none where the next can be opened already.
    public var reclaimRoom: (bytes: Int, missing: Int) {
        state.withLock { state in
            (state.segmentSize - state.end, max(0, SegmentLog.recoveryReserve + 1 - state.free.count))
        }
    }

    /// Every segment, in rising order.
    public var segments: [SegmentState] {
        let states = state.withLock { state in
            state.segments.map { SegmentState(id: $0.key, use: $0.value.use, lastLSN: $0.value.lastLSN) }
        }
        return states.sorted { $0.id < $1.id }
    }

    /// Gives a closed segment without live records and without readers back for use. Does no I/O.
    /// - Parameter checkpoint: what the index holds durably. Traps where the segment is not closed, or not wholly before it,
    ///   or where it ends in the segment.
    public func recycle(_ segment: SegmentID, checkpoint: LogPosition) {
        state.withLock { $0.recycle(segment, checkpoint: checkpoint) }
    }

    /// Tries to fill the reserve up, and so to end ``isFull``. Blocks: for the I/O queue, now and then while the log is full.
    /// - Throws: `.fenced`, `.io`; not `.full`.
    public func refill() throws(LogError) {
        try writing.withLock { _ throws(LogError) in
            guard !isFenced else { throw .fenced }
            do throws(LogError) { try fillReserve() } catch .full {}
        }
    }

    /// Whether so little is free beside the segments that free ones should rather be deleted than kept. Asks the file system.
    public var isTight: Bool {
        guard let available = storage.availableBytes else { return false }
        return available < state.withLock { $0.leave } + 2 * UInt64(segmentSize)
    }

    /// Whether ``trim(spare:)`` would delete segments where ``isTight``.
    public var hasSpare: Bool { state.withLock { $0.free.count > $0.reserve + 1 } }

    /// Deletes free segments beyond the reserve and `spare` more; where the file system is short of space, beyond the reserve: then
    /// others need it more, the index or another shard. Blocks: for the I/O queue.
    public func trim(spare: Int) throws(LogError) {
        try writing.withLock { _ throws(LogError) in
            guard !isFenced else { throw .fenced }
            try delete(state.withLock { $0.trim(keep: $0.reserve + 1 + spare) })
            while hasSpare, isTight {
                try delete(state.withLock { $0.trim(keep: max($0.reserve + 1, $0.free.count - 1)) })
            }
        }
    }

    private func delete(_ segments: [SegmentID]) throws(LogError) {
        for segment in segments {
            do throws(StorageError) { try storage.delete(segment) } catch { throw fence(.io(error)) }
        }
    }

    /// A free segment to be named as the successor of the one that is now opened.
    func takeSuccessor(for purpose: GroupPurpose) throws(LogError) -> SegmentLife {
        do { try fillReserve() } catch .full {
            state.withLock { $0.isFull = true }
            guard purpose == .reclaim else { throw .full }
        }
        let floor = state.withLock { purpose == .reclaim ? SegmentLog.recoveryReserve : $0.reserve }
        guard let segment = state.withLock({ $0.take(above: floor) }) else { throw .full }
        let known = state.withLock { $0.segments[segment]?.life?.incarnation }
        do { return try SegmentLog.nextLife(of: segment, known: known, identity, storage) } catch { throw fence(error) }
    }

    /// Makes segments until the reserve and one more are free.
    func fillReserve() throws(LogError) {
        while state.withLock({ $0.free.count <= $0.reserve }) {
            let (needed, size) = (state.withLock { $0.leave }, UInt64(segmentSize))
            if needed > 0, let available = storage.availableBytes, available < needed + size { throw .full }
            guard let segment = state.withLock({ $0.nameSegment() }) else { throw .full }
            do { try SegmentLog.create(segment, size: segmentSize, storage) } catch .full { throw .full } catch {
                throw fence(error)
            }
            state.withLock { $0.add(segment) }
        }
        state.withLock { $0.isFull = false }
    }

    /// - Throws: `.full` where there is no space, `.io`.
    static func create(_ segment: SegmentID, size: Int, _ storage: any SegmentStorage) throws(LogError) {
        do { try storage.create(segment, size: size) } catch {
            throw error.code == ENOSPC || error.code == EDQUOT ? .full : .io(error)
        }
    }

    /// The life that a free segment begins when it is opened: after the one it had in this epoch, or the one that its header
    /// tells. Without either it may have had the same incarnation before, but then in an earlier epoch.
    static func nextLife(
        of segment: SegmentID,
        known: Incarnation?,
        _ identity: LogIdentity,
        _ storage: any SegmentStorage
    ) throws(LogError) -> SegmentLife {
        if let known { return SegmentLife(segment: segment, incarnation: known.next) }
        let header = try SegmentHeader.read(segment, identity: identity, from: storage)
        return SegmentLife(segment: segment, incarnation: header?.life.incarnation.next ?? Incarnation(1))
    }
}
