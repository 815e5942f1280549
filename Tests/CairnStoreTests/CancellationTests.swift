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

/// What a call may bring at the most, and what a snapshot in progress may be at the most.
@Suite struct SnapshotBoundTests {
    private func volume(_ scratch: ScratchStore, _ chunk: Int) throws -> VolumeRecord {
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ScratchStore.account,
                kind: .local,
                size: 16 << 20,
                chunkSize: ChunkSize(bytes: chunk)!,
                source: nil,
                affinity: [],
                tags: [:]
            )
        }
    }

    @Test(
        "S4, S8: the earliest of as many snapshots in progress as there may be, with all tags there may be, is cancelled"
    )
    func manyWithTags() throws {
        let scratch = try ScratchStore(segmentBytes: 32 << 20)
        let volume = try volume(scratch, 64 << 10)
        let long = String(repeating: "x", count: Limits.tagBytes - 3)
        let tags = Dictionary(uniqueKeysWithValues: (100..<100 + Limits.tags).map { ("\($0)\(long)", "\(long)abc") })
        var made: [SnapshotRecord] = []
        for _ in 0..<Limits.snapshotsInProgress {
            made.append(
                try scratch.change(entries: 512) { (transaction) throws(StoreError) in
                    try transaction.createSnapshot(
                        of: try transaction.volume(volume.id)!,
                        description: String(repeating: "d", count: Limits.descriptionBytes),
                        tags: tags
                    )
                }
            )
        }
        let first = made[0].id
        try scratch.change(entries: Limits.snapshotsInProgress, reclaims: true) { (transaction) throws(StoreError) in
            try transaction.cancel(try transaction.snapshot(first)!, keepsRecord: false, at: UnixTime.milliseconds)
        }
        let view = scratch.shard.makeView()
        #expect(try view.outstanding(of: volume.id).allSatisfy(\.needsRebase))
        #expect(try view.outstanding(of: volume.id).count == Limits.snapshotsInProgress - 1)
    }

    @Test("S5, U3: as many parts as a call may have go to one chunk of a snapshot that expects others")
    func manyParts() throws {
        let scratch = try ScratchStore(segmentBytes: 32 << 20)
        let volume = try volume(scratch, 4 << 20)
        let token = chunkData(noise(4096, 3)).fingerprint
        let id = try scratch.change { (transaction) throws(StoreError) in
            let made = try transaction.createSnapshot(
                of: try transaction.volume(volume.id)!,
                description: "",
                tags: [:]
            )
            try transaction.expect([(ChunkIndex(0), token), (ChunkIndex(1), token)], in: made)
            return made.id
        }
        let part = noise(512, 4)
        let count = Limits.blocksPerCall
        try scratch.change(records: count, bytes: count * 512, entries: 8) { (transaction) throws(StoreError) in
            let target = try transaction.target(of: try transaction.snapshot(id)!)
            // No two side by side: each stays a part of its own.
            for index in 0..<count { try transaction.writePatch(at: UInt64(index) * 1024, part, of: target) }
        }
        #expect(try scratch.shard.makeView().snapshot(id)?.missing == 2)
        #expect(try scratch.shard.audit().problems == [])
    }
}
