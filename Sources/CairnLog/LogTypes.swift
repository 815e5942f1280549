public import CairnCore

/// The place of a group in the order of everything that a shard has committed: 1, 2, 3 … without a gap.
public struct LSN: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    /// Before the first group.
    public static let none = LSN(0)
    public var next: LSN { LSN(rawValue + 1) }
    public var description: String { String(rawValue) }
    public static func < (left: LSN, right: LSN) -> Bool { left.rawValue < right.rawValue }
}

/// Counts the recoveries of a shard: each one raises it, so that nothing written before can pass for something written after.
public struct Epoch: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public var next: Epoch { Epoch(rawValue + 1) }
    public var description: String { String(rawValue) }
    public static func < (left: Epoch, right: Epoch) -> Bool { left.rawValue < right.rawValue }
}

/// Names a segment of one shard: 1, 2, 3 …
public struct SegmentID: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt32
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
    public var description: String { String(rawValue) }
    public static func < (left: SegmentID, right: SegmentID) -> Bool { left.rawValue < right.rawValue }
}

/// Counts the lives of a segment: raised each time that a recycled one is opened again.
public struct Incarnation: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public var next: Incarnation { Incarnation(rawValue + 1) }
    public var description: String { String(rawValue) }
    public static func < (left: Incarnation, right: Incarnation) -> Bool { left.rawValue < right.rawValue }
}

/// Whose log it is. A segment or superblock of another store or shard is refused.
public struct LogIdentity: Hashable, Sendable {
    public let store: UUID128
    public let shard: ShardIndex
    public init(store: UUID128, shard: ShardIndex) {
        self.store = store
        self.shard = shard
    }
}

/// The point in the log just after a group: what an index remembers as applied, and where replay goes on.
public struct LogPosition: Hashable, Sendable, CustomStringConvertible {
    /// The group.
    public let lsn: LSN
    public let epoch: Epoch
    public let segment: SegmentID
    /// Bytes from the segment's start to the end of the group, a multiple of 4096.
    public let offset: UInt32
    public init(lsn: LSN, epoch: Epoch, segment: SegmentID, offset: UInt32) {
        self.lsn = lsn
        self.epoch = epoch
        self.segment = segment
        self.offset = offset
    }
    public var description: String { "LSN \(lsn), epoch \(epoch), segment \(segment) at \(offset)" }
}

/// Where a chunk or patch record lies: everything that reading and checking it takes. 16 bytes when stored.
public struct RecordLocation: Hashable, Sendable, CustomStringConvertible {
    public let segment: SegmentID
    /// Bytes from the segment's start to the record's header, a multiple of 8.
    public let offset: UInt32
    /// Stored (perhaps compressed) bytes, the record's header not counted.
    public let length: UInt32
    /// Stands for the segment's life: store, shard, segment, incarnation and epoch (see FORMAT.md). The record's checksum
    /// begins with it, so a record that a recycled segment holds at the same place does not fit.
    public let seed: UInt32
    public init(segment: SegmentID, offset: UInt32, length: UInt32, seed: UInt32) {
        self.segment = segment
        self.offset = offset
        self.length = length
        self.seed = seed
    }
    public var description: String { "segment \(segment) at \(offset), \(length) bytes" }
}
