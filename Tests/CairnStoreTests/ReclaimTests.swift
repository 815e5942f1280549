import CairnCore
import CairnLog
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// Space that is given back too early, or too late.
@Suite struct ReclaimTests {
    @Test("U8, S8: what freed a segment is synced before the segment is written over")
    func syncedDeaths() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.spareSegments = 64 }
        let volume = try scratch.volume()
        func write(_ durability: CommitDurability, _ seed: UInt64) throws {
            for chunk in 0..<UInt64(64) {
                let part = noise(32 << 10, seed + chunk)
                try scratch.change(durability: durability, records: 1, bytes: part.count) {
                    (transaction) throws(StoreError) in
                    try transaction.writePatch(at: chunk * (64 << 10), part, of: volume)
                }
            }
        }
        try write(.durable, 100)
        let background = scratch.shard.background!
        background.stop()
        try background.flushIndex()
        // Without copies of the index, which would hold the segments.
        try scratch.shard.checkpoints.folder.setGivenUp(true)
        // These free the parts before, and nobody waits for the disk.
        try write(.onFlush, 1000)
        let log = scratch.shard.log
        let freed = try #require(log.position)
        #expect(log.durable < freed.lsn)
        let before = log.segments.filter { $0.use == .closed }.count
        try background.reclaimSegments()
        #expect(log.segments.filter { $0.use == .closed }.count < before)
        #expect(log.durable >= freed.lsn)
    }

    @Test(
        "A1: while all that nothing names is pinned, it is not looked at again and again; what comes anew is purged at once"
    )
    func pinned() throws {
        let scratch = try ScratchStore { $0.leaseTime = .seconds(4) }
        let volume = try scratch.volume()
        let data = (0..<3).map { chunkData(noise(64 << 10, UInt64($0) + 1)) }
        #expect(scratch.eventually { scratch.shard.leases.mayPurge })
        func write(_ chunk: Int, _ content: Transaction.ChunkContent) throws {
            try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, content)
            }
        }
        for (chunk, data) in data.enumerated() { try write(chunk, .data(data)) }
        func isHere(_ chunk: Int) throws -> Bool {
            try scratch.shard.makeView().holdsChunk(account: ScratchStore.account, data[chunk].fingerprint)
        }
        #expect(try scratch.shard.pin(account: ScratchStore.account, [data[0].fingerprint]) == [true])
        try write(0, .hole)
        // The rounds until then meet nothing but what is pinned.
        usleep(1_200_000)
        #expect(try isHere(0))
        try write(1, .hole)
        #expect(try scratch.eventually { try !isHere(1) })
        #expect(try scratch.eventually { try !isHere(0) })
        #expect(try isHere(2))
    }

    /// A store that begins no groups just now, where a chunk has lost its last name and its removal waits.
    private func waitingRemoval(of data: ChunkData, leaseTime: Duration) throws -> ScratchStore {
        let scratch = try ScratchStore { $0.leaseTime = leaseTime }
        let volume = try scratch.volume()
        let shard = scratch.shard
        #expect(scratch.eventually { shard.leases.mayPurge })
        try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: volume, .data(data))
        }
        shard.submit(entries: 8) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: volume, .hole)
        } completion: { _ in
            shard.standStill {}
        }
        #expect(scratch.eventually { shard.waitingCalls > 0 })
        return scratch
    }

    @Test("A1, S5: a chunk that is staged again while its removal waits can be named as soon as that is answered")
    func stagedBeforeRemoval() throws {
        let data = chunkData(noise(64 << 10, 1))
        let scratch = try waitingRemoval(of: data, leaseTime: .milliseconds(1))
        let shard = scratch.shard
        let found = Mutex<[Bool]?>(nil)
        let staging = PendingCall(records: 1, bytes: 64 << 10, entries: 8) { (transaction) throws(StoreError) in
            try transaction.stage(
                data,
                chunkSize: ChunkSize(bytes: 64 << 10)!,
                account: ScratchStore.account,
                until: UInt64(Int64.max)
            )
        } completion: { _ in
            let isHere = try? shard.pin(account: ScratchStore.account, [data.fingerprint])
            found.withLock { $0 = isHere ?? [] }
        }
        shard.goOn(with: staging)
        #expect(scratch.eventually { found.withLock { $0 != nil } })
        #expect(found.withLock(\.self) == [true])
        // Nor does it go afterwards.
        #expect(scratch.eventually { shard.waitingCalls == 0 })
        #expect(try shard.makeView().holdsChunk(account: ScratchStore.account, data.fingerprint))
        #expect(try shard.audit().problems == [])
    }

    @Test("A1: a chunk that is promised while its removal waits stays for a lease time, and then goes")
    func promisedBeforeRemoval() throws {
        let data = chunkData(noise(64 << 10, 2))
        let scratch = try waitingRemoval(of: data, leaseTime: .seconds(1))
        let shard = scratch.shard
        func isHere() throws -> Bool {
            try shard.makeView().holdsChunk(account: ScratchStore.account, data.fingerprint)
        }
        #expect(try shard.pin(account: ScratchStore.account, [data.fingerprint]) == [true])
        let end = Date() + 0.9
        shard.goOn(
            with: PendingCall(entries: 1) { (_) throws(StoreError) in
            } completion: { _ in
            }
        )
        #expect(scratch.eventually { shard.waitingCalls == 0 })
        let stays = try isHere()
        #expect(stays || Date() > end)
        #expect(try scratch.eventually { try !isHere() })
        #expect(try shard.audit().problems == [])
    }
}
