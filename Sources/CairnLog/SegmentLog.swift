internal import CairnCore
internal import Synchronization

/// What a group is for.
public enum GroupPurpose: Sendable {
    /// Anything.
    case normal
    /// Deletions and the like: may use the reserve.
    case reclaim
}

/// A shard's log of groups, in segments.
///
/// ```
/// shard's queue   makeGroup → append… → finish ─┐                    recycle
/// I/O queue                                     └─ write, sync, refill, trim, close (one at a time; they block)
/// any thread      read, and every property
/// ```
public final class SegmentLog: Sendable {
    /// What the writing side alone uses.
    struct Writing: Sendable {
        let buffer: Buffer
        var superblock: Superblock
        /// Whether the open segment has groups that are not synced.
        var isUnsynced = false
    }

    /// Of each segment, in bytes.
    public let segmentSize: Int
    public let epoch: Epoch
    let storage: any SegmentStorage
    let identity: LogIdentity
    let pool: BufferPool
    let state: Mutex<LogState>
    /// Held for the length of each blocking call; never taken while `state` is held.
    let writing: Mutex<Writing>

    init(_ storage: any SegmentStorage, superblock: Superblock, state: LogState, pool: BufferPool) {
        segmentSize = superblock.segmentSize
        epoch = superblock.epoch
        identity = superblock.identity
        self.storage = storage
        self.pool = pool
        self.state = Mutex(state)
        writing = Mutex(Writing(buffer: pool.buffer(capacity: GroupWriter.bufferBytes), superblock: superblock))
    }

    /// After the last group written; nil where there has never been one.
    public var position: LogPosition? { state.withLock { $0.position } }
    /// Every group up to here is durable.
    public var durable: LSN { state.withLock { $0.durable } }
    /// Whether a write or sync has failed, or the log was closed.
    public var isFenced: Bool { state.withLock { $0.isFenced } }

    /// A group at the log's end. Only the last one made can be written; one that is not wanted is just dropped.
    /// - Parameters:
    ///   - purpose: what the group is for.
    ///   - records: what the group must have room for, as in ``LogGroup/hasRoom(records:bytes:commit:)``: where the open segment
    ///     has no room for it, the group begins the next one.
    ///   - bytes: the same.
    ///   - commit: the same.
    /// - Throws: `.fenced`; `.full` while ``isFull``, for a `.normal` group; `.groupTooLarge`.
    public func makeGroup(
        for purpose: GroupPurpose,
        records: Int,
        bytes: Int,
        commit: Int
    ) throws(LogError) -> LogGroup {
        try state.withLock { state throws(LogError) in
            try state.makeGroup(purpose, records: records, bytes: bytes, commit: commit)
        }
    }

    /// Writes a finished group. Blocks.
    /// - Parameter sync: whether it, and all before it, shall be durable on return.
    /// - Throws: `.full` (nothing was written, the log goes on), `.fenced`, `.io` (and from now on the log is fenced).
    public func write(_ group: LogGroup, sync: Bool) throws(LogError) -> LogPosition {
        try writing.withLock { writing throws(LogError) in
            let open = try state.withLock { state throws(LogError) in
                try state.check(group)
                return state.open
            }
            var opening: SegmentHeader?
            if group.place.opensSegment {
                // First of all: where there is no space, nothing has been written.
                opening = SegmentHeader(
                    identity: identity,
                    life: group.place.life,
                    epoch: epoch,
                    next: try takeSuccessor(for: group.place.purpose),
                    firstLSN: group.lsn
                )
                // So that a segment which has been opened proves that the one before it is whole.
                try self.sync(open.segment, &writing)
                state.withLock { $0.open(with: group) }
            }
            do throws(StorageError) {
                try GroupWriter.write(group, opening: opening, durable: durable, to: storage, buffer: writing.buffer)
            } catch { throw fence(.io(error)) }
            writing.isUnsynced = true
            state.withLock { $0.advance(past: group, successor: opening?.next) }
            if sync { try self.sync(group.place.life.segment, &writing) }
            return group.position
        }
    }

    /// Makes every group written so far durable. Blocks.
    /// - Throws: `.fenced`, `.io` (and from now on the log is fenced).
    public func sync() throws(LogError) {
        try writing.withLock { writing throws(LogError) in
            try syncOpenSegment(&writing)
        }
    }

    /// Makes every group durable, and notes in the superblock that it is: then recovery knows if the log's end is lost.
    /// Blocks. Afterwards nothing can be written: `.fenced`.
    /// - Throws: `.fenced`, `.io`.
    public func close() throws(LogError) {
        try writing.withLock { writing throws(LogError) in
            try syncOpenSegment(&writing)
            writing.superblock.sequence += 1
            writing.superblock.durable = durable
            do throws(LogError) { try writing.superblock.write(to: storage) } catch { throw fence(error) }
            state.withLock { $0.isFenced = true }
        }
    }

    private func syncOpenSegment(_ writing: inout Writing) throws(LogError) {
        let (segment, isFenced) = state.withLock { ($0.open.segment, $0.isFenced) }
        guard !isFenced else { throw .fenced }
        try sync(segment, &writing)
    }

    private func sync(_ segment: SegmentID, _ writing: inout Writing) throws(LogError) {
        guard writing.isUnsynced else { return }
        do { try storage.sync(segment) } catch { throw fence(.io(error)) }
        writing.isUnsynced = false
        state.withLock { $0.durable = $0.lsn }
    }

    /// Writes nothing any more, as after a failed write: `.fenced`. What is being written just now is finished.
    public func stop() { state.withLock { $0.isFenced = true } }

    /// What is on the disk after a failed write or sync is not known, and trying again could only seem to mend it:
    /// nothing is written any more.
    func fence(_ error: LogError) -> LogError {
        state.withLock { $0.isFenced = true }
        return error
    }
}
