public import CairnCore
internal import Glibc

/// A group found by recovery, every record of it whole.
public struct RecoveredGroup: Sendable {
    /// Where the log stands after this group: what the index remembers with the commit's changes.
    public let position: LogPosition
    public let commit: BufferSlice
    /// Of the log, from the end of the group before.
    public let bytes: Int
}

/// Opens a shard's log: `init`, then ``next()`` until nil, then flush the index, then ``begin(durable:live:retention:)``.
/// It can be killed at any step, and run again. Not Sendable: for one thread.
public final class LogRecovery {
    /// Where the next group should be.
    struct Cursor {
        let segment: SegmentHeader
        var offset: Int
    }

    let storage: any SegmentStorage
    let superblock: Superblock
    let options: LogOptions
    let reader: GroupReader
    let from: LogPosition?
    /// What replay has read, with the last group in each: not to be overwritten before the epoch is raised.
    private(set) var visited: [SegmentID: (header: SegmentHeader, lastLSN: LSN?)] = [:]
    private(set) var last: LogPosition?
    private(set) var isAtEnd = false
    private var cursor: Cursor?

    /// Makes the log of a new shard: a superblock, no segments.
    /// - Parameter segmentSize: bytes of each segment, 1 MiB … 1 GiB, a multiple of 4096. Traps otherwise.
    /// - Throws: `.foreign` where there is a log already, `.io`.
    public static func format(
        _ storage: any SegmentStorage,
        identity: LogIdentity,
        segmentSize: Int
    ) throws(LogError) {
        precondition(Format.segmentSizes.contains(segmentSize) && segmentSize.isMultiple(of: Format.block))
        if let present = try Superblock.newest(in: storage) { throw .foreign(present.superblock.identity) }
        let superblock = Superblock(
            identity: identity,
            sequence: 1,
            epoch: Epoch(0),
            firstSegment: SegmentID(0),
            segmentSize: segmentSize,
            firstIncarnation: Incarnation(0),
            firstLSN: LSN.none.next,
            durable: .none
        )
        try superblock.write(to: storage)
    }

    /// Whether the log was made and never begun: so there is no index yet.
    /// - Throws: `.damaged(.superblock)`, `.unsupportedFormat`, `.foreign`, `.io`.
    public static func isNew(_ storage: any SegmentStorage, identity: LogIdentity) throws(LogError) -> Bool {
        try Superblock.read(from: storage, identity: identity).epoch == Epoch(0)
    }

    /// Reads the superblock and finds where to go on.
    /// - Parameter from: what the index holds durably; nil where it holds nothing.
    /// - Throws: `.damaged(.unknownPosition)` where the log does not continue from there, `.damaged` with `.superblock` or
    ///   `.segmentHeader`, `.unsupportedFormat`, `.foreign`, `.io`.
    public init(
        _ storage: any SegmentStorage,
        identity: LogIdentity,
        options: LogOptions,
        from: LogPosition?
    ) throws(LogError) {
        self.storage = storage
        self.options = options
        self.from = from
        last = from
        superblock = try Superblock.read(from: storage, identity: identity)
        reader = GroupReader(storage: storage, segmentSize: superblock.segmentSize, pool: options.buffers)
        cursor = try start()
    }

    /// A log that is taken to end at `end`, whatever it holds after that: for ``begin(durable:live:retention:)`` alone. What came
    /// after it is given up for good by that.
    public static func cut(
        _ storage: any SegmentStorage,
        identity: LogIdentity,
        options: LogOptions,
        at end: LogPosition?
    ) throws(LogError) -> LogRecovery {
        try LogRecovery(storage, identity: identity, options: options, end: end)
    }

    private init(
        _ storage: any SegmentStorage,
        identity: LogIdentity,
        options: LogOptions,
        end: LogPosition?
    ) throws(LogError) {
        self.storage = storage
        self.options = options
        from = end
        last = end
        isAtEnd = true
        superblock = try Superblock.read(from: storage, identity: identity)
        reader = GroupReader(storage: storage, segmentSize: superblock.segmentSize, pool: options.buffers)
    }

