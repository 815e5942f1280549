import CairnCore
import CairnCrypto
import Testing

@testable import CairnStore

/// Seals that are made of the nodes of earlier ones.
@Suite struct SealNodeTests {
    private static let groups = 20

    private func fill(_ scratch: ScratchStore, _ volume: VolumeRecord) throws -> [Fingerprint] {
        let data = (0..<64).map { chunkData(noise(4096, UInt64($0))) }
        try scratch.change(records: 64, bytes: 64 * 4096, entries: 256) { (transaction) throws(StoreError) in
            for index in 0..<64 {
                try transaction.writeChunk(ChunkIndex(UInt64(index)), of: volume, .data(data[index]))
            }
        }
        for first in stride(from: 64, to: Self.groups * 256, by: 256) {
            try scratch.change(entries: 1024) { (transaction) throws(StoreError) in
                for index in first..<min(first + 256, Self.groups * 256) {
                    let token = data[index % 64].fingerprint
                    try transaction.writeChunk(ChunkIndex(UInt64(index)), of: volume, .token(token))
                }
            }
        }
        return (0..<Self.groups * 256).map { data[$0 % 64].fingerprint }
    }

    private func snapshot(_ scratch: ScratchStore, _ volume: VolumeID) throws -> SnapshotRecord {
        let made = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(volume)!, description: "", tags: [:])
        }
        let isSealed = try scratch.eventually { try scratch.shard.makeView().snapshot(made.id)?.seal != nil }
        #expect(isSealed)
        return try #require(try scratch.shard.makeView().snapshot(made.id))
    }

    private func seal(_ leaves: [Fingerprint], _ volume: VolumeRecord) -> Fingerprint {
        var seal = SealBuilder(size: volume.size, chunkSize: volume.chunkSize)
        for leaf in leaves { seal.add(leaf) }
        seal.add(zeros: seal.leafCount - seal.leaves)
        return seal.finish()
    }

    private func versions(_ scratch: ScratchStore, _ lineage: LineageID) throws -> [UInt64: DataVersion] {
        var found: [UInt64: DataVersion] = [:]
        try scratch.shard.makeView().sealNodes(of: lineage, in: 0..<1000) { (group, node) throws(StoreError) in
            found[group] = node.version
            return true
        }
        return found
    }

    /// What is discarded leaves nothing behind where nothing lies below it: neither an entry nor a mark that there was one.
    @Test(
        "S6, V7: a seal sees what was discarded since, after the version that held it had gone",
        arguments: [false, true]
    )
    func discarded(isWrittenAgain: Bool) throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume(300 * 4096, chunk: 4096)
        let (kept, gone) = (chunkData(noise(4096, 1)), chunkData(noise(4096, 2)))
        func write(_ chunk: Int, _ content: Transaction.ChunkContent) throws {
            try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
                let volume = try transaction.volume(volume.id)!
                try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, content)
            }
        }
        try write(5, .data(kept))
        try write(9, .data(gone))
        let first = try snapshot(scratch, volume.id)
        #expect(try versions(scratch, volume.lineage) == [0: first.version])
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(first.id)!)
        }
        try write(9, .hole)
        #expect(try scratch.eventually { try scratch.shard.audit().entries == 1 })
        if isWrittenAgain {
            try write(9, .data(gone))
            try write(9, .hole)
            #expect(try scratch.shard.audit().entries == 1)
        }
        let second = try snapshot(scratch, volume.id)
        var leaves = Array(repeating: ZeroChunk.fingerprint(volume.chunkSize), count: 300)
        leaves[5] = kept.fingerprint
        #expect(second.seal == seal(leaves, volume))
        #expect(try versions(scratch, volume.lineage) == [0: second.version])
    }

    @Test("S6: of what a volume has got by growing, earlier versions have no nodes: a clone of one is walked through")
    func grown() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume(256 * 4096, chunk: 4096)
        let (old, late) = (chunkData(noise(4096, 1)), chunkData(noise(4096, 2)))
        func write(_ chunk: UInt64, _ content: Transaction.ChunkContent, to volume: VolumeID) throws {
            try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(chunk), of: try transaction.volume(volume)!, content)
            }
        }
        try write(5, .data(old), to: volume.id)
        _ = try snapshot(scratch, volume.id)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.resizeVolume(try transaction.volume(volume.id)!, to: 512 * 4096)
        }
        try write(300, .data(late), to: volume.id)
        // The second is never sealed: it goes before the background comes to it.
        var cloned: VolumeRecord?
        try scratch.beforeTheBackground {
            let second = try scratch.change { (transaction) throws(StoreError) in
                try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
            }
            let clone = try scratch.volume(512 * 4096, chunk: 4096, from: second)
            cloned = clone
            try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
                for id in [second.id, clone.initialSnapshot] {
                    try transaction.deleteSnapshot(try transaction.snapshot(id)!)
                }
            }
            try write(300, .hole, to: volume.id)
        } _: { _ in
        }
        let clone = try #require(cloned)
        var leaves = Array(repeating: ZeroChunk.fingerprint(volume.chunkSize), count: 512)
        leaves[5] = old.fingerprint
        let third = try snapshot(scratch, volume.id)
        let whole = try #require(try scratch.shard.makeView().volume(volume.id))
        #expect(third.seal == seal(leaves, whole))
        leaves[300] = late.fingerprint
        #expect(try snapshot(scratch, clone.id).seal == seal(leaves, whole))
    }

    @Test("D5, V8: whose parts are in another account's snapshot is known of its clones too: its nodes do not say that")
    func partsOfAnother() throws {
        let scratch = try ScratchStore()
        let other = AccountID("other")!
        func clone(_ snapshot: SnapshotRecord, for account: AccountID) throws -> VolumeRecord {
            try scratch.volume(snapshot.size, chunk: snapshot.chunkSize.bytes, from: snapshot, for: account)
        }
        let volume = try scratch.volume(UInt64(Self.groups * 256) * 4096, chunk: 4096)
        _ = try fill(scratch, volume)
        let theirs = try clone(try snapshot(scratch, volume.id), for: other)
        try scratch.change(records: 1, bytes: 512) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 5 * 4096, noise(512, 77), of: WriteTarget(theirs))
        }
        let mixed = try snapshot(scratch, theirs.id)
        #expect(mixed.owners.map(\.owner) == [ScratchStore.account])
        let mine = try clone(mixed, for: ScratchStore.account)
        let isSealed = try scratch.eventually {
            try scratch.shard.makeView().snapshot(mine.initialSnapshot)?.seal != nil
        }
        #expect(isSealed)
        let initial = try #require(try scratch.shard.makeView().snapshot(mine.initialSnapshot))
        #expect(initial.seal == mixed.seal)
        #expect(Set(initial.owners.map(\.owner)) == [ScratchStore.account, other])
    }

    @Test(
        "S6: a seal walks only through the groups of chunks that were written to since the last one; a clone's first through its own"
    )
    func onlyWhatChanged() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume(UInt64(Self.groups * 256 + 10) * 4096, chunk: 4096)
        var leaves = try fill(scratch, volume)
        let first = try snapshot(scratch, volume.id)
        #expect(first.seal == seal(leaves, volume))
        #expect(try versions(scratch, volume.lineage).count == Self.groups)
        let other = chunkData(noise(4096, 1000))
        try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
            let volume = try transaction.volume(volume.id)!
            try transaction.writeChunk(ChunkIndex(5 * 256 + 7), of: volume, .data(other))
            try transaction.writeChunk(ChunkIndex(9 * 256), of: volume, .zeros)
        }
        (leaves[5 * 256 + 7], leaves[9 * 256]) = (other.fingerprint, ZeroChunk.fingerprint(volume.chunkSize))
        let second = try snapshot(scratch, volume.id)
        #expect(second.seal == seal(leaves, volume))
        #expect(second.owners == [OwnerBytes(owner: ScratchStore.account, bytes: UInt64(leaves.count - 1) * 4096)])
        let changed = try versions(scratch, volume.lineage).filter { $0.value == second.version }
        #expect(Set(changed.keys) == [5, 9])
        // A clone of the first one, though the second has been sealed meanwhile.
        let clone = try scratch.volume(volume.size, chunk: 4096, from: first)
        let initial = try scratch.eventually {
            try scratch.shard.makeView().snapshot(clone.initialSnapshot)?.seal == first.seal
        }
        #expect(initial)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(3), of: try transaction.volume(clone.id)!, .hole)
        }
        (leaves[5 * 256 + 7], leaves[9 * 256]) = (leaves[5 * 256 + 7 - 64], leaves[9 * 256 - 64])
        leaves[3] = ZeroChunk.fingerprint(volume.chunkSize)
        let third = try snapshot(scratch, clone.id)
        #expect(third.seal == seal(leaves, volume))
        // All of it goes with its lineage.
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            for id in [first.id, second.id, third.id] { try transaction.deleteSnapshot(try transaction.snapshot(id)!) }
            for id in [volume.id, clone.id] { try transaction.deleteVolume(try transaction.volume(id)!) }
        }
        #expect(try scratch.eventually { try scratch.isEmpty(.sealNodes) && scratch.isEmpty(.sealBases) })
        #expect(try scratch.shard.audit().problems == [])
    }
}
