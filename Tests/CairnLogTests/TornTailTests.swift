import CairnCore
import CairnTesting
import Testing

@testable import CairnLog

/// The log's end after a crash: the last group is all there or is not there; nothing before it is touched.
@Suite struct TornTailTests {
    /// Three groups: two durable, the third of which nothing is known.
    private func written() throws -> (
        storage: SimulatedStorage, index: ModelIndex, last: Range<Int>, segment: SegmentID
    ) {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        try write(log, bytes: 5000, commit: [1])
        let before = try write(log, bytes: 700, commit: [2]).position
        let bytes = pattern(9000, 4)
        let patch = pattern(512, 5)
        let group = try log.makeGroup(for: .normal, records: 2, bytes: 9512, commit: 3)
        _ = group.appendChunk(chunkHeader(bytes), bytes)
        _ = group.appendPatch(patchHeader(patch), patch)
        try group.finish(commit: [3, 3, 3])
        let after = try log.write(group, sync: true)
        #expect(after.segment == before.segment)
        return (storage, ModelIndex(), Int(before.offset)..<Int(after.offset), after.segment)
    }

    @Test func tornAtEachSector() throws {
        let (storage, _, last, segment) = try written()
        let length = 64 + 72 + 9000 + 64 + 512 + 32 + 3
        for cut in stride(from: last.lowerBound, through: last.upperBound, by: 512) {
            let torn = storage.copy()
            torn.overwrite(segment, at: cut, [UInt8](repeating: 0, count: last.upperBound - cut))
            var index = ModelIndex()
            let log = try recover(torn, &index)
            let isWhole = cut - last.lowerBound >= length
            #expect(index.commits == (isWhole ? [[1], [2], [3, 3, 3]] : [[1], [2]]), "cut at \(cut)")
            // And the log goes on from there.
            try write(log, bytes: 100, commit: [4])
            _ = try recover(torn, &index)
            #expect(index.commits.last == [4] && index.commits.count == (isWhole ? 4 : 3))
        }
    }

    @Test func garbledAnywhere() throws {
        let (storage, _, last, segment) = try written()
        var random = SeededRandom(seed: 77)
        let length = 64 + 72 + 9000 + 64 + 512 + 32 + 3
        let places =
            Array(0..<256) + (0..<300).map { _ in Int.random(in: 0..<last.count, using: &random) }
            + Array(length - 700..<length)
        let bytes = storage.bytes(segment)
        for place in places {
            let offset = last.lowerBound + place
            let garbled = bytes[offset] ^ UInt8.random(in: 1...255, using: &random)
            storage.overwrite(segment, at: offset, [garbled])
            defer { storage.overwrite(segment, at: offset, [bytes[offset]]) }
            let recovery = try LogRecovery(storage, identity: identity, options: LogOptions(), from: nil)
            var index = ModelIndex()
            while let group = try recovery.next() { index.apply(group) }
            // Zeros between records and after the last are nobody's.
            let whole = [[1], [2], [3, 3, 3]] as [[UInt8]]
            #expect(index.commits == [[1], [2]] || index.commits == whole && isPadding(place, length), "byte \(place)")
        }
    }

    /// Whether no record covers this byte of the last group.
    private func isPadding(_ place: Int, _ length: Int) -> Bool {
        place >= length
    }

    /// Groups that were never synced may reach the disk in any order: one after a hole counts for nothing.
    @Test func aWholeGroupAfterATornOneIsDropped() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        try write(log, bytes: 100, commit: [1])
        let second = try write(log, bytes: 100, commit: [2], sync: false).position
        let third = try write(log, bytes: 100, commit: [3], sync: false).position
        storage.crash { _, sector in sector >= Int(second.offset) }
        var index = ModelIndex()
        let reopened = try recover(storage, &index)
        #expect(index.commits == [[1]])
        #expect(try write(reopened, bytes: 100, commit: [4]).position.lsn == second.lsn)
        _ = try recover(storage, &index)
        #expect(index.commits == [[1], [4]] && third.segment == second.segment)
    }

    /// The same hole, but a later group says that it was durable: not a crash, but damage.
    @Test func aHoleBeforeSomethingDurableIsDamage() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let first = try write(log, bytes: 100, commit: [1]).position
        try write(log, bytes: 100, commit: [2])
        try write(log, bytes: 100, commit: [3])
        storage.overwrite(first.segment, at: Int(first.offset) + 90, [0xff, 0xee])
        expectMissing(storage, from: LSN(2), first.segment)
    }

    @Test func theEndOfAnEarlierSegmentCannotBeTorn() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let first = try write(log, bytes: 524_000, commit: [1], sync: false).position
        let second = try write(log, bytes: 524_000, commit: [2], sync: false).position
        #expect(first.segment != second.segment)
        storage.overwrite(first.segment, at: 5000, [0xff, 0xee])
        expectMissing(storage, from: LSN(1), first.segment)
    }

    /// The successor's header alone is damaged: its groups would be lost, had they nothing to say.
    @Test func aDamagedHeaderHidesNothing() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let first = try write(log, bytes: 524_000, commit: [1]).position
        let second = try write(log, bytes: 524_000, commit: [2]).position
        try write(log, bytes: 10, commit: [3])
        storage.overwrite(second.segment, at: 30, [0xff])
        expectMissing(storage, from: LSN(2), first.segment)
    }

    @Test func afterACleanCloseTheLastGroupIsKnown() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        try write(log, bytes: 100, commit: [1])
        let last = try write(log, bytes: 100, commit: [2]).position
        try log.close()
        var index = ModelIndex()
        _ = try recover(storage.copy(), &index)
        #expect(index.commits.count == 2)
        storage.overwrite(last.segment, at: Int(last.offset) - 4096, [0])
        expectMissing(storage, from: LSN(2), last.segment)
    }

    private func expectMissing(_ storage: SimulatedStorage, from lsn: LSN, _ segment: SegmentID) {
        var index = ModelIndex()
        #expect(throws: LogError.damaged(.missingGroups(from: lsn, segment: segment))) { try recover(storage, &index) }
        #expect(index.commits.count == Int(lsn.rawValue) - 1)
    }
}
