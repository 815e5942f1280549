import CairnCore
import Foundation
import Testing

@testable import CairnStore

/// The random operations on snapshots in progress. A failing run says its seed and configuration:
/// `CAIRN_MODEL_SEED=… CAIRN_MODEL_OPERATIONS=… CAIRN_MODEL_CONFIGURATION=… swift test --filter ProgressModelTests` repeats it;
/// `tools/model` runs as many as are wanted. The operations are those of all configurations together.
@Suite struct ProgressModelTests {
    private static let environment = ProcessInfo.processInfo.environment
    private static func number(_ name: String) -> UInt64? { environment["CAIRN_MODEL_" + name].flatMap { UInt64($0) } }
    private static let configurations: [Int] =
        number("CONFIGURATION").map { [Int($0)] }
        ?? Array(0..<Int(number("CONFIGURATIONS") ?? UInt64(ModelConfiguration.count)))

    @Test(
        "V3, V5, S3, S4, S5, S6, S8, S9, U7: snapshots in progress, and what stands on them, hold what was done to them",
        arguments: configurations
    )
    func randomOperations(index: Int) throws {
        let seed = Self.number("SEED") ?? .random(in: 1...1 << 40)
        let operations = Int(Self.number("OPERATIONS") ?? 2000) / Self.configurations.count
        let configuration = ModelConfiguration(index: index)
        print("model: seed \(seed), configuration \(index) (\(configuration.description)), \(operations) operations")
        let store = try ModelStore(segmentBytes: configuration.segmentBytes, options: configuration.options)
        var run = ProgressModelRun(
            store: store,
            random: ModelRandom(state: seed &+ UInt64(index)),
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
        } catch {
            Issue.record("seed \(seed), configuration \(index), operation \(done) (\(run.last)): \(error)")
        }
    }
}
