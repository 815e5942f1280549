import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnStore

/// Level `rot`: faults on the disk under an open store, and in the metadata of a closed one. No wrong byte is ever read, nothing
/// crashes or hangs, and a scrub names every chunk that a reader stumbles over, and no other.
///
/// A fault in a segment is undone after the check; the marks of the one before are taken back by the next one's scrub.
@Suite(.serialized) struct RotTests {
    @Test("D4: rot in segments: right bytes or a typed error, and scrub names just what is lost")
    func segments() throws {
        let count = max(1, Torture.count("rot", otherwise: 60) * 7 / 8)
        let seed = Torture.seed("rot")
        var random = SeededRandom(seed: seed)
        let store = try RotStore()
        try #require(store.healthy.count >= 3)
        #expect(store.readAll().lost.isEmpty && store.readAll().problems.isEmpty)
        var (harmful, chunks, wrong, unnamed) = (0, 0, 0, 0)
        for number in 0..<count {
            let fault = try SegmentFault(&random, in: store)
            try fault.apply()
            let (lost, problems) = store.readAll()
            let status = try store.scratch.scrub()
            let named = try store.named()
            try fault.undo()
            let place = "fault \(number), \(fault.text), seed \(seed)"
            #expect(problems == [], "\(place)")
            #expect(
                named == lost,
                "\(place): scrub named \(named.subtracting(lost)) and not \(lost.subtracting(named))"
            )
            #expect(status.indexProblem == nil, "\(place)")
            harmful += lost.isEmpty ? 0 : 1
            chunks += lost.count
            wrong += problems.count
            unnamed += lost.symmetricDifference(named).count
        }
        _ = try store.scratch.scrub()
        #expect(try store.named().isEmpty, "all faults undone, seed \(seed)")
        #expect(store.readAll().lost.isEmpty, "all faults undone, seed \(seed)")
        #expect(try store.scratch.shard.audit().problems == [], "seed \(seed)")
        // A harness that does no harm proves nothing.
        #expect(harmful * 4 > count, "only \(harmful) of \(count) did harm, seed \(seed)")
        Torture.report(
            "rot",
            ["faults": count, "harmful": harmful, "chunks": chunks, "wrong": wrong, "unnamed": unnamed]
        )
    }

    @Test(
        "rot in the index, its copies, superblock and header: right bytes, or it is said what is damaged, and repaired"
    )
    func metadata() throws {
        let count = max(1, Torture.count("rot", otherwise: 60) / 8)
        let seed = Torture.seed("rot")
        var random = SeededRandom(seed: seed &+ 1)
        let store = try RotStore(hasCopies: true)
        store.close()
        let image = try MetadataImage(store)
        defer { image.remove() }
        try #require(image.copies.sorted() == [1, 2])
        var run = MetadataRun(store, image)
        for number in 0..<count {
            let fault = try MetadataFault(&random, in: image)
            // A repair costs more than all the rest.
            let isRepaired = number < 16 || number.isMultiple(of: 4)
            try run.check(fault, repairs: isRepaired, "metadata fault \(number), \(fault.text), seed \(seed)")
        }
        // A harness that looks away proves nothing.
        let hasLooked = run.refused > 0 && run.rottenCopies > 0 && run.repaired > 0
        #expect(hasLooked || count < 100, "seed \(seed)")
        Torture.report(
            "rot",
            [
                "faults": count, "refused": run.refused, "rotten-copies": run.rottenCopies, "repaired": run.repaired,
                "wrong": run.wrong, "unnamed": run.unnamed, "unrepaired": run.unrepaired,
            ]
        )
    }
}
