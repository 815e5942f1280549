import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnStore

/// The random operations on snapshots in progress. A failing run says its seed and configuration:
/// `tools/torture model --seed … --only CONFIGURATION` repeats it. The operations are those of all configurations together.
@Suite struct ProgressModelTests {
    private static let configurations: [Int] =
        Torture.only("model").map { [$0] } ?? Array(0..<ModelConfiguration.count)

    @Test(
        "V3, V5, S3, S4, S5, S6, S8, S9, U7: snapshots in progress, and what stands on them, hold what was done to them",
        arguments: configurations
    )
    func randomOperations(index: Int) throws {
        let seed = Torture.seed("model")
        let operations = Torture.share(of: "model", .progress, otherwise: 2000) / ModelConfiguration.count
        let configuration = ModelConfiguration(index: index)
        print("model: seed \(seed), configuration \(index) (\(configuration.description)), \(operations) operations")
        let store = try ModelStore(segmentBytes: configuration.segmentBytes, options: configuration.options)
        var run = ProgressModelRun(
            store: store,
            random: SeededRandom(seed: seed &+ UInt64(index)),
            chunkSize: ChunkSize(bytes: configuration.chunkBytes)!,
            mix: configuration.mix
        )
        var done = 0
        do {
            while done < operations {
                try run.step()
                done += 1
            }
            try run.checkAll()
            try run.deleteAll()
            Torture.report("model", ["operations": done, "configurations": 1])
        } catch {
            Issue.record("seed \(seed), configuration \(index), operation \(done) (\(run.last)): \(error)")
        }
    }
}
