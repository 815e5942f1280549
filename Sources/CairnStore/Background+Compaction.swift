import CairnCore
import CairnLog
import Logging

/// Emptying segments that hold few live records, so that what deletions freed between them is of use again.
extension Background {
    /// Bytes of records that one transaction moves: callers wait for no more than that.
    private static let moveBytes = 1 << 20
    private static let moveRecords = 256
    /// Bytes of index changes that one transaction makes: entries of many parts are long, and a commit must fit in a segment of
    /// the smallest size.
    private static let moveIndexBytes = 64 << 10
    /// Segments that one round empties: other work comes in between.
    private static let victimsPerRound = 4
    /// Nanoseconds.
    private static let longestRest: UInt64 = 8_000_000_000

    /// Empties the segments from which the most is to be gained.
    ///
    /// As long as there is space, only when a third of all that closed segments hold is dead, and then those of which at least half
    /// is: so a byte is written again once at the most for each byte that is freed. When space runs short, any from which an
    /// eighth can be gained; but where the log cannot go on to another segment, only as many as it takes for that, if all of them
    /// have room in the open one. What is left of it is else for deletions, the only way out.
    func compact() throws(StoreError) {
        for _ in 0..<Self.victimsPerRound {
            let isFull = shard.log.isFull
            if isFull, let packingRest, execution.uptime < packingRest.end { return }
            guard !isStopped, let victim = try nextVictim() else { return }
            let used = usedBytes
            try empty(victim)
            if isFull { notePacking(taking: usedBytes - used) }
            try reclaimSegments()
        }
    }

    /// On a full log: headers, commit records and the ends of groups and segments may take all that was to be gained, and what was moved
    /// would be moved again at once, without end. So after that there is a rest, each time a longer one.
    private func notePacking(taking: Int) {
        let size = shard.log.segmentSize
        guard taking > size - size / 16 else {
            packingRest = nil
            return
        }
        let length = min((packingRest?.length ?? 500_000_000) * 2, Self.longestRest)
        packingRest = (execution.uptime + length, length)
    }

    /// Closed segments, and what is written of the open one.
    private var usedBytes: Int {
        let log = shard.log
        return (log.segments.count { $0.use == .closed } + 1) * log.segmentSize - log.reclaimRoom.bytes
    }

    /// The closed segment with the least live bytes, if emptying it is worth it.
    private func nextVictim() throws(StoreError) -> SegmentID? {
        let closed = shard.log.segments.filter { $0.use == .closed }
        guard !closed.isEmpty else { return nil }
        let view = shard.makeView()
        var total: UInt64 = 0
        var candidates: [(segment: SegmentID, live: UInt64)] = []
        for segment in closed {
            // Without a record it holds nothing: that one is reclaimed as it is, now or when no copy of the index wants it.
            guard let bytes = try view.index.get(Key.segment(segment.id)) else { continue }
            let live = try SegmentRecord.decode(bytes).liveBytes
            // Tried before, and nothing of what held it back was healed or purged since.
            if let left = stubborn[segment.id], live >= left { continue }
            stubborn[segment.id] = nil
            total += live
            candidates.append((segment.id, live))
        }
        guard let least = candidates.min(by: { $0.live < $1.live }) else { return nil }
        let size = UInt64(shard.log.segmentSize)
        if shard.log.isFull {
            let room = shard.log.reclaimRoom
            let moved = candidates.map(\.live).sorted().prefix(room.missing).reduce(0, +)
            // Headers, commit records and the blocks that groups end with take room as well.
            guard
                room.missing == 0 || candidates.count >= room.missing && moved + moved / 8 + size / 8 <= room.bytes
            else { return nil }
            return least.live <= size / 8 * 7 ? least.segment : nil
        }
        let isWorthIt = total <= UInt64(candidates.count) * size / 3 * 2
        return isWorthIt && least.live <= size / 2 ? least.segment : nil
    }

    /// Moves the live records of a segment to the log's end.
    private func empty(_ segment: SegmentID) throws(StoreError) {
        var scan = try logCall { () throws(LogError) in try SegmentScan(segment, of: shard.log) }
        var moving = Moving()
        while let records = try logCall({ () throws(LogError) in try scan?.next() }) {
            let view = shard.makeView()
            for record in records {
                guard let cost = try view.costOfMoving(record) else { continue }
                moving.add(record, cost)
                // A group has room for half a segment of records.
                if moving.bytes >= min(Self.moveBytes, shard.log.segmentSize / 4)
                    || moving.records.count >= Self.moveRecords
                    || moving.indexBytes >= Self.moveIndexBytes
                {
                    try move(moving)
                    moving = Moving()
                }
            }
            if isStopped { return }
        }
        if !moving.records.isEmpty { try move(moving) }
        if let left = try shard.makeView().index.get(Key.segment(segment)) {
            // What is left is damaged: it cannot be moved, and trying again would not mend it. It stays, with its segment, until
            // it is healed or purged: what is left of its bytes may be all that there is.
            stubborn[segment] = try SegmentRecord.decode(left).liveBytes
            shard.logger.error(
                "a segment cannot be emptied: it holds damaged records",
                metadata: ["segment": "\(segment)"]
            )
        }
    }

    private func move(_ moving: Moving) throws(StoreError) {
        let count = moving.records.count
        try change(records: count, bytes: moving.bytes, entries: count + moving.indexBytes / 384, reclaims: true) {
            (transaction) throws(StoreError) in try transaction.moveRecords(moving.records)
        }
    }
}

/// Records on their way to another segment.
// Safety: never changed once they are on their way; the bytes of records that were read are not written again.
private struct Moving: @unchecked Sendable {
    private(set) var records: [Record] = []
    private(set) var bytes = 0
    private(set) var indexBytes = 0
    private var places: Set<PatchedPlace> = []

    mutating func add(_ record: Record, _ cost: ManifestReader.MoveCost) {
        records.append(record)
        bytes += record.bytes.count
        if let place = cost.place, !places.insert(place).inserted { return }
        indexBytes += cost.bytes
    }
}
