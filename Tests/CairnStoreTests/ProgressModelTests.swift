import CairnCore
import Foundation
import Testing

@testable import CairnStore

/// The random operations on snapshots in progress. A failing run says its seed:
/// `CAIRN_MODEL_SEED=… CAIRN_MODEL_OPERATIONS=… swift test --filter ProgressModelTests` repeats and enlarges it.
@Suite(.serialized) struct ProgressModelTests {
    @Test(
        "V3, V5, S3, S4, S5, S6, S8, S9, U7: snapshots in progress, and what stands on them, hold what was done to them",
        arguments: [12, 14]
    )
    func randomOperations(chunkExponent: Int) throws {
        let environment = ProcessInfo.processInfo.environment
        let seed = environment["CAIRN_MODEL_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...1 << 40)
        let operations = environment["CAIRN_MODEL_OPERATIONS"].flatMap { Int($0) } ?? 600
        print("model: seed \(seed), \(operations) operations, chunks of \(1 << chunkExponent) bytes")
        var options = StoreOptions()
        options.leaseTime = .milliseconds(2)
        options.checkpointBytes = 512 << 10
        options.indexFlushBytes = 256 << 10
        options.spareSegments = 1
        let store = try ModelStore(segmentBytes: 1 << 20, options: options)
        var run = ProgressModelRun(
            store: store,
            random: ModelRandom(state: seed),
            chunkSize: ChunkSize(bytes: 1 << chunkExponent)!
        )
        var done = 0
        do {
            while done < operations {
                try run.step()
                done += 1
            }
            try run.checkAll()
            try run.deleteAll()
        } catch {
            Issue.record("seed \(seed), operation \(done) (\(run.last)): \(error)")
        }
    }
}
