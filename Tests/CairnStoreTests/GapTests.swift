import CairnCore
import Testing

@testable import CairnStore

/// What a search has shown to be empty is searched no more, until something is written there or comes back.
@Suite struct GapTests {
    private static func older(_ chunk: UInt64, _ volume: VolumeRecord, _ transaction: Transaction) throws(StoreError) -> Bool {
        let newer = try transaction.volume(volume.id)!
        try transaction.writeChunk(ChunkIndex(chunk), of: newer, .zeros)
        let key = Key.dead(volume.lineage, death: newer.dataVersion, ChunkIndex(chunk), birth: volume.dataVersion)
        return try transaction.overlay.get(key) != nil
    }

    @Test("an entry that was written into a gap is found when a later version covers it")
    func written() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume(1 << 20, chunk: 4 << 10)
        let found = try scratch.change { (transaction) throws(StoreError) in
            for chunk in [10, 12, 11] as [UInt64] { try transaction.writeChunk(ChunkIndex(chunk), of: volume, .zeros) }
            #expect(transaction.gapEnd(volume.lineage, ChunkIndex(13)) == ManifestReader.noChunk, "nothing was learnt")
            _ = try transaction.createSnapshot(of: volume, description: "", tags: [:])
            var found: [Bool] = []
            for chunk in 9...13 as ClosedRange<UInt64> { found.append(try Self.older(chunk, volume, transaction)) }
            return found
        }
        #expect(found == [false, true, true, true, false])
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("an entry whose removal is undone is found as before")
    func rolledBack() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume(1 << 20, chunk: 4 << 10)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(20), of: volume, .zeros)
        }
        let found = try scratch.change { (transaction) throws(StoreError) in
            transaction.begin()
            try transaction.writeChunk(ChunkIndex(20), of: volume, .hole)
            try transaction.writeChunk(ChunkIndex(19), of: volume, .zeros)
            #expect(transaction.gapEnd(volume.lineage, ChunkIndex(20)) != nil, "nothing was learnt")
            transaction.rollback()
            _ = try transaction.createSnapshot(of: volume, description: "", tags: [:])
            return try Self.older(20, volume, transaction)
        }
        #expect(found)
        #expect(try scratch.shard.audit().problems == [])
    }
}
