import CairnCore
import Testing

@testable import CairnLog

/// Recycled segments still hold their last life's groups: none may ever pass for one of this life.
@Suite struct StaleTests {
    /// Fills segments with groups of one size, and recycles each at once, so that old groups lie exactly where new ones go.
    private func round(_ log: SegmentLog, _ index: inout ModelIndex, groups: Int) throws {
        for _ in 0..<groups {
            let commit = [
                UInt8(truncatingIfNeeded: index.commits.count), UInt8(truncatingIfNeeded: index.commits.count >> 8),
            ]
            index.position = try write(log, bytes: 200_000, commit: commit).position
            index.commits.append(commit)
            for segment in log.segments where segment.use == .closed && segment.id != index.position!.segment {
                log.recycle(segment.id, checkpoint: index.position!)
            }
        }
    }

    @Test func recycledSegmentsNeverGiveOldGroups() throws {
        let storage = SimulatedStorage()
        var index = ModelIndex()
        var log = try newLog(storage)
        try round(log, &index, groups: 60)
        let segments = log.segments.count
        #expect(segments <= 7)
        for _ in 0..<25 {
            // Two crashes in a row, the second right after recovery; the index is as new as it can be.
            for _ in 0..<2 {
                let commits = index.commits
                log = try recover(storage, &index)
                #expect(index.commits == commits)
            }
            try round(log, &index, groups: 7)
        }
        #expect(log.segments.count <= segments + 2)
    }

    /// The index stays behind, so that all of this epoch is replayed, with stale groups of the last epoch after its end.
    @Test func aDiscardedTailOfAnEarlierEpochStaysDiscarded() throws {
        let storage = SimulatedStorage()
        var index = ModelIndex()
        let log = try newLog(storage)
        try write(log, bytes: 1000, commit: [1])
        let first = try write(log, bytes: 1000, commit: [2]).position
        try write(log, bytes: 1000, commit: [3])
        // LSN 2 is lost with all after it; LSN 3 is still there, whole. (`durable` of group 3 would call it damage, so it goes.)
        storage.overwrite(first.segment, at: Int(first.offset) - 4096, [UInt8](repeating: 0, count: 512))
        let third = storage.bytes(first.segment)[Int(first.offset)..<Int(first.offset) + 4096]
        storage.overwrite(first.segment, at: Int(first.offset), [UInt8](repeating: 0, count: 4096))
        let second = try recover(storage, &index)
        #expect(index.commits == [[1]])
        try write(second, bytes: 1000, commit: [22])
        // The old LSN 3 turns up where the new one would be.
        let end = second.position!
        storage.overwrite(end.segment, at: Int(end.offset), Array(third))
        _ = try recover(storage, &index)
        #expect(index.commits == [[1], [22]])
    }

    @Test func readersAreToldOfARecycledSegment() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let old = try write(log, bytes: 524_000, commit: [1])
        let position = try write(log, bytes: 524_000, commit: [2]).position
        #expect(try log.read(old.location).bytes.count == 524_000)
        log.recycle(old.location.segment, checkpoint: position)
        // Until it is opened again the bytes are what they were.
        #expect(try log.read(old.location).bytes.count == 524_000)
        while log.segments.first(where: { $0.id == old.location.segment })!.use != .open {
            try write(log, bytes: 524_000, commit: [3])
        }
        let new = try write(log, bytes: 10, commit: [4])
        #expect(throws: LogError.recycled(old.location)) { try log.read(old.location) }
        #expect(throws: Never.self) { try log.read(new.location) }
        storage.overwrite(new.location.segment, at: Int(new.location.offset) + 75, [0xaa])
        #expect(throws: LogError.damaged(.record(new.location))) { try log.read(new.location) }
    }

    @Test func everyDamagedByteOfARecordIsNoticed() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let (location, _) = try write(log, bytes: 300, commit: [1])
        let bytes = storage.bytes(location.segment)
        for offset in Int(location.offset)..<Int(location.offset) + 72 + 300 {
            storage.overwrite(location.segment, at: offset, [bytes[offset] ^ 0x80])
            #expect(throws: LogError.damaged(.record(location))) { try log.read(location) }
            storage.overwrite(location.segment, at: offset, [bytes[offset]])
        }
        #expect(try log.read(location).bytes.count == 300)
        // And locations that a damaged index might give.
        for (offset, length) in [
            (location.offset + 8, 300), (location.offset, 299), (1 << 20, 300), (.max - 7, 4), (0, .max),
        ] as [(UInt32, UInt32)] {
            let wrong = RecordLocation(segment: location.segment, offset: offset, length: length, seed: location.seed)
            #expect(throws: LogError.damaged(.record(wrong))) { try log.read(wrong) }
        }
    }
}
