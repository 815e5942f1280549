public import CairnCore

/// The log's limits.
public struct LogOptions: Sendable {
    /// The most bytes of segments on the disk; nil: as much as there is.
    public var capacity: UInt64?
    /// Free segments kept back for groups that free space, and for recovery: at least 2.
    public var reserve = 3
    /// The most bytes of records in one group, if the segments are large enough (half of a segment is the limit).
    public var groupBytes = 16 << 20
    /// The most bytes of a group's commit record (a quarter of a segment is the limit).
    public var commitBytes = 8 << 20
    /// Where buffers for writing and reading come from.
    public var buffers: BufferPool = .shared
    public init() {}
}
