import CairnCore
import Testing

@testable import CairnStore

/// What a search has shown to be empty is searched no more, until something is written there or comes back.
@Suite struct GapTests {
    private static func older(_ chunk: UInt64, _ volume: VolumeRecord, _ transaction: Transaction) throws(StoreError)
        -> Bool
    {
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

    @Test("R1: a walk through a chain of clones searches a level for its own entries, not for every chunk")
    func chain() throws {
        let (chunks, clones) = (1024 as UInt64, 60 as UInt64)
        let scratch = try ScratchStore()
        let first = try scratch.volume(chunks * 4096, chunk: 4 << 10)
        for start in stride(from: 0, to: chunks, by: 64) {
            try scratch.change(entries: 128) { (transaction) throws(StoreError) in
                for chunk in start..<start + 64 { try transaction.writeChunk(ChunkIndex(chunk), of: first, .zeros) }
            }
        }
        var last = first
        for clone in 1...clones {
            last = try scratch.change(entries: 64) { [last] (transaction) throws(StoreError) in
                let source = try transaction.createSnapshot(of: last, description: "", tags: [:])
                let volume = try transaction.createVolume(
                    account: ScratchStore.account,
                    kind: .remote,
                    size: last.size,
                    chunkSize: last.chunkSize,
                    source: source,
                    affinity: [],
                    tags: [:]
                )
                try transaction.writeChunk(ChunkIndex(clone * 17), of: volume, .hole)
                return volume
            }
        }
        let view = scratch.shard.makeView()
        let range = ChunkIndex(0)..<ChunkIndex(chunks)
        let (entries, next) = try view.blocks(of: last.lineage, at: last.dataVersion, in: range, limit: 4096)
        #expect(next == nil && entries.count == Int(chunks - clones))
        #expect(
            entries.allSatisfy {
                $0.state == .zeros && !($0.chunk.rawValue % 17 == 0 && 1...clones ~= $0.chunk.rawValue / 17)
            }
        )
        // Of the first volume two for each chunk, of each clone some for its own one.
        #expect(view.searches < 2 * chunks + 8 * clones, "\(view.searches) searches")
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
