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
        var (harmful, chunks) = (0, 0)
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
        }
        _ = try store.scratch.scrub()
        #expect(try store.named().isEmpty, "all faults undone, seed \(seed)")
        #expect(store.readAll().lost.isEmpty, "all faults undone, seed \(seed)")
        #expect(try store.scratch.shard.audit().problems == [], "seed \(seed)")
        // A harness that does no harm proves nothing.
        #expect(harmful * 4 > count, "only \(harmful) of \(count) did harm, seed \(seed)")
        Torture.report("rot", ["faults": count, "harmful": harmful, "chunks": chunks, "wrong": 0, "unnamed": 0])
    }

    @Test("rot in the index, superblock and header: the store opens and reads right, or says what is damaged and where")
    func metadata() throws {
        let count = max(1, Torture.count("rot", otherwise: 60) / 8)
        let seed = Torture.seed("rot")
        var random = SeededRandom(seed: seed &+ 1)
        let store = try RotStore()
        store.close()
        let image = try MetadataImage(store)
        defer { image.remove() }
        var refused = 0
        for number in 0..<count {
            let place = { (text: String) in "metadata fault \(number), \(text), seed \(seed)" }
            let text = try image.spoil(&random)
            do {
                try store.open(at: image.copy)
            } catch let error as StoreError {
                refused += 1
                #expect(
                    [.damaged, .io, .notAStore, .newerFormat].contains(error.code),
                    "\(place(text)): \(error.code)"
                )
                #expect(error.text.count > 10, "\(place(text)): \(error)")
                continue
            }
            let (lost, problems) = store.readAll()
            let status = try store.scratch.scrub()
            let named = try store.named()
            #expect(problems == [], "\(place(text))")
            // What cannot be found for the index's sake is told as the index's damage.
            if status.indexProblem == nil { #expect(named == lost, "\(place(text))") }
            store.close()
        }
        Torture.report("rot", ["faults": count, "refused": refused, "wrong": 0])
    }
}
