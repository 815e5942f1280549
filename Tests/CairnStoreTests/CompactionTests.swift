import CairnCore
import Testing

@testable import CairnStore

@Suite struct CompactionTests {
    @Test("S8, V5: segments that hold parts of one chunk, many of them, are emptied as well")
    func manyParts() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.spareSegments = 1 }
        func create(_ kind: VolumeKind, from source: SnapshotRecord?, chunk: Int) throws -> VolumeRecord {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.createVolume(
                    account: ScratchStore.account,
                    kind: kind,
                    size: 4 << 20,
                    chunkSize: ChunkSize(bytes: chunk)!,
                    source: source,
                    affinity: [],
                    tags: [:]
                )
            }
        }
        // Over a snapshot in progress parts are not merged.
        let local = try create(.local, from: nil, chunk: 4 << 20)
        let pending = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: local, description: "", tags: [:])
        }
        let clone = try create(.remote, from: pending, chunk: 4 << 20)
        let other = try create(.remote, from: nil, chunk: 64 << 10)
        for round in 0..<40 {
            try scratch.change(records: 28, bytes: 220 << 10, entries: 256) { (transaction) throws(StoreError) in
                for part in 0..<25 {
                    let bytes = noise(512, UInt64(round * 25 + part) + 1)
                    try transaction.writePatch(at: UInt64(round * 25 + part) * 1024, bytes, of: clone)
                }
                for chunk in 0..<3 {
                    let data = chunkData(noise(64 << 10, UInt64(5000 + round * 3 + chunk)))
                    try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: other, .data(data))
                }
            }
        }
        // What was written over between the parts is free again.
        let isDense = scratch.eventually { scratch.shard.log.segments.count { $0.use == .closed } <= 3 }
        #expect(isDense, "\(scratch.shard.log.segments.count { $0.use == .closed }) segments")
        let pieces = try scratch.shard.read(ReadSource(clone), [0..<1000 * 1024], acceptsLZ4: false)
        guard case .plain(let bytes, _) = pieces.first?.content else {
            Issue.record("no data")
            return
        }
        withExtendedLifetime(bytes) {
            for part in 0..<1000 {
                let expected = noise(512, UInt64(part) + 1)
                let isSame = withExtendedLifetime(expected) {
                    bytes.bytes[part * 1024..<part * 1024 + 512].elementsEqual(expected.bytes)
                }
                #expect(isSame, "part \(part)")
            }
        }
        #expect(try scratch.shard.audit().problems == [])
    }
}
