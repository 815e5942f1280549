internal import CairnCore

extension LogRecovery {
    /// Raises the epoch durably and starts a new segment. Call it once, after ``next()`` gave nil and the index was flushed.
    ///
    /// Until the superblock is written, nothing is touched that running the recovery again would need: the new epoch's first
    /// segment is one that replay did not read. Afterwards the old epoch's segments are needed only for their live records.
    /// - Parameters:
    ///   - durable: what the index holds durably now: the last group's position, or what was given to `init` where there was none.
    ///     Traps where it is another.
    ///   - live: every segment that holds something the index names.
    ///   - retention: what else must stay. All other segments are free from now on.
    /// - Throws: `.full` where there is no space for the segments needed (nothing is changed then), `.io`.
    public func begin(durable: LogPosition?, live: Set<SegmentID>, retention: LogRetention = .none) throws(LogError)
        -> SegmentLog
    {
        precondition(isAtEnd, "replay is not at the log's end")
        precondition(durable == last, "the index must be flushed before the epoch is raised")
        var segments = try listSegments(live: live, retention)
        let (first, second) = try firstSegments(&segments)
        let header = SegmentHeader(
            identity: superblock.identity,
            life: first,
            epoch: superblock.epoch.next,
            next: second,
            firstLSN: last?.lsn.next ?? superblock.firstLSN
        )
        try write(header)

        var raised = superblock
        raised.sequence += 1
        raised.epoch = header.epoch
        raised.firstSegment = first.segment
        raised.firstIncarnation = first.incarnation
        raised.firstLSN = header.firstLSN
        raised.durable = last?.lsn ?? .none
        try raised.write(to: storage)

        let state = LogState(
            header: header,
            segmentSize: superblock.segmentSize,
            options: options,
            position: last,
            segments: segments
        )
        let log = SegmentLog(storage, superblock: raised, state: state, pool: options.buffers)
        do { try log.fillReserve() } catch .full {
            log.state.withLock { $0.isFull = $0.free.count < SegmentLog.recoveryReserve }
        }
        return log
    }

    private func listSegments(live: Set<SegmentID>, _ retention: LogRetention) throws(LogError)
        -> [SegmentID: LogState.Segment]
    {
        let listed: [SegmentID]
        do { listed = try storage.list() } catch { throw .io(error) }
        var segments: [SegmentID: LogState.Segment] = [:]
        for segment in listed {
            let seen = visited[segment]
            var header = seen?.header
            if header == nil, retention != .none, !live.contains(segment) {
                header = try SegmentHeader.read(segment, identity: superblock.identity, from: storage)
            }
            let isKept =
                header.map { holdsGroups($0) } ?? false
                && retention.needs(segment, first: header?.firstLSN, last: seen?.lastLSN)
            let isFree = !live.contains(segment) && !isKept
            segments[segment] = LogState.Segment(
                use: isFree ? .free : .closed,
                firstLSN: header?.firstLSN,
                lastLSN: seen?.lastLSN,
                life: seen.map { ($0.header.life.incarnation, $0.header.seed) }
            )
        }
        for segment in live where segments[segment] == nil {
            segments[segment] = LogState.Segment(use: .closed, isMissing: true)
        }
        return segments
    }

    /// Whether a segment may hold groups that count. One that began where a later epoch did has none: that epoch's recovery found
    /// nothing there. So restarts without a write leave no segments behind that must stay.
    private func holdsGroups(_ header: SegmentHeader) -> Bool {
        let end = last?.lsn.next ?? LSN.none.next
        return header.firstLSN < (header.epoch < superblock.epoch ? min(superblock.firstLSN, end) : end)
    }

    /// The segment that begins the epoch, and its successor. The first is overwritten at once, so replay must not need it;
    /// the second is only named now, and not touched before the superblock is written.
    private func firstSegments(
        _ segments: inout [SegmentID: LogState.Segment]
    ) throws(LogError) -> (SegmentLife, SegmentLife) {
        let free = segments.filter { $0.value.use == .free }.keys.sorted()
        let untouched = free.filter { visited[$0] == nil }
        let first = if let segment = untouched.first { segment } else { try create(&segments) }
        let others = untouched.dropFirst() + free.filter { visited[$0] != nil }
        let second = if let segment = others.first { segment } else { try create(&segments) }
        return (try life(of: first, segments), try life(of: second, segments))
    }

    private func life(of segment: SegmentID, _ segments: [SegmentID: LogState.Segment]) throws(LogError) -> SegmentLife
    {
        try SegmentLog.nextLife(of: segment, known: segments[segment]?.life?.incarnation, superblock.identity, storage)
    }

    private func create(_ segments: inout [SegmentID: LogState.Segment]) throws(LogError) -> SegmentID {
        let bytes = UInt64(segments.count + 1) * UInt64(superblock.segmentSize)
        guard bytes <= options.capacity ?? .max else { throw .full }
        let segment = SegmentID((segments.keys.max()?.rawValue ?? 0) + 1)
        try SegmentLog.create(segment, size: superblock.segmentSize, storage)
        segments[segment] = LogState.Segment(use: .free)
        return segment
    }

    private func write(_ header: SegmentHeader) throws(LogError) {
        let buffer = options.buffers.buffer(capacity: Format.block)
        defer { withExtendedLifetime(buffer) {} }
        buffer.memory.copyBytes(from: header.bytes)
        buffer.count = Format.block
        do {
            try storage.write(header.life.segment, at: 0, buffer.bytes)
            try storage.sync(header.life.segment)
        } catch { throw .io(error) }
    }
}