    private func start() throws(LogError) -> Cursor? {
        if let from, from.epoch == superblock.epoch, from.epoch > Epoch(0) {
            let header = try visit(from.segment)
            guard header.epoch == from.epoch, header.firstLSN <= from.lsn, from.offset >= Format.block,
                from.offset <= superblock.segmentSize, Int(from.offset).isMultiple(of: Format.block)
            else { throw .damaged(.unknownPosition(from)) }
            return Cursor(segment: header, offset: Int(from.offset))
        }
        // The index stands at the end of an earlier epoch, or at nothing: the present epoch must begin just there.
        guard from?.epoch ?? Epoch(0) <= superblock.epoch, expected == superblock.firstLSN else {
            throw .damaged(.unknownPosition(from))
        }
        guard superblock.epoch > Epoch(0) else { return nil }
        let header = try visit(superblock.firstSegment)
        guard header.epoch == superblock.epoch, header.life.incarnation == superblock.firstIncarnation,
            header.firstLSN == superblock.firstLSN
        else { throw .damaged(.segmentHeader(superblock.firstSegment)) }
        return Cursor(segment: header, offset: Format.block)
    }

    /// The LSN of the next group.
    private var expected: LSN { last?.lsn.next ?? LSN.none.next }

    /// The next group, or nil at the log's end (a torn tail ends it like any other).
    /// - Throws: `.damaged(.missingGroups)` where groups that were durable are not there or not whole, `.io`.
    public func next() throws(LogError) -> RecoveredGroup? {
        while let at = cursor {
            if let group = try reader.group(expected, in: at.segment, at: at.offset) {
                let segment = at.segment.life.segment
                let position = LogPosition(
                    lsn: expected,
                    epoch: superblock.epoch,
                    segment: segment,
                    offset: UInt32(group.end)
                )
                cursor?.offset = group.end
                visited[segment]?.lastLSN = position.lsn
                last = position
                return RecoveredGroup(position: position, commit: group.commit, bytes: group.end - at.offset)
            }
            cursor = try follow(at)
        }
        guard superblock.durable < expected else {
            throw .damaged(.missingGroups(from: expected, segment: last?.segment ?? superblock.firstSegment))
        }
        isAtEnd = true
        return nil
    }

    /// The successor's first group, once there are no more in this segment; nil where the successor was never opened.
    private func follow(_ end: Cursor) throws(LogError) -> Cursor? {
        let segment = end.segment
        let next = segment.next
        let missing = LogError.damaged(.missingGroups(from: expected, segment: segment.life.segment))
        let header = try header(of: next.segment)
        if let header, header.life == next, header.epoch == segment.epoch {
            // A segment is synced before its successor is opened: so everything up to there must have been found.
            guard header.firstLSN == expected, visited[next.segment] == nil else { throw missing }
            return Cursor(segment: try visit(next.segment), offset: Format.block)
        }
        // A later life in the same epoch: the life that was to come has been and gone, and is not to be had from here.
        if let header, header.epoch == segment.epoch, next.incarnation < header.life.incarnation { throw missing }
        // The tail of a crash, if no later group says that what is missing was durable.
        if try reader.wasDurable(expected, in: .init(segment), from: end.offset) { throw missing }
        if try reader.wasDurable(expected, in: .init(after: segment), from: Format.block) { throw missing }
        return nil
    }

    /// Reads a segment's header, and makes durable what is read from it: the last writer may have been killed before its
    /// sync, and the index must never know of a group that a power cut can still take away.
    private func visit(_ segment: SegmentID) throws(LogError) -> SegmentHeader {
        do { try storage.sync(segment) } catch {
            throw error.code == ENOENT ? .damaged(.segmentHeader(segment)) : .io(error)
        }
        guard let header = try header(of: segment) else { throw .damaged(.segmentHeader(segment)) }
        visited[segment] = (header, nil)
        return header
    }

    /// Nil where the header is damaged, or of another log. A segment that a header names was made before: it must be there.
    private func header(of segment: SegmentID) throws(LogError) -> SegmentHeader? {
        do throws(LogError) {
            return try SegmentHeader.read(segment, identity: superblock.identity, from: storage)
        } catch {
            if case .io(let failure) = error, failure.code == ENOENT { throw .damaged(.segmentHeader(segment)) }
            throw error
        }
    }
}
