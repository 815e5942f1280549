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

    @Test("R2, R3: of a volume or snapshot that is walked no tags are kept, and no more than some 100 bytes")
    func small() throws {
        // No references: nothing of a record hides behind it.
        #expect(_isPOD(UsageWalk.Target.self) && MemoryLayout<UsageWalk.Target>.stride <= 128)
    }

    @Test("R2: an account's whole is its volumes and its snapshots, but the initial ones, however many they are")
    func everything() throws {
        let scratch = try ScratchStore(segmentBytes: 32 << 20)
        let volume = try scratch.volume()
        try scratch.change(entries: 4000) { (transaction) throws(StoreError) in
            for number in 0..<150 {
                let present = try transaction.volume(volume.id)!
                _ = try transaction.createSnapshot(of: present, description: "", tags: ["number": "\(number)"])
            }
            for _ in 0..<70 {
                _ = try transaction.createVolume(
                    account: ScratchStore.account,
                    kind: .remote,
                    size: 1 << 20,
                    chunkSize: .minimum,
                    source: nil,
                    affinity: [],
                    tags: [:]
                )
            }
        }
        let walk = try UsageWalk(scratch.shard, of: ScratchStore.account) {}
        let all = try walk.everything()
        #expect(all.count { $0.isVolume } == 71 && all.count { !$0.isVolume } == 150)
        #expect(all.reduce(0) { $0 + $1.size } == 151 * (16 << 20) + 70 << 20)
        let others = try UsageWalk(scratch.shard, of: AccountID("other")!) {}
        #expect(try others.everything().isEmpty)
    }
}
