public import CairnCore

/// Reads a log group by group from any position that an index ever stood at, across epochs: what `cairnd repair` replays.
///
/// It tells rot from a torn end as far as the format allows (FORMAT.md, "What counts"), and where a group is damaged that must have
/// been whole, it still looks for its commit record: if that is whole, only records are lost, which reading finds.
public final class LogTail {
    public struct Group: Sendable {
        public let position: LogPosition
        public let commit: BufferSlice
        /// Of the log, from the end of the group before in the segment.
        public let bytes: Int
        /// Whether some of its records, or its header, are damaged.
        public let isDamaged: Bool
    }

    /// Commits that were durable and are not to be had any more.
    public struct Loss: Hashable, Sendable {
        /// LSNs from the first that is missing to the last that the log is known to have had.
        public let lsns: ClosedRange<LSN>
        /// Where the first one should be, if that is known.
        public let segment: SegmentID?
        /// How many those are.
        public var count: UInt64 { lsns.upperBound.rawValue - lsns.lowerBound.rawValue + 1 }
    }

    public enum Step: Sendable {
        case group(Group)
        /// The log's end. What may lie behind it was never known to be durable.
        case end
        case loss(Loss)
    }

    private let survey: LogSurvey
    private let reader: GroupReader
    private var epoch: Epoch
    private var cursor: (segment: SegmentHeader, offset: Int)?
    /// After the last group given; before the first, where it began.
    public private(set) var position: LogPosition?

    /// - Parameter from: where an index stands; nil for before the first group.
    /// - Throws: `.damaged(.unknownPosition)` where the log does not go on from there.
    public init(_ storage: any SegmentStorage, _ survey: LogSurvey, from: LogPosition?) throws(LogError) {
        self.survey = survey
        reader = GroupReader(storage: storage, segmentSize: survey.superblock.segmentSize, pool: .shared)
        position = from
        epoch = from?.epoch ?? Epoch(0)
        let end = survey.end(of: epoch)
        guard epoch <= survey.epoch, end.map({ $0 >= expected }) ?? true else {
            throw .damaged(.unknownPosition(from))
        }
        guard let from, end != expected else {
            guard from != nil || end == nil || end == expected else { throw .damaged(.unknownPosition(from)) }
            return
        }
        guard let header = survey.headers[from.segment] else { return }
        guard header.epoch == from.epoch, header.firstLSN <= from.lsn, Int(from.offset).isMultiple(of: Format.block),
            (Format.block...survey.superblock.segmentSize).contains(Int(from.offset))
        else { throw .damaged(.unknownPosition(from)) }
        cursor = (header, Int(from.offset))
    }

    private var expected: LSN { position?.lsn.next ?? LSN.none.next }

    /// The next group, the log's end, or the first loss: after the latter two there is nothing more.
    /// - Throws: `.io`.
    public func next() throws(LogError) -> Step {
        while true {
            let end = survey.end(of: epoch)
            if end == expected {
                guard try enterEpoch() else { return .loss(loss(in: nil)) }
                continue
            }
            guard let at = cursor else {
                return epoch == Epoch(0) ? .end : .loss(loss(in: position?.segment))
            }
            if let group = try reader.group(expected, in: at.segment, at: at.offset) {
                return .group(advance(to: group.end, group.commit, isDamaged: false))
            }
            let next = at.segment.next
            let successor = survey.headers[next.segment]
            let isOpened = successor.map { $0.life == next && $0.epoch == epoch } ?? false
            if isOpened, let successor, successor.firstLSN == expected {
                cursor = (successor, Format.block)
                continue
            }
            var isProven = end != nil || isOpened
            if !isProven { isProven = try wasDurable(at) }
            guard isProven else { return .end }
            if let group = try reader.commitAlone(expected, in: at.segment, from: at.offset) {
                return .group(advance(to: group.end, group.commit, isDamaged: true))
            }
            return .loss(loss(in: at.segment.life.segment))
        }
    }

    private func advance(to end: Int, _ commit: BufferSlice, isDamaged: Bool) -> Group {
        let at = cursor!
        let reached = LogPosition(
            lsn: expected,
            epoch: epoch,
            segment: at.segment.life.segment,
            offset: UInt32(end)
        )
        position = reached
        cursor = (at.segment, end)
        return Group(position: reached, commit: commit, bytes: end - at.offset, isDamaged: isDamaged)
    }

