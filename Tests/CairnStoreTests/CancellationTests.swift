import CairnCore
import Dispatch
import Testing

@testable import CairnStore

/// What is left of snapshots that were cancelled, while the background is behind.
@Suite struct CancellationTests {
    @Test("S4, S6: what a cancelled snapshot had covered stays with those that read it, however late the background is")
    func releaseBeforeCancellation() throws {
        let scratch = try ScratchStore()
        let chunk = ChunkSize(bytes: 64 << 10)!
        let volume = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ScratchStore.account,
                kind: .local,
                size: 1 << 20,
                chunkSize: chunk,
                source: nil,
                affinity: [],
                tags: [:]
            )
        }
        let data = noise(chunk.bytes, 7)
        // All that the background would do waits, as it does on a busy machine.
        let behind = DispatchSemaphore(value: 0)
        scratch.shard.background.queue.async { _ = behind.wait(timeout: .now() + 60) }
        func create() throws -> SnapshotRecord {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
            }
        }
        func write(_ bytes: BufferSlice, to snapshot: SnapshotRecord) throws {
            try scratch.change(records: 1, bytes: bytes.count) { (transaction) throws(StoreError) in
                let target = try transaction.target(of: try transaction.snapshot(snapshot.id)!)
                try transaction.writeChunk(ChunkIndex(3), of: target, .data(chunkData(bytes)))
            }
        }
        func cancel(_ snapshot: SnapshotRecord) throws {
            try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
                try transaction.cancel(
                    try transaction.snapshot(snapshot.id)!,
                    keepsRecord: false,
                    at: UnixTime.milliseconds
                )
            }
        }
        func complete(_ snapshot: SnapshotRecord) throws {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.declareRebased(try transaction.snapshot(snapshot.id)!)
                _ = try transaction.complete(try transaction.snapshot(snapshot.id)!, at: UnixTime.milliseconds)
            }
        }
        let base = try create()
        try write(data, to: base)
        try complete(base)
        // The first one's release comes before the second one's entry is known to cover nothing.
        let (first, second, last) = (try create(), try create(), try create())
        try cancel(first)
        try write(noise(chunk.bytes, 8), to: second)
        try cancel(second)
        try complete(last)
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(base.id)!)
        }
        behind.signal()
        #expect(try scratch.eventually { try scratch.shard.makeView().snapshot(last.id)?.seal != nil })
        let record = try #require(try scratch.shard.makeView().snapshot(last.id))
        let pieces = try scratch.shard.read(ReadSource(record), [3 * 65536..<4 * 65536], acceptsLZ4: false)
        guard case .plain(let bytes, _) = try #require(pieces.first).content else {
            Issue.record("the chunk is gone")
            return
        }
        #expect(copy(bytes) == copy(data))
        #expect(try scratch.shard.audit().problems == [])
    }

    private func copy(_ slice: BufferSlice) -> [UInt8] { withExtendedLifetime(slice) { Array(slice.bytes) } }
}
