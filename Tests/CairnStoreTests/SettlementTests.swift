import CairnCore
import Testing

@testable import CairnStore

/// What waits for a snapshot in progress (SPEC V5).
@Suite struct SettlementTests {
    private func volume(_ scratch: ScratchStore, _ kind: VolumeKind, from source: SnapshotRecord?) throws
        -> VolumeRecord
    {
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ScratchStore.account,
                kind: kind,
                size: 1 << 20,
                chunkSize: ChunkSize(bytes: 64 << 10)!,
                source: source,
                affinity: [],
                tags: [:]
            )
        }
    }

    private func snapshot(_ scratch: ScratchStore, _ volume: VolumeRecord) throws -> SnapshotRecord {
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
        }
    }

    @Test("V5, S6: a clone of a clone is sealed, also where the snapshot in between is gone")
    func snapshotInBetween() throws {
        let scratch = try ScratchStore()
        let source = try snapshot(scratch, try volume(scratch, .local, from: nil))
        let clone = try volume(scratch, .remote, from: source)
        let between = try snapshot(scratch, clone)
        let last = try snapshot(scratch, try volume(scratch, .remote, from: between))
        #expect(last.state == .waiting)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(between.id)!)
            try transaction.deleteVolume(try transaction.volume(clone.id)!)
            _ = try transaction.complete(try transaction.snapshot(source.id)!, at: UnixTime.milliseconds)
        }
        #expect(try scratch.eventually { try scratch.shard.makeView().snapshot(last.id)?.seal != nil })
        #expect(try scratch.isEmpty(.waiting))
        #expect(try scratch.shard.audit().problems == [])
    }
}
