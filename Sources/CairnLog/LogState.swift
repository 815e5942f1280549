internal import CairnCore

/// What the log knows in memory: which segments there are, where the next group goes, what is durable. No I/O.
struct LogState: Sendable {
    struct Segment: Sendable {
        var use: SegmentState.Use
        var firstLSN: LSN?
        var lastLSN: LSN?
        /// Its present life, if it was opened, found by recovery, or read after a read that failed, since the log was opened.
        var life: (incarnation: Incarnation, seed: UInt32)?
        /// Whether the index names it, and the storage does not have it: what it held is lost.
        var isMissing = false
    }

    let identity: LogIdentity
    let segmentSize: Int
    let epoch: Epoch
    let capacity: UInt64?
    let leave: UInt64
    let reserve: Int
    let recordLimit: Int
    let commitLimit: Int

    /// Where groups go now, and the offset for the next one.
    private(set) var open: SegmentLife
    private(set) var end: Int
    /// Where they go when that is full.
    private(set) var next: SegmentLife
    private(set) var lsn: LSN
    /// The first group of this epoch.
    let began: LSN
    private(set) var position: LogPosition?
    var durable: LSN
    var isFenced = false
    var isFull = false

    private(set) var segments: [SegmentID: Segment]
    private(set) var free: [SegmentID]
    /// IDs are not used twice while the log is open: a new segment has no header that tells its last incarnation.
    private var lastID: UInt32

    /// A log that has just begun an epoch.
    init(
        header: SegmentHeader,
        segmentSize: Int,
        options: LogOptions,
        position: LogPosition?,
        segments: [SegmentID: Segment]
    ) {
        identity = header.identity
        self.segmentSize = segmentSize
        epoch = header.epoch
        capacity = options.capacity
        leave = options.leave
        reserve = max(options.reserve, 2)
        recordLimit = min(options.groupBytes, segmentSize / 2)
        commitLimit = min(options.commitBytes, segmentSize / 4)
        open = header.life
        end = Format.block
        next = header.next
        lsn = position?.lsn ?? .none
        began = header.firstLSN
        self.position = position
        durable = position?.lsn ?? .none
        self.segments = segments
        self.segments[header.life.segment] = Segment(
            use: .open,
            firstLSN: header.firstLSN,
            life: (header.life.incarnation, header.seed)
        )
        self.segments[header.next.segment]?.use = .next
        free = self.segments.filter { $0.value.use == .free }.keys.sorted(by: >)
        lastID = segments.keys.max()?.rawValue ?? 0
    }

    // MARK: groups

    /// Where a group goes that has room for so much.
    func makeGroup(_ purpose: GroupPurpose, records: Int, bytes: Int, commit: Int) throws(LogError) -> LogGroup {
        guard !isFenced else { throw .fenced }
        guard purpose == .reclaim || !isFull else { throw .full }
        func group(in life: SegmentLife, at offset: Int, opensSegment: Bool) -> LogGroup? {
            let room = LogGroup.Room(segment: segmentSize - offset, records: recordLimit, commit: commitLimit)
            guard room.holds(used: Format.groupHeader, records: records, bytes: bytes, commit: commit) else {
                return nil
            }
            let seed = Format.seed(identity, life.segment, life.incarnation, epoch)
            let place = LogGroup.Place(
                life: life,
                epoch: epoch,
                seed: seed,
                offset: offset,
                opensSegment: opensSegment,
                lsn: lsn.next,
                purpose: purpose
            )
            return LogGroup(place: place, room: room)
        }
        if let group = group(in: open, at: end, opensSegment: false) { return group }
        guard let group = group(in: next, at: Format.block, opensSegment: true) else { throw .groupTooLarge }
        return group
    }

    /// Traps where the group is not the last that was made.
    func check(_ group: LogGroup) throws(LogError) {
        guard !isFenced else { throw .fenced }
        let place = group.place
        precondition(place.lsn == lsn.next && place.epoch == epoch, "another group was written since this one was made")
        precondition(place.opensSegment ? place.life == next : place.life == open && place.offset == end)
    }

    /// The segment that a group opens is about to be overwritten: what it held is gone from now on.
    mutating func open(with group: LogGroup) {
        segments[group.place.life.segment]?.life = (group.place.life.incarnation, group.place.seed)
        segments[group.place.life.segment]?.firstLSN = group.lsn
        segments[group.place.life.segment]?.lastLSN = nil
    }

    /// What was read of a segment; its life is known already where it was opened meanwhile.
    mutating func note(_ header: SegmentHeader) {
        guard segments[header.life.segment]?.life == nil else { return }
        segments[header.life.segment]?.life = (header.life.incarnation, header.seed)
    }

    /// What the segment's header tells.
    mutating func note(_ segment: SegmentID, firstLSN: LSN?) { segments[segment]?.firstLSN = firstLSN }

    /// The group is written.
    /// - Parameter successor: what the header of the segment that it opened names as the next.
    mutating func advance(past group: LogGroup, successor: SegmentLife?) {
        if let successor {
            segments[open.segment]?.use = .closed
            open = next
            next = successor
            segments[successor.segment]?.use = .next
        }
        end = Int(group.position.offset)
        lsn = group.lsn
        position = group.position
        segments[open.segment]?.use = .open
        segments[open.segment]?.lastLSN = lsn
    }

    // MARK: space

    /// The ID for another segment; nil where the capacity allows none.
    mutating func nameSegment() -> SegmentID? {
        let bytes = UInt64(segments.count + 1) * UInt64(segmentSize)
        guard bytes <= capacity ?? .max else { return nil }
        lastID += 1
        return SegmentID(lastID)
    }

    mutating func add(_ segment: SegmentID) {
        segments[segment] = Segment(use: .free)
        release(segment)
    }

    private mutating func release(_ segment: SegmentID) {
        segments[segment]?.use = .free
        free.append(segment)
        if free.count > reserve { isFull = false }
    }

    /// A free segment, if more than `floor` are free.
    mutating func take(above floor: Int) -> SegmentID? {
        free.count > floor ? free.popLast() : nil
    }

    mutating func recycle(_ segment: SegmentID, checkpoint: LogPosition) {
        guard let state = segments[segment], state.use == .closed else {
            preconditionFailure("segment \(segment) is not closed")
        }
        precondition(segment != checkpoint.segment, "replay would begin in segment \(segment)")
        precondition(state.lastLSN.map { $0 <= checkpoint.lsn } ?? true, "replay would need segment \(segment)")
        if state.isMissing { segments[segment] = nil } else { release(segment) }
    }

    /// Takes free segments beyond `keep` out of the log.
    mutating func trim(keep: Int) -> [SegmentID] {
        let doomed = Array(free.dropLast(min(keep, free.count)))
        free.removeFirst(doomed.count)
        for segment in doomed { segments[segment] = nil }
        return doomed
    }
}
