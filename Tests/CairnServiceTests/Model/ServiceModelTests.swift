import CairnTesting
import Testing

/// The random calls on a service with several accounts and shards. A failing run says its seed and configuration:
/// `tools/torture model --seed … --only CONFIGURATION` makes the same calls, with the same count. What the background does between them
/// is up to the machine, and where an answer depends on it the run makes up for that by a call more; the simulation (``SimulationTests``)
/// repeats the background as well.
@Suite(.serialized) struct ServiceModelTests {
    private static let configurations: [Int] =
        Torture.only("model").map { [$0] } ?? Array(0..<ServiceModelConfiguration.count)

    @Test(
        "C2, C3, C5, V1, V2, V3, V4, V5, V7, V9, S1, S2, S3, S4, S5, S6, S8, S9, S11, U1, U2, U5, U6, U7, U8, D1, D2, D5, A1, A4, R1, R2, R3, R5, R6: what several accounts do is what each of them then sees, and nobody else",
        arguments: configurations
    )
    func randomCalls(index: Int) throws {
        let seed = Torture.seed("model")
        let operations = Torture.share(of: "model", .service, otherwise: 2000) / ServiceModelConfiguration.count
        let configuration = ServiceModelConfiguration(index: index)
        print(
            "model: seed \(seed), service configuration \(index) (\(configuration.description)), \(operations) operations"
        )
        var done = 0
        var last = ""
        do {
            let run = try ServiceModelRun(configuration, seed: seed &+ UInt64(index) &* 1_000_003)
            defer { last = run.last }
            while done < operations {
                try run.step()
                done += 1
            }
            try run.probeAll()
            try run.deleteAll()
            if operations > 2000, configuration.mix.inProgress > 6 { #expect(run.mostInProgress > 20) }
            Torture.report(
                "model",
                [
                    "operations": done, "configurations": 1, "forbidden": run.verdicts.refused,
                    "undecided": run.verdicts.either,
                ]
            )
        } catch {
            Issue.record("seed \(seed), service configuration \(index), operation \(done) (\(last)): \(error)")
        }
    }

    @Test("A seed's calls are the same each time, and find the same", arguments: [0, 3, 5, 9, 14, 17])
    func repeated(index: Int) throws {
        let configuration = ServiceModelConfiguration(index: index)
        let seed = Torture.seed("model")
        let traces = try (0..<2).map { _ -> [String] in
            let run = try ServiceModelRun(configuration, seed: seed)
            run.server.trace = CallTrace()
            return try (0..<400).flatMap { operation -> [String] in
                do { try run.step() } catch {
                    throw ModelFailure("seed \(seed), service configuration \(index), operation \(operation): \(error)")
                }
                return run.takeTrace().map { "operation \(operation): \($0)" }
            }
        }
        let first = zip(traces[0], traces[1]).first { $0 != $1 }
        #expect(first == nil, "seed \(seed): they differ from here on")
        #expect(traces[0].count == traces[1].count, "seed \(seed)")
        // There are calls beside the steps' ends.
        #expect(traces[0].count > 400, "seed \(seed)")
    }
}
