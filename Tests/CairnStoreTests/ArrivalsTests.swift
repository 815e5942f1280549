import CairnCore
import Testing

@testable import CairnStore

/// What was not there when it was looked for is not looked for again, unless it came since.
@Suite struct ArrivalsTests {
    /// Writes a chunk by a call of its own.
    /// - Returns: the look-ups that it took.
    private func write(_ scratch: ScratchStore, _ volume: VolumeRecord, _ chunk: UInt64, _ data: ChunkData) throws
        -> Int
    {
        try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            let before = transaction.lookups
            try transaction.writeChunk(ChunkIndex(chunk), of: volume, .data(data))
            return transaction.lookups - before
        }
    }

    private func references(_ scratch: ScratchStore, _ data: ChunkData) throws -> UInt64? {
        let view = scratch.shard.makeView()
        let account = try #require(try view.accountNumber(ScratchStore.account))
        return try view.chunk(ChunkKey(own: account, data.fingerprint))?.references
    }

    @Test("A1: a chunk that two calls were about to bring is stored once")
    func twoCalls() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let (first, other) = (chunkData(noise(64 << 10, 1)), chunkData(noise(64 << 10, 2)))
        let finder = ChunkFinder(scratch.shard, of: ScratchStore.account)
        // Once for all: its account's number, and what a lineage says.
        _ = try write(scratch, volume, 9, chunkData(noise(64 << 10, 3)))
        let unlooked = try write(scratch, volume, 0, other)
        let looked = try write(scratch, volume, 1, first.looked(for: finder))
        #expect(looked == unlooked - 1)
        #expect(try write(scratch, volume, 2, first.looked(for: finder)) == unlooked)
        #expect(try write(scratch, volume, 3, other.looked(for: finder)) == unlooked)
        #expect(try references(scratch, first) == 2 && references(scratch, other) == 2)
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("A1: nor is it stored twice where one call brings it twice, or another one that was undone")
    func oneCall() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let data = chunkData(noise(64 << 10, 1)).looked(for: ChunkFinder(scratch.shard, of: ScratchStore.account))
        #expect(throws: StoreError.self) {
            try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(0), of: volume, .data(data))
                throw StoreError(.aborted, "on purpose")
            }
        }
        #expect(try references(scratch, data) == nil)
        try scratch.change(records: 2, bytes: 128 << 10) { (transaction) throws(StoreError) in
            for chunk in 0..<2 { try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data)) }
        }
        #expect(try references(scratch, data) == 2)
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("C2: that one account has no such chunk says nothing of another's")
    func otherAccount() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let data = chunkData(noise(64 << 10, 1))
        _ = try write(scratch, volume, 0, data)
        let looked = data.looked(for: ChunkFinder(scratch.shard, of: AccountID("other")!))
        #expect(looked.absence != nil)
        _ = try write(scratch, volume, 1, looked)
        #expect(try references(scratch, data) == 2)
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("A1: what was found before a restart counts for nothing")
    func restart() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let data = chunkData(noise(64 << 10, 1)).looked(for: ChunkFinder(scratch.shard, of: ScratchStore.account))
        _ = try write(scratch, volume, 0, data)
        try scratch.reopen()
        _ = try write(scratch, volume, 1, data)
        #expect(try references(scratch, data) == 2)
        #expect(try scratch.shard.audit().problems == [])
    }
}
