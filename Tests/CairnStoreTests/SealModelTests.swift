import CairnCore
import CairnTesting
import Testing

@testable import CairnStore

/// The random operations on snapshots in progress again, on volumes of several groups of chunks: seals are made of the nodes of earlier ones
/// there. A failing run says its seed: `tools/torture model --seed …` repeats it.
@Suite struct SealModelTests {
    @Test(
        "S6, S4, V5: the seals of many snapshots, whatever was written, cancelled, cloned and deleted in between",
        arguments: 0..<4
    )
    func randomOperations(number: Int) throws {
        let seed = Torture.seed("model")
        let operations = Torture.share(of: "model", .seals, otherwise: 400) / 4
        let configuration = ModelConfiguration(index: number)
        let store = try ModelStore(segmentBytes: configuration.segmentBytes, options: configuration.options)
        var run = ProgressModelRun(
            store: store,
            random: SeededRandom(seed: seed &+ UInt64(number)),
            chunkSize: ChunkSize(bytes: 4096)!,
            mix: .seals,
            sizes: 300..<1400
        )
        var done = 0
        do {
            while done < operations {
                try run.step()
                done += 1
            }
            try run.settleAndAudit()
            try run.checkAll()
            try run.deleteAll()
            Torture.report("model", ["operations": done, "configurations": 1])
        } catch {
            Issue.record("seed \(seed), number \(number), operation \(done) (\(run.last)): \(error)")
        }
    }
}
