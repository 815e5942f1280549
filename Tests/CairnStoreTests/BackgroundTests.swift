import CairnCore
import Foundation
import Testing

@testable import CairnStore

/// Work that cannot be done does not keep other work from being done.
@Suite struct BackgroundTests {
    /// A volume with parts of chunk 0 at its present version.
    private func patched(_ scratch: ScratchStore) throws -> VolumeRecord {
        let volume = try scratch.volume()
        let part = noise(512, 5)
        try scratch.change(records: 1, bytes: 512) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 512, part, of: volume)
        }
        return volume
    }

    @Test("a damaged part of a chunk keeps neither seals nor purges from going on")
    func damagedPart() throws {
        let scratch = try ScratchStore()
        let volume = try patched(scratch)
        let entry = try scratch.shard.makeView().entries(volume.lineage, ChunkIndex(0), upTo: volume.dataVersion)[0]
            .entry
        try scratch.spoil(entry.patches[0])
        let damaged = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: volume, description: "", tags: [:])
        }
        let other = try scratch.volume()
        let data = chunkData(noise(64 << 10, 6))
        try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: other, .data(data))
        }
        let sealed = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(other.id)!, description: "", tags: [:])
        }
        #expect(try scratch.eventually { try scratch.shard.makeView().snapshot(sealed.id)?.seal != nil })
        // Chunk 0 of the other volume is dropped: it must be purged.
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(sealed.id)!)
            try transaction.deleteVolume(try transaction.volume(other.id)!)
        }
        #expect(
            try scratch.eventually {
                try !scratch.shard.makeView().holdsChunk(account: ScratchStore.account, data.fingerprint)
            }
        )
        #expect(try scratch.shard.makeView().snapshot(damaged.id)?.seal == nil)
        #expect(throws: StoreError.self) { try scratch.shard.read(ReadSource(damaged), [0..<65536], acceptsLZ4: false) }
    }

    @Test("a full store can be emptied though a snapshot with parts waits for its seal")
    func fullStore() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) {
            $0.capacityBytes = 8 << 20
            $0.checkpointBytes = 1 << 20
        }
        let keeper = try patched(scratch)
        let victim = try scratch.volume(64 << 20)
        var written = 0
        fill: while written < 1024 {
            let data = chunkData(noise(64 << 10, UInt64(written) + 100))
            let index = ChunkIndex(UInt64(written))
            do {
                try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                    try transaction.writeChunk(index, of: victim, .data(data))
                }
            } catch let error as StoreError where error.code == .full { break fill }
            written += 1
        }
        #expect(written > 10 && written < 1024)
        // Its seal wants to merge the part, and there is no room for that.
        _ = try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(keeper.id)!, description: "", tags: [:])
        }
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteVolume(try transaction.volume(victim.id)!)
        }
        let fits = scratch.eventually {
            let data = chunkData(noise(64 << 10, 7))
            return
                (try? scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                    try transaction.writeChunk(ChunkIndex(9), of: try transaction.volume(keeper.id)!, .data(data))
                }) != nil
        }
        #expect(fits)
    }

    @Test("a store whose second shard is damaged says so, and lets go of the first")
    func damagedShard() throws {
        let folder = NSTemporaryDirectory() + "cairn-damaged-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var creation = StoreCreation()
        creation.shardCount = 2
        creation.segmentBytes = 1 << 20
        try Store.create(at: folder, creation)
        let superblock = URL(fileURLWithPath: folder + "/shard-001/superblock")
        let good = try Data(contentsOf: superblock)
        try Data(repeating: 0x5a, count: good.count).write(to: superblock)
        let error = #expect(throws: StoreError.self) { try Store.open(at: folder) }
        #expect(error?.code == .damaged)
        try good.write(to: superblock)
        try Store.open(at: folder).close()
    }
}
