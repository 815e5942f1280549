import CairnCore
import Testing

@testable import CairnStore

@Suite struct RecordMatchTests {
    @Test(
        "D4: an index that leads to another chunk's record gives DATA_LOSS, not that chunk's bytes; where the dictionary or the manifest is right, it gives the right ones",
        arguments: [(true, true), (true, false), (false, true)]
    )
    func otherRecord(isDictionaryWrong: Bool, isHintWrong: Bool) throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let (first, second) = (chunkData(noise(64 << 10, 1)), chunkData(noise(64 << 10, 2)))
        try scratch.change(records: 2, bytes: 128 << 10) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: volume, .data(first))
            try transaction.writeChunk(ChunkIndex(1), of: volume, .data(second))
        }
        try scratch.change { (transaction) throws(StoreError) in
            let account = try transaction.numberAccount(ScratchStore.account)
            let wrong = try transaction.chunk(ChunkKey(own: account, second.fingerprint))!
            if isDictionaryWrong {
                transaction.overlay.put(Key.chunk(ChunkKey(own: account, first.fingerprint)), wrong.encoded)
            }
            if isHintWrong {
                let entry = ManifestEntry(.data(first.fingerprint, owner: account), hint: wrong.location)
                let key = Key.manifest(volume.lineage, ChunkIndex(0), volume.dataVersion)
                transaction.overlay.put(key, entry.encoded)
            }
        }
        func read() throws -> [UInt8]? {
            let pieces = try scratch.shard.read(ReadSource(volume), [0..<64 << 10], acceptsLZ4: false)
            guard case .plain(let bytes, _) = pieces[0].content else { return nil }
            return Array(bytes.bytes)
        }
        if isDictionaryWrong, isHintWrong {
            let error = #expect(throws: StoreError.self) { try read() }
            #expect(error?.code == .damaged)
            #expect(error?.text.contains(first.fingerprint.description) == true)
        } else {
            #expect(try read() == Array(first.bytes.bytes))
        }
        let good = try scratch.shard.read(ReadSource(volume), [64 << 10..<128 << 10], acceptsLZ4: false)
        guard case .plain(let bytes, _) = good[0].content else { return #expect(Bool(false)) }
        #expect(Array(bytes.bytes) == Array(second.bytes.bytes))
        // One record is counted twice, the other not at all.
        #expect(try scratch.shard.audit().problems.isEmpty == !isDictionaryWrong)
    }

    @Test(
        "C2, D4: a manifest that hints at the same data of another account, or owner, is not followed",
        arguments: [false, true]
    )
    func othersRecord(isOfOtherOwner: Bool) throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        let data = chunkData(noise(64 << 10, 1))
        try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: volume, .data(data))
        }
        let own = try #require(try scratch.shard.makeView().accountNumber(ScratchStore.account))
        // The same bytes as another's, found whole where the hint leads.
        try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            let other = try transaction.numberAccount(AccountID("other")!)
            let key = ChunkKey(account: isOfOtherOwner ? own : other, owner: other, data.fingerprint)
            let record = try transaction.store(data, as: key, volume.chunkSize, references: 0)
            let entry = ManifestEntry(.data(data.fingerprint, owner: own), hint: record.location)
            transaction.overlay.put(Key.manifest(volume.lineage, ChunkIndex(0), volume.dataVersion), entry.encoded)
            // The own one is gone from the dictionary: who took the other's would not notice.
            transaction.overlay.delete(Key.chunk(ChunkKey(own: own, data.fingerprint)))
        }
        let error = #expect(throws: StoreError.self) {
            try scratch.shard.read(ReadSource(volume), [0..<64 << 10], acceptsLZ4: false)
        }
        #expect(error?.code == .damaged)
    }
}
