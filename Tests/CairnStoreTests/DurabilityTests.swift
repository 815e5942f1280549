import CairnCore
import Testing

@testable import CairnStore

/// What is answered as durable is synced, and the index never runs ahead of the synced log.
@Suite struct DurabilityTests {
    private func isSynced(_ shard: Shard) -> Bool { shard.log.durable == shard.log.position?.lsn }

    @Test("U8: a durable call that finds an unsynced write done already still waits for it to be durable")
    func repeatedWrite() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let data = chunkData(noise(64 << 10, 1))
        let write: @Sendable (Transaction) throws(StoreError) -> Void = { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(3), of: volume, .data(data))
        }
        scratch.shard.background.stop()
        try scratch.change(durability: .onFlush, records: 1, bytes: 64 << 10, write)
        #expect(!isSynced(scratch.shard))
        try scratch.change(records: 1, bytes: 64 << 10, write)
        #expect(isSynced(scratch.shard))
    }

    @Test(
        "DESIGN §5: a checkpoint syncs the log before it makes the index durable: else a power cut leaves an index of lost groups"
    )
    func checkpointSyncsFirst() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let background = scratch.shard.background!
        background.stop()
        try scratch.change(durability: .onFlush, entries: 1) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(3), of: volume, .zeros)
        }
        #expect(!isSynced(scratch.shard))
        try background.flushIndex()
        #expect(isSynced(scratch.shard))
    }

    @Test("DESIGN §5: where no checkpoint comes, the index does not outgrow its write buffer with what is not synced")
    func indexBehindLog() throws {
        let scratch = try ScratchStore { $0.indexFlushBytes = 64 << 10 }
        let volume = try scratch.volume()
        scratch.shard.background.stop()
        var applied = 0
        for round in 0..<200 {
            try scratch.change(durability: .onFlush, entries: 64) { (transaction) throws(StoreError) in
                for chunk in 0..<64 {
                    try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, round & 1 == 0 ? .zeros : .hole)
                }
            }
            applied = scratch.shard.unflushed.withLock { $0.indexBytes }
            if applied >= 128 << 10 { break }
        }
        #expect(applied >= 128 << 10)
        #expect(isSynced(scratch.shard))
    }
}
