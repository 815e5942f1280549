import CairnCore
import CairnLog
import Foundation
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
}
