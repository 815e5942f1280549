public import CairnCore

/// Everything that one commit writes: chunk and patch records, and last the commit record. All of it counts, or nothing.
///
/// Building it copies and checksums nothing: locations are given out at once, the bytes are gathered by ``SegmentLog/write(_:sync:)``
/// off the shard's queue. So the slices must keep their content until then.
// Safety: held by one thread at a time: the shard's queue builds it, then the I/O queue writes it.
public final class LogGroup: @unchecked Sendable {
    /// The LSN that the group will have.
    public var lsn: LSN { fatalError() }
    /// Where the log will stand after this group; known once it is finished.
    public var position: LogPosition { fatalError() }
    /// Whether nothing was appended.
    public var isEmpty: Bool { fatalError() }
    /// Whether more fits, next to what was appended.
    /// - Parameters:
    ///   - records: how many more records.
    ///   - bytes: how many stored bytes they have in all.
    ///   - commit: how many bytes the commit record will have, everything counted.
    public func hasRoom(records: Int, bytes: Int, commit: Int) -> Bool { fatalError() }
    /// Appends a chunk record. Traps when there is no room.
    public func appendChunk(_ header: ChunkHeader, _ bytes: BufferSlice) -> RecordLocation { fatalError() }
    /// Appends a patch record. Traps when there is no room.
    public func appendPatch(_ header: PatchHeader, _ bytes: BufferSlice) -> RecordLocation { fatalError() }

    /// A point to go back to.
    public struct Savepoint: Sendable {}
    public var savepoint: Savepoint { fatalError() }
    /// Forgets what was appended after `savepoint`.
    public func rollback(to savepoint: Savepoint) { fatalError() }

    /// Appends the commit record: after that the group can be written.
    /// - Throws: `.groupTooLarge`; the group is as it was.
    public func finish(commit: [UInt8]) throws(LogError) { fatalError() }
}
