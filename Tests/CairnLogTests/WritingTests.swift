import CairnCore
import Testing

@testable import CairnLog

@Suite struct WritingTests {
    @Test func whatIsWrittenIsReadBackAndRecovered() throws {
        let folder = try TemporaryFolder()
        let storage = try LocalSegmentStorage(path: folder.path)
        let log = try newLog(storage)
        #expect(log.position == nil && log.epoch == Epoch(1) && log.segmentSize == segmentSize)

        let chunk = pattern(100_001, 1)
        let patch = pattern(513, 2)
        let group = try log.makeGroup(for: .normal, records: 2, bytes: 100_514, commit: 300)
        let locations = [group.appendChunk(chunkHeader(chunk), chunk), group.appendPatch(patchHeader(patch), patch)]
        try group.finish(commit: Array(copy(chunk)[..<300]))
        let position = try log.write(group, sync: true)
        #expect(position == group.position && log.position == position && log.durable == LSN(1))

        let records = try log.read(locations)
        #expect(records.map { copy($0.bytes) } == [copy(chunk), copy(patch)])
        #expect(records.map(\.header) == [.chunk(chunkHeader(chunk)), .patch(patchHeader(patch))])
        #expect(try log.read(locations[1]).bytes.count == 513)
        try log.close()
        #expect(throws: LogError.fenced) { try write(log, bytes: 1, commit: [1]) }

        // By a new process, whose index held nothing; then by one whose index held it all.
        let reopened = try LocalSegmentStorage(path: folder.path)
        var index = ModelIndex(live: [SegmentID(1)])
        let second = try recover(reopened, &index)
        #expect(index.commits == [Array(copy(chunk)[..<300])] && index.position == position && second.epoch == Epoch(2))
        #expect(try copy(second.read(locations[0]).bytes) == copy(chunk))
        let more = try write(second, bytes: 4096, commit: [2]).position
        #expect(more.lsn == LSN(2) && more.epoch == Epoch(2) && more.segment != position.segment)
        _ = try recover(LocalSegmentStorage(path: folder.path), &index)
        #expect(index.commits.last == [2] && index.position == more)
    }

    @Test(arguments: [0, 1, 7, 8, 9, 4095, 4096, 4097, 300_000])
    func recordsOfAnyLength(count: Int) throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        var index = ModelIndex()
        let commit = copy(pattern(count / 2, 5))
        let written = try write(log, bytes: count, commit: commit)
        #expect(try copy(log.read(written.location).bytes) == copy(pattern(count, UInt64(commit.count))))
        _ = try recover(storage.copy(), &index)
        #expect(index.commits == [commit])
    }

    @Test func rollbackForgetsWhatCameAfter() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let (first, second, third) = (pattern(5000, 1), pattern(6000, 2), pattern(7000, 3))
        let group = try log.makeGroup(for: .normal, records: 3, bytes: 20_000, commit: 10)
        let kept = group.appendChunk(chunkHeader(first), first)
        let savepoint = group.savepoint
        let undone = group.appendChunk(chunkHeader(second), second)
        group.rollback(to: savepoint)
        let instead = group.appendPatch(patchHeader(third), third)
        #expect(instead.offset == undone.offset && !group.isEmpty)
        try group.finish(commit: [1, 2])
        _ = try log.write(group, sync: true)
        #expect(try log.read([kept, instead]).map { copy($0.bytes) } == [copy(first), copy(third)])
        #expect(throws: LogError.damaged(.record(undone))) { try log.read(undone) }
    }

    @Test func aGroupThatIsDroppedLeavesNoTrace() throws {
        let log = try newLog(SimulatedStorage())
        let dropped = try log.makeGroup(for: .normal, records: 0, bytes: 0, commit: 1)
        try dropped.finish(commit: [9])
        #expect(try write(log, bytes: 10, commit: [1]).position.lsn == LSN(1))
    }

    @Test func roomIsLimitedByGroupCommitAndSegment() throws {
        let log = try newLog(SimulatedStorage())
        #expect(throws: LogError.groupTooLarge) {
            try log.makeGroup(for: .normal, records: 1, bytes: segmentSize / 2, commit: 0)
        }
        #expect(throws: LogError.groupTooLarge) {
            try log.makeGroup(for: .normal, records: 0, bytes: 0, commit: segmentSize / 4 + 1)
        }
        let group = try log.makeGroup(for: .normal, records: 1, bytes: 520_000, commit: 0)
        let bytes = pattern(520_000, 1)
        _ = group.appendChunk(chunkHeader(bytes), bytes)
        #expect(group.hasRoom(records: 1, bytes: 4000, commit: segmentSize / 4))
        #expect(!group.hasRoom(records: 1, bytes: 4300, commit: 0))
        #expect(throws: LogError.groupTooLarge) {
            try group.finish(commit: [UInt8](repeating: 0, count: segmentSize / 4 + 1))
        }
        try group.finish(commit: [UInt8](repeating: 1, count: 300))
        _ = try log.write(group, sync: false)
        #expect(log.durable == .none)
        // The next does not fit behind it; opening another segment makes this one durable.
        let position = try write(log, bytes: 524_000, commit: [2], sync: false).position
        #expect(position.segment != group.position.segment && log.durable == LSN(1))
        try log.sync()
        #expect(log.durable == LSN(2))
    }

    @Test func aChainOfManySegmentsIsFollowedFromAnyPoint() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        var positions: [LogPosition] = []
        for number in 0..<30 {
            positions.append(try write(log, bytes: 150_000, commit: [UInt8(number)], sync: number % 3 == 0).position)
        }
        #expect(Set(positions.map(\.segment)).count >= 5)
        for held in -1..<positions.count {
            var index = ModelIndex(
                commits: (0...held + 1).dropLast().map { [UInt8($0)] },
                position: held < 0 ? nil : positions[held]
            )
            _ = try recover(storage.copy(), &index)
            #expect(index.commits == (0..<30).map { [UInt8($0)] } && index.position == positions.last)
        }
    }

    @Test func adjacentRecordsAreReadTogether() throws {
        let log = try newLog(SimulatedStorage())
        let group = try log.makeGroup(for: .normal, records: 20, bytes: 400_000, commit: 1)
        let pieces = (0..<20).map { pattern(1000 * ($0 + 1), UInt64($0)) }
        let locations = pieces.enumerated().map { number, bytes in
            number.isMultiple(of: 2)
                ? group.appendChunk(chunkHeader(bytes), bytes) : group.appendPatch(patchHeader(bytes), bytes)
        }
        try group.finish(commit: [1])
        _ = try log.write(group, sync: true)
        #expect(SegmentLog.runLength(locations[...]) == 20)
        // A gap of some records is read over, a large one is not, and neither is a step back.
        #expect(SegmentLog.runLength([locations[0], locations[2], locations[19], locations[1]]) == 2)
        let order = [0, 2, 3, 19, 1, 1, 7, 5].map { locations[$0] }
        #expect(try log.read(order).map(\.location) == order)
        #expect(try log.read(order).map { copy($0.bytes) } == [0, 2, 3, 19, 1, 1, 7, 5].map { copy(pieces[$0]) })
        #expect(try log.read([]).isEmpty)
    }
}
