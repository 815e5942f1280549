import CairnCore
import Glibc
import Testing

@testable import CairnLog

/// Recovery is killed at each step, and run again; positions that do not fit are refused.
@Suite struct RecoveryTests {
    @Test func killedAtEachStep() throws {
        let original = SimulatedStorage()
        var durable = ModelIndex()
        let log = try newLog(original)
        for number in 0..<12 { try write(log, bytes: 200_000, commit: [UInt8(number)]) }
        // The index was flushed after five groups.
        let recovery = try LogRecovery(original, identity: identity, options: LogOptions(), from: nil)
        for _ in 0..<5 { durable.apply(try #require(try recovery.next())) }

        var step = 1
        var isDone = false
        while !isDone {
            let storage = original.copy()
            storage.inject(.kill(call: step))
            var held = durable
            isDone = recoverOrDie(storage, &held)
            // Killed: what was not synced goes, each second sector of it.
            storage.crash { _, sector in sector / 512 % 2 == 0 }
            var last: SegmentLog?
            for _ in 0..<3 {
                last = try recover(storage, &held)
                #expect(held.commits == (0..<12).map { [UInt8($0)] }, "step \(step)")
            }
            try write(try #require(last), bytes: 10, commit: [99])
            _ = try recover(storage, &held)
            #expect(held.commits.last == [99] && held.commits.count == 13)
            step += 1
        }
        #expect(step > 8)
    }

    /// As ``recover(_:_:options:)``, but `durable` changes only when the index is flushed. Whether it came to its end.
    private func recoverOrDie(_ storage: SimulatedStorage, _ durable: inout ModelIndex) -> Bool {
        do {
            var index = durable
            let recovery = try LogRecovery(storage, identity: identity, options: LogOptions(), from: index.position)
            while let group = try recovery.next() { index.apply(group) }
            durable = index
            _ = try recovery.begin(durable: durable.position, live: [])
            return true
        } catch { return false }
    }

    /// What recovery reads it makes durable: else the index could know of a group that a power cut takes away.
    @Test func replayMakesDurableWhatItReads() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        try write(log, bytes: 5000, commit: [1], sync: false)
        var index = ModelIndex()
        let recovery = try LogRecovery(storage, identity: identity, options: LogOptions(), from: nil)
        while let group = try recovery.next() { index.apply(group) }
        #expect(index.commits == [[1]])
        storage.crash { _, _ in false }
        var again = ModelIndex()
        _ = try recover(storage, &again)
        #expect(again.commits == [[1]])
    }

    @Test func positionsThatDoNotFitAreRefused() throws {
        let storage = SimulatedStorage()
        var index = ModelIndex()
        let log = try newLog(storage)
        let first = try write(log, bytes: 1000, commit: [1]).position
        let second = try write(log, bytes: 1000, commit: [2]).position
        _ = try recover(storage, &index)
        // The index now must know all of the first epoch.
        let wrong = [
            nil, first, LogPosition(lsn: LSN(3), epoch: second.epoch, segment: second.segment, offset: second.offset),
            LogPosition(lsn: LSN(2), epoch: Epoch(9), segment: second.segment, offset: second.offset),
            LogPosition(lsn: LSN(2), epoch: Epoch(2), segment: second.segment, offset: second.offset),
        ]
        for position in wrong {
            #expect(throws: LogError.damaged(.unknownPosition(position))) {
                try LogRecovery(storage, identity: identity, options: LogOptions(), from: position)
            }
        }
        let missing = LogPosition(lsn: LSN(2), epoch: Epoch(2), segment: SegmentID(99), offset: 4096)
        #expect(throws: LogError.damaged(.segmentHeader(SegmentID(99)))) {
            try LogRecovery(storage, identity: identity, options: LogOptions(), from: missing)
        }
        #expect(throws: Never.self) {
            try LogRecovery(storage, identity: identity, options: LogOptions(), from: second)
        }
    }

    @Test func foreignAndNewerAndMissingSuperblocks() throws {
        let storage = SimulatedStorage()
        _ = try newLog(storage)
        let other = LogIdentity(store: identity.store, shard: ShardIndex(4))
        func open(_ identity: LogIdentity) throws {
            _ = try LogRecovery(storage, identity: identity, options: LogOptions(), from: nil)
        }
        #expect(throws: LogError.foreign(identity)) { try open(other) }
        #expect(throws: LogError.foreign(identity)) {
            try LogRecovery.format(storage, identity: other, segmentSize: segmentSize)
        }
        let good = storage.superblock()
        for slot in 0..<2 {
            var rotten = good
            rotten[slot * 4096 + 100] ^= 1
            storage.setSuperblock(rotten)
            #expect(throws: Never.self) { try open(identity) }
        }
        storage.setSuperblock([UInt8](repeating: 0, count: 8192))
        #expect(throws: LogError.damaged(.superblock)) { try open(identity) }
        storage.setSuperblock([])
        #expect(throws: LogError.damaged(.superblock)) { try open(identity) }
        var newer = ByteWriter()
        newer.put(UInt32(2))
        let block = Format.sealedBlock(magic: Format.superblockMagic, body: newer)
        storage.setSuperblock(block + block)
        #expect(throws: LogError.unsupportedFormat(2)) { try open(identity) }
    }

    /// Cut short twice in a row, the second time in the first slot: what was whole in between must not be the one overwritten.
    @Test func theNewestSuperblockOutlivesATornWrite() throws {
        let storage = SimulatedStorage()
        _ = try newLog(storage)
        var superblock = try Superblock.read(from: storage, identity: identity)
        for kept in 1...4 {
            superblock.sequence += 1
            superblock.epoch = superblock.epoch.next
            storage.inject(.kill(call: 2))
            #expect(throws: LogError.self) { try superblock.write(to: storage) }
            storage.inject(.kill(call: 1))
            var next = superblock
            next.sequence += 1
            #expect(throws: LogError.self) { try next.write(to: storage) }
            #expect(try Superblock.read(from: storage, identity: identity) == superblock, "round \(kept)")
        }
    }

    /// A live segment that is gone is damage wherever it is read, and no reason to refuse all the rest.
    @Test func aMissingLiveSegmentIsDamage() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let lost = try write(log, bytes: 524_000, commit: [1])
        let kept = try write(log, bytes: 524_000, commit: [2])
        var index = ModelIndex(live: [lost.location.segment, kept.location.segment])
        _ = try recover(storage, &index)
        try storage.delete(lost.location.segment)
        let reopened = try recover(storage, &index)
        #expect(throws: LogError.damaged(.record(lost.location))) { try reopened.read(lost.location) }
        #expect(try reopened.read(kept.location).bytes.count == 524_000)
        reopened.recycle(lost.location.segment, checkpoint: index.position!)
        #expect(!reopened.segments.contains { $0.id == lost.location.segment })
        try write(reopened, bytes: 524_000, commit: [3])
    }
}
