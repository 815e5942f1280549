/// Why the log did not do what was asked.
public enum LogError: Error, Hashable, Sendable {
    /// The storage failed. After a failed write or sync the log is fenced.
    case io(StorageError)
    /// There is no space for another segment; nothing was written and the log goes on. Groups that free space may still fit.
    case full
    /// An earlier write or sync failed, so what is on the disk is not known: only reads work until the log is recovered.
    case fenced
    /// What must be there is not, or fails its checksum.
    case damaged(Damage)
    /// The segment has been recycled since the location was given out.
    case recycled(RecordLocation)
    /// A newer Cairn wrote this; the format version found.
    case unsupportedFormat(UInt32)
    /// The superblock belongs to another store or shard.
    case foreign(LogIdentity)
    /// The group's records and commit exceed what one group may hold.
    case groupTooLarge
}

/// What is damaged.
public enum Damage: Hashable, Sendable {
    case superblock
    case segmentHeader(SegmentID)
    case record(RecordLocation)
    /// Groups from this LSN on were durable, and are missing or torn; the segment where they should be.
    case missingGroups(from: LSN, segment: SegmentID)
    /// The index stands at a position that this log does not continue from.
    case unknownPosition(LogPosition?)
}

/// Why a storage engine failed.
public struct StorageError: Error, Hashable, Sendable {
    public enum Operation: String, Hashable, Sendable {
        case create, open, write, sync, read, list, delete, readSuperblock, writeSuperblock
    }
    public let operation: Operation
    /// The errno, or the engine's nearest.
    public let code: Int32
    public let segment: SegmentID?
    public init(operation: Operation, code: Int32, segment: SegmentID? = nil) {
        self.operation = operation
        self.code = code
        self.segment = segment
    }
}

extension StorageError: CustomStringConvertible {
    public var description: String {
        let place = segment.map { " segment \($0)" } ?? ""
        return "\(operation.rawValue)\(place): errno \(code)"
    }
}
