public import CairnCore

/// A group found by recovery, every record of it whole.
public struct RecoveredGroup: Sendable {
    /// Where the log stands after this group: what the index remembers with the commit's changes.
    public let position: LogPosition
    public let commit: BufferSlice
}

/// Opens a shard's log: `init`, then ``next()`` until nil, then flush the index, then ``begin(durable:live:)``.
/// It can be killed at any step, and run again.
// Safety: none needed: not Sendable, used by one thread.
public final class LogRecovery {
    /// Makes the log of a new shard: an empty superblock.
    /// - Parameter segmentSize: bytes of each segment, 1 MiB … 1 GiB, a multiple of 4096.
    public static func format(_ storage: some SegmentStorage, identity: LogIdentity, segmentSize: Int) throws(LogError) { fatalError() }

    /// Reads the superblock and finds where to go on.
    /// - Parameter from: what the index holds durably; nil where it holds nothing.
    /// - Throws: `.damaged(.unknownPosition)` where the log does not continue from there, `.damaged(.superblock)`, `.unsupportedFormat`, `.foreign`, `.io`.
    public init(_ storage: some SegmentStorage, identity: LogIdentity, options: LogOptions, from: LogPosition?) throws(LogError) { fatalError() }

    /// The next group, or nil at the log's end (a torn tail ends it like any other).
    /// - Throws: `.damaged` where groups that were durable are missing, `.io`.
    public func next() throws(LogError) -> RecoveredGroup? { fatalError() }

    /// Raises the epoch durably and starts a new segment. Call it once, after ``next()`` gave nil and the index was flushed.
    /// - Parameters:
    ///   - durable: what the index holds durably now: the last group's position, or what was given to `init` where there was none.
    ///   - live: every segment that holds something the index names. All others are free from now on.
    /// - Throws: `.full` where there is no space for the segments needed, `.io`.
    public func begin(durable: LogPosition?, live: Set<SegmentID>) throws(LogError) -> SegmentLog { fatalError() }
}
