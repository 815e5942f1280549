import CairnCore
import Testing

@testable import CairnStore

/// What GetUsage walks through (SPEC R2).
@Suite struct UsageWalkTests {
    @Test("R2: a volume that was deleted between its being found and the walk is told to be gone; others are counted")
    func goneBeforeTheWalk() throws {
        let scratch = try ScratchStore()
        let (kept, gone) = (try scratch.volume(), try scratch.volume())
        try scratch.change(records: 2, bytes: 64 << 10) { (transaction) throws(StoreError) in
            for (volume, seed) in [(kept, UInt64(1)), (gone, 2)] {
                try transaction.writePatch(at: 0, noise(32 << 10, seed), of: volume)
            }
        }
        let lineage = gone.lineage
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteVolume(try transaction.volume(gone.id)!)
        }
        #expect(scratch.eventually { (try? scratch.shard.makeView().lineage(lineage)) == nil })
        let walk = try UsageWalk(scratch.shard, of: ScratchStore.account) {}
        let present = try [kept, gone].compactMap { volume in try walk.present(.volume(volume)) }
        #expect(present.count == 1)
        #expect(try walk.holding(present).storedBytes >= 32 << 10)
        #expect(throws: StoreError.self) { _ = try walk.holding([.volume(gone)]) }
    }
}
