import CairnCore
import CairnLog
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// Who waits for the disk says so, and says when it does not any more.
@Suite struct DiskWaitTests {
    private final class Waits: DiskWaits {
        private let counts = Mutex((begun: 0, ended: 0))
        func beginWait() { counts.withLock { $0.begun += 1 } }
        func endWait() { counts.withLock { $0.ended += 1 } }
        var begun: Int { counts.withLock { $0.begun } }
        var isOver: Bool { counts.withLock { $0.begun == $0.ended } }
    }

    private func write(_ scratch: ScratchStore, _ volume: VolumeRecord, _ chunks: Range<UInt64>) throws {
        for chunk in chunks {
            let data = chunkData(noise(volume.chunkSize.bytes, chunk + 1))
            try scratch.change(records: 1, bytes: volume.chunkSize.bytes) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(chunk), of: volume, .data(data))
            }
        }
    }

    private func read(_ scratch: ScratchStore, _ volume: VolumeRecord, _ range: Range<UInt64>, _ waits: Waits) throws {
        var read = RangeRead(scratch.shard, ReadSource(volume), [range], acceptsLZ4: false, waits: waits)
        while try !read.step() {}
    }

    @Test("D1: a short read that is not in memory is a wait; one that fails ends it as well; a long one is none")
    func reads() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        try write(scratch, volume, 0..<20)
        let waits = Waits()
        LocalSegmentStorage.dropCaches(scratch.folder)
        try read(scratch, volume, 0..<4096, waits)
        #expect(waits.begun == 1 && waits.isOver)
        try read(scratch, volume, 0..<16 * 65536, waits)
        #expect(waits.begun == 1 && waits.isOver)
        let location = try #require(
            try scratch.shard.makeView().resolve(volume.lineage, volume.dataVersion, ChunkIndex(19)).hint
        )
        try scratch.spoil(Patch(start: 0, location: location))
        LocalSegmentStorage.dropCaches(scratch.folder)
        #expect(throws: StoreError.self) { try read(scratch, volume, 19 * 65536..<19 * 65536 + 4096, waits) }
        #expect(waits.begun > 1 && waits.isOver)
    }
}
