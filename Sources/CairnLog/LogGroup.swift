public import CairnCore

/// Everything that one commit writes: chunk and patch records, and last the commit record. All of it counts, or nothing.
///
/// Building it copies and checksums nothing: locations are given out at once, the bytes are gathered by ``SegmentLog/write(_:sync:)``
/// off the shard's queue. So the slices must keep their content until then.
// Safety: held by one thread at a time: the shard's queue builds it, then the I/O queue writes it.
public final class LogGroup: @unchecked Sendable {
    /// Where a group goes, fixed when it is made: its records' locations follow from it.
    struct Place: Sendable {
        let life: SegmentLife
        let epoch: Epoch
        let seed: UInt32
        /// Bytes from the segment's start, a multiple of 4096.
        let offset: Int
        /// Whether the group is the first of its segment, and the segment's header is written with it.
        let opensSegment: Bool
        let lsn: LSN
        let purpose: GroupPurpose
    }

    /// What one group may hold.
    struct Room: Sendable {
        /// From the group's start to the segment's end.
        let segment: Int
        let records: Int
        let commit: Int

        /// Whether a group of so much fits, each record with its longest header and padding.
        func holds(used: Int, records count: Int, bytes: Int, commit length: Int) -> Bool {
            let ends = used + count * (Format.longestHeader + 8) + bytes
            let total = Format.align(ends + Format.recordHeader + length, to: Format.block)
            return ends - Format.groupHeader <= records && length <= commit && total <= segment
        }
    }

    struct Entry {
        let header: RecordHeader
        let bytes: BufferSlice
    }

    let place: Place
    private let room: Room
    private(set) var entries: [Entry] = []
    private(set) var commit: [UInt8]?
    /// Bytes from the group's start to the end of the last record appended, a multiple of 8.
    private(set) var end = Format.groupHeader

    init(place: Place, room: Room) {
        self.place = place
        self.room = room
    }

    /// The LSN that the group will have.
    public var lsn: LSN { place.lsn }

    /// Where the log will stand after this group. Traps unless it is finished.
    public var position: LogPosition {
        precondition(commit != nil)
        return LogPosition(
            lsn: place.lsn,
            epoch: place.epoch,
            segment: place.life.segment,
            offset: UInt32(place.offset + alignedLength)
        )
    }

    /// Whether no chunk or patch was appended.
    public var isEmpty: Bool { entries.isEmpty }

    /// Whether more fits, next to what was appended.
    /// - Parameters:
    ///   - records: how many more records.
    ///   - bytes: how many stored bytes they have in all.
    ///   - commit: how many bytes the commit record will have, everything counted.
    public func hasRoom(records: Int, bytes: Int, commit: Int) -> Bool {
        room.holds(used: end, records: records, bytes: bytes, commit: commit)
    }

    /// Appends a chunk record. Traps when there is no room.
    public func appendChunk(_ header: ChunkHeader, _ bytes: BufferSlice) -> RecordLocation {
        append(Entry(header: .chunk(header), bytes: bytes))
    }

    /// Appends a patch record. Traps when there is no room.
    public func appendPatch(_ header: PatchHeader, _ bytes: BufferSlice) -> RecordLocation {
        append(Entry(header: .patch(header), bytes: bytes))
    }

    private func append(_ entry: Entry) -> RecordLocation {
        precondition(commit == nil && hasRoom(records: 1, bytes: entry.bytes.count, commit: 0))
        let location = RecordLocation(
            segment: place.life.segment,
            offset: UInt32(place.offset + end),
            length: UInt32(entry.bytes.count),
            seed: place.seed
        )
        end += Format.align(RecordFormat.headerLength(entry.header) + entry.bytes.count, to: 8)
        entries.append(entry)
        return location
    }

    /// A point to go back to.
    public struct Savepoint: Sendable {
        fileprivate let count: Int
        fileprivate let end: Int
    }

    public var savepoint: Savepoint { Savepoint(count: entries.count, end: end) }

    /// Forgets what was appended after `savepoint`. Traps once the group is finished.
    public func rollback(to savepoint: Savepoint) {
        precondition(commit == nil && savepoint.count <= entries.count)
        entries.removeLast(entries.count - savepoint.count)
        end = savepoint.end
    }

    /// Appends the commit record: after that the group can be written, and nothing more be appended.
    /// - Throws: `.groupTooLarge`; the group is as it was.
    public func finish(commit: [UInt8]) throws(LogError) {
        precondition(self.commit == nil)
        guard hasRoom(records: 0, bytes: 0, commit: commit.count) else { throw .groupTooLarge }
        self.commit = commit
    }

    /// What a finished group takes of its segment.
    public var alignedLength: Int { Format.align(length, to: Format.block) }

    /// Header and records, without the zeros after them.
    var length: Int { end + Format.recordHeader + (commit?.count ?? 0) }
}
