import CairnCore

/// What a group is for.
public enum GroupPurpose: Sendable {
    /// Anything.
    case normal
    /// Deletions and the like: may use the reserve.
    case reclaim
}

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

/// A shard's log of groups, in segments.
public final class SegmentLog: Sendable {
    /// Of each segment, in bytes.
    public var segmentSize: Int { fatalError() }
    public var epoch: Epoch { fatalError() }
    /// After the last group written; nil where there has never been one.
    public var position: LogPosition? { fatalError() }
    /// Every group up to here is durable.
    public var durable: LSN { fatalError() }
    public var isFenced: Bool { fatalError() }

    // MARK: writing (build on the shard's queue, write on its I/O queue; one group at a time)

    /// A group at the log's end. Only the last one made can be written; one that is not wanted is just dropped.
    /// - Parameters:
    ///   - records, bytes, commit: what the group must have room for, as in ``LogGroup/hasRoom(records:bytes:commit:)``.
    ///     Where the open segment has no room for it, the group begins the next one.
    /// - Throws: `.fenced`; `.full` while ``isFull``, for a `.normal` group; `.groupTooLarge`.
    public func makeGroup(for purpose: GroupPurpose, records: Int, bytes: Int, commit: Int) throws(LogError) -> LogGroup { fatalError() }

    /// Writes a finished group. Blocks.
    /// - Parameter sync: whether it, and all before it, shall be durable on return.
    /// - Throws: `.full` (nothing was written, the log goes on), `.fenced`, `.io` (and from now on the log is fenced).
    public func write(_ group: LogGroup, sync: Bool) throws(LogError) -> LogPosition { fatalError() }

    /// Makes every group written so far durable. Blocks.
    public func sync() throws(LogError) { fatalError() }

    /// Syncs, and notes in the superblock that everything up to here is durable. Blocks. No writes after it.
    public func close() throws(LogError) { fatalError() }

    // MARK: reading (any thread)

    /// The most bytes that ``read(_:)`` brings in for one location.
    public func read(_ location: RecordLocation) throws(LogError) -> Record { fatalError() }
    /// Reads many, in the order given; adjacent ones are read together, so sorted locations are cheaper.
    /// - Throws: `.damaged(.record)` or `.recycled` for the first that fails, `.io`.
    public func read(_ locations: [RecordLocation]) throws(LogError) -> [Record] { fatalError() }

    // MARK: space

    /// Whether only `.reclaim` groups are taken.
    public var isFull: Bool { fatalError() }
    /// Every segment, in no order.
    public var segments: [SegmentState] { fatalError() }
    /// Gives a closed segment without live records and without readers back for use.
    /// - Parameter checkpoint: what the index holds durably. Traps where the segment is not closed, or is not wholly before it.
    public func recycle(_ segment: SegmentID, checkpoint: LogPosition) { fatalError() }
    /// Tries to fill the reserve up again, and so to end ``isFull``. Blocks: for the I/O queue, after ``recycle(_:checkpoint:)`` or now and then.
    public func refill() throws(LogError) { fatalError() }
    /// Deletes free segments beyond the reserve and `spare` more. Blocks.
    public func trim(spare: Int) throws(LogError) { fatalError() }
}
