import CairnCore
import Foundation
import Testing

@testable import CairnStore

/// What changed between two volumes or snapshots. That the answers are right is shown by the models; here is what they cannot show.
@Suite struct ComparisonTests {
    private func write(_ chunks: Range<Int>, _ seed: Int, to volume: VolumeID, _ scratch: ScratchStore) throws {
        for start in stride(from: chunks.lowerBound, to: chunks.upperBound, by: 64) {
            let step = start..<min(start + 64, chunks.upperBound)
            let data = step.map { ($0, chunkData(noise(4096, UInt64($0 + seed * 100_000)))) }
            try scratch.change(records: step.count, bytes: step.count * 4096, entries: step.count) {
                (transaction) throws(StoreError) in
                let volume = try transaction.volume(volume)!
                for (chunk, data) in data {
                    try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data))
                }
            }
        }
    }

    private func snapshot(_ volume: VolumeID, _ scratch: ScratchStore) throws -> SnapshotRecord {
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(volume)!, description: "", tags: [:])
        }
    }

    private func changes(_ older: ReadSource, _ newer: ReadSource, _ scratch: ScratchStore) throws -> (
        chunks: [UInt64], lookups: Int
    ) {
        let newer = Comparison.Side(scratch.shard, newer)
        let comparison = Comparison(older: .init(scratch.shard, older), newer: newer)
        let page = try comparison.changes(from: ChunkIndex(0), limit: 1000)
        #expect(page.next == nil)
        return (page.entries.map(\.chunk.rawValue), newer.view.lookups)
    }

    @Test("R1: related ones are compared in time proportional to the change, however much they hold, in either order")
    func proportional() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume(64 << 20, chunk: 4096).id
        try write(0..<2048, 1, to: volume, scratch)
        let first = try snapshot(volume, scratch)
        try write(700..<703, 2, to: volume, scratch)
        _ = try snapshot(volume, scratch)
        try write(1500..<1501, 3, to: volume, scratch)
        let last = try snapshot(volume, scratch)
        let clone = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ScratchStore.account,
                kind: .remote,
                size: 64 << 20,
                chunkSize: ChunkSize(bytes: 4096)!,
                source: first,
                affinity: [],
                tags: [:]
            )
        }
        try write(9..<10, 4, to: clone.id, scratch)
        let view = scratch.shard.makeView()
        let forward = try changes(ReadSource(first), ReadSource(last), scratch)
        #expect(forward.chunks == [700, 701, 702, 1500])
        #expect(try changes(ReadSource(last), ReadSource(first), scratch).chunks == forward.chunks)
        let across = try changes(ReadSource(try view.volume(clone.id)!), ReadSource(try view.volume(volume)!), scratch)
        #expect(across.chunks == [9, 700, 701, 702, 1500])
        #expect(forward.lookups < 50 && across.lookups < 50, "\(forward.lookups), \(across.lookups)")
    }

    @Test(
        "R1: other shards and other chunk sizes; the same content is no change; what lies beyond the newer one's end is"
    )
    func unrelated() throws {
        let scratch = try ScratchStore(shards: 2)
        let bytes = noise(64 << 10, 1)
        func volume(
            on shard: Int,
            _ size: UInt64,
            _ chunk: Int,
            _ change: @escaping @Sendable (Transaction, VolumeRecord) throws(StoreError) -> Void
        )
            throws -> VolumeRecord
        {
            let done = DispatchSemaphore(value: 0)
            nonisolated(unsafe) var made: Result<VolumeRecord, StoreError>?
            scratch.store.shards[shard].submit(records: 64, bytes: 1 << 20, entries: 64) {
                (transaction) throws(StoreError) in
                let volume = try transaction.createVolume(
                    account: ScratchStore.account,
                    kind: .remote,
                    size: size,
                    chunkSize: ChunkSize(bytes: chunk)!,
                    source: nil,
                    affinity: [],
                    tags: [:]
                )
                try change(transaction, volume)
                return volume
            } completion: {
                made = $0
                done.signal()
            }
            done.wait()
            return try made!.get()
        }
        let parts = (0..<16).map { index in
            let part = BufferPool.shared.buffer(capacity: 4096)
            part.memory.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes.bytes[index * 4096..<(index + 1) * 4096])
            )
            part.count = 4096
            return chunkData(part.slice)
        }
        let whole = chunkData(bytes)
        let tail = chunkData(noise(64 << 10, 9))
        let coarse = try volume(on: 0, 2 << 20, 64 << 10) { (transaction, volume) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: volume, .data(whole))
            try transaction.writeChunk(ChunkIndex(31), of: volume, .data(tail))
        }
        let fine = try volume(on: 1, 1 << 20, 4096) { (transaction, volume) throws(StoreError) in
            for (index, part) in parts.enumerated() where index != 5 {
                try transaction.writeChunk(ChunkIndex(UInt64(index)), of: volume, .data(part))
            }
        }
        func changes(_ older: VolumeRecord, _ newer: VolumeRecord) throws -> [BlockEntry] {
            let sides = [older, newer].map {
                Comparison.Side(scratch.store.shards[Int($0.id.uuid.shard.rawValue)], ReadSource($0))
            }
            return try Comparison(older: sides[0], newer: sides[1]).changes(from: ChunkIndex(0), limit: 1000).entries
        }
        let refined = try changes(coarse, fine)
        #expect(refined.map(\.chunk.rawValue) == [5] + (496..<512).map { $0 })
        #expect(refined.allSatisfy { $0.state == .hole && $0.owner == nil })
        let coarsened = try changes(fine, coarse)
        #expect(coarsened.map(\.chunk.rawValue) == [0, 31])
        #expect(coarsened.map(\.state) == [.data(whole.fingerprint), .data(tail.fingerprint)])
    }
}
