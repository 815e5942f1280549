public import CairnCore

/// The log's limits.
public struct LogOptions: Sendable {
    /// The most bytes of segments on the disk; nil: as much as there is.
    public var capacity: UInt64?
    /// Free segments kept back for groups that free space, and for recovery: at least 2.
    public var reserve = 3
    /// Bytes that are left free beside the segments, where the storage tells what is free: for the index, which is on the same
    /// file system. Recovery alone may use them.
    public var leave: UInt64 = 0
    /// The most bytes of records in one group, if the segments are large enough (half of a segment is the limit).
    public var groupBytes = 16 << 20
    /// The most bytes of a group's commit record (a quarter of a segment is the limit).
    public var commitBytes = 8 << 20
    /// Where buffers for writing and reading come from.
    public var buffers: BufferPool = .shared
    public init() {}
}