    /// Goes to the epoch that begins with the next LSN. False where its first segment is not to be had.
    private func enterEpoch() throws(LogError) -> Bool {
        guard let next = survey.beginnings(at: expected, after: epoch) else { return false }
        epoch = next.epoch
        cursor = next.segments.first.map { ($0, Format.block) }
        for header in next.segments where next.segments.count > 1 {
            // A start that was cut short left a header too: groups follow only one of them.
            if try reader.group(expected, in: header, at: Format.block) != nil { cursor = (header, Format.block) }
        }
        return cursor != nil
    }

    /// Whether the log says anywhere that the missing group was durable.
    private func wasDurable(_ at: (segment: SegmentHeader, offset: Int)) throws(LogError) -> Bool {
        if survey.superblock.durable >= expected { return true }
        let segment = at.segment
        let next = survey.headers[segment.next.segment]
        // A later life in the same epoch: the life that was to come has been and gone.
        if let next, next.epoch == epoch, segment.next.incarnation < next.life.incarnation { return true }
        if try reader.wasDurable(expected, in: .init(segment), from: at.offset) { return true }
        guard survey.segments.contains(segment.next.segment) else { return false }
        return try reader.wasDurable(expected, in: .init(after: segment), from: Format.block)
    }

    /// From the next LSN to the last that anything on the disk names.
    private func loss(in segment: SegmentID?) -> Loss {
        var last = max(survey.superblock.durable, expected)
        var latest: SegmentHeader?
        for header in survey.headers.values where header.epoch >= epoch && header.epoch <= survey.epoch {
            if header.firstLSN > LSN.none.next { last = max(last, LSN(header.firstLSN.rawValue - 1)) }
            if latest.map({ ($0.epoch, $0.firstLSN) < (header.epoch, header.firstLSN) }) ?? true { latest = header }
        }
        for header in [latest, cursor?.segment].compactMap(\.self) {
            if let found = try? reader.lastLSN(in: header) { last = max(last, found) }
        }
        return Loss(lsns: expected...last, segment: segment)
    }
}

extension GroupReader {
    /// The commit record of a group of which something is damaged, looked for wherever it may be up to the next group's beginning.
    /// Only for a group that must have been whole: of one that a crash cut short it must not count.
    func commitAlone(_ lsn: LSN, in segment: SegmentHeader, from offset: Int) throws(LogError) -> (
        commit: BufferSlice, end: Int
    )? {
        let length = try nextGroup(in: segment, after: offset) - offset
        let buffer = pool.buffer(capacity: length)
        defer { withExtendedLifetime(buffer) {} }
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<length])
        buffer.count = try storage.fill(target, from: segment.life.segment, at: offset)
        for start in stride(from: Format.groupHeader, to: buffer.count - Format.recordHeader, by: 8)
        where buffer.bytes[start + 4] == RecordFormat.Kind.commit.rawValue {
            let rest = UnsafeRawBufferPointer(rebasing: buffer.bytes[start...])
            guard let record = RecordFormat.decode(rest), record.header == nil, record.lsn == lsn,
                RecordFormat.isWhole(record, rest, seed: segment.seed)
            else { continue }
            let end = start + record.headerLength + record.storedLength
            let commit = BufferSlice(buffer: buffer, range: start + record.headerLength..<end)
            return (commit, offset + Format.align(end, to: Format.block))
        }
        return nil
    }

    /// Where the next whole group header after `offset` is, or the segment's end.
    private func nextGroup(in segment: SegmentHeader, after offset: Int) throws(LogError) -> Int {
        var found: Int?
        try forEachGroup(in: Life(segment), from: offset + Format.block) { at, _ in
            found = at
            return false
        }
        return found ?? segmentSize
    }

    /// The highest LSN of a group header in this life of the segment.
    func lastLSN(in segment: SegmentHeader) throws(LogError) -> LSN? {
        var last: LSN?
        try forEachGroup(in: Life(segment), from: Format.block) { _, header in
            last = max(last ?? header.lsn, header.lsn)
            return true
        }
        return last
    }
}
