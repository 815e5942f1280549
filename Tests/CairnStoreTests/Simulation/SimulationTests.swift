import CairnTesting
import Foundation
import Testing

@testable import CairnStore

/// The real shard on a simulated disk and clock, one step at a time. `tools/torture simulation --seed S` runs S, S + 1, …
@Suite(.serialized) struct SimulationTests {
    @Test("C5, C6, U2, U7, U8, A1, D2, S2, S6, S8: whatever happens to the machine, what was promised is there")
    func seeds() throws {
        let count = Torture.count("simulation", otherwise: 6)
        let first = Torture.seed("simulation")
        print("simulation: seeds \(first) to \(first + UInt64(count) - 1)")
        var lost = 0
        var sum = SimulationRun.Outcome()
        for seed in first..<first + UInt64(count) {
            do {
                let outcome = try Self.run(seed)
                sum.add(outcome)
                if count == 1 { print("simulation: \(outcome)") }
            } catch {
                lost += 1
                Issue.record("simulation, seed \(seed): \(error)")
            }
        }
        Torture.report(
            "simulation",
            [
                "seeds": count, "steps": sum.steps, "calls": sum.calls, "crashes": sum.crashes, "faults": sum.faults,
                "fences": sum.fences, "repairs": sum.repairs, "recycled": sum.recycled, "full": sum.full, "lost": lost,
            ]
        )
    }

    @Test("a seed gives the same run, to the last bit, each time", arguments: [3, 14, 159] as [UInt64])
    func repetition(seed: UInt64) throws {
        let first = try Self.run(seed)
        let second = try Self.run(seed)
        #expect(first == second)
    }

    /// Seed 1033: each copy of the index began a whole round, which compacted, for which another copy was needed, and so on.
    /// Seed 194796848: purging had no room on the disk, which woke the background at once, to purge.
    /// The others: moving what segments held, seven eighths at the most, filled a segment with the ends of groups; over and over.
    /// (20263844: where that is not done at all any more, there is no room for deletions either.) The last two: a snapshot with parts of
    /// chunks was not sealed, for there was no room to merge them.
    @Test(
        "S8: on a full log the background comes to rest",
        arguments: [1033, 194_796_848, 20_261_732, 20_262_653, 20_262_784, 20_263_844, 20_267_258, 20_275_971] as [UInt64]
    )
    func rest(seed: UInt64) throws { _ = try Self.run(seed) }

    /// Seed 178871897: a read came between a sync's failure, which lost what had been answered early, and the fence: it called that
    /// damage. Since then a read that finds some has the log synced first, and looks again.
    @Test("U8, D4: what a failing sync loses is not called damaged")
    func lostBySync() throws { _ = try Self.run(178_871_897) }

    /// Seed 20276140: a quota, so nobody knew that the log was as good as full. Compaction had used the segment that is kept for deletions
    /// up, and what it had emptied waited for a copy of the index.
    @Test("S8: deletions have room on a full disk") func roomForDeletions() throws { _ = try Self.run(20_276_140) }

    @Test("a disk that does not sync is found out") func lyingDisk() throws {
        let isFoundOut = (1...40 as ClosedRange<UInt64>).contains { seed in
            do {
                _ = try Self.run(seed) { $0.lies = true }
                return false
            } catch { return true }
        }
        #expect(isFoundOut)
    }

    private static func run(
        _ seed: UInt64,
        _ prepare: (SimulatedDisk) -> Void = { _ in }
    ) throws -> SimulationRun.Outcome {
        let root = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm/" : NSTemporaryDirectory()
        let folder = root + "cairn-simulation-" + UUID().uuidString
        defer { remove(folder: folder) }
        let run = try SimulationRun(seed: seed, folder: folder)
        prepare(run.disk)
        return try run.run()
    }
}

extension SimulationRun.Outcome {
    fileprivate mutating func add(_ other: Self) {
        steps += other.steps
        calls += other.calls
        crashes += other.crashes
        faults += other.faults
        recycled += other.recycled
        fences += other.fences
        repairs += other.repairs
        full += other.full
    }
}
