import CairnTesting
import Testing

@testable import CairnBench

/// Files as measurements would give them, with noise of a known size.
enum Sample {
    static func run(
        _ label: String,
        _ repetition: Int,
        rate: Double,
        p99: Double,
        intervals: [Double] = [],
        bytes: UInt64 = 0
    ) -> RunResult {
        var histogram = Histogram()
        for _ in 0..<98 { histogram.record(UInt64(p99 * 500)) }
        for _ in 0..<2 { histogram.record(UInt64(p99 * 1000)) }
        let cpu = CPUTime(user: rate / 1000, system: rate / 2000)
        let tallies = intervals.map { rate in
            Interval(
                start: 0,
                seconds: 1,
                tally: Tally(operations: Int(rate), bytes: bytes, latencies: histogram),
                clientCPU: cpu,
                serverCPU: cpu
            )
        }
        let measured = Measurement(
            seconds: 10,
            latencies: histogram,
            kinds: [.upload: Tally(operations: Int(rate * 10), bytes: bytes, latencies: histogram)],
            errors: [:],
            unstarted: 0,
            clientCPU: cpu,
            serverCPU: cpu,
            intervals: tallies,
            interrupted: false
        )
        let subject = RunSubject(
            workload: "rand-upload",
            label: label,
            repetition: repetition,
            options: [:],
            connections: 1,
            inFlight: 1,
            accounts: 1
        )
        return RunResult(subject, LoadPlan(), measured)
    }

    static func file(_ runs: [RunResult]) -> BenchFile {
        BenchFile(createdAt: "2026-01-01T00:00:00Z", machine: .this(), runs: runs)
    }

    /// Five repetitions around `rate`, each off by up to `noise` percent.
    static func repetitions(_ rate: Double, noise: Double, _ random: inout SeededRandom) -> BenchFile {
        var runs = [RunResult](repeating: template, count: 5)
        for place in runs.indices {
            let dice = Double(random.below(20_001)) / 10_000 - 1
            runs[place].operationsPerSecond = rate * (1 + dice * noise / 100)
        }
        return file(runs)
    }

    private static let template = run("w", 1, rate: 1000, p99: 1000)
}

struct ComparisonTests {
    private func verdict(_ comparison: Comparison, _ metric: String) -> Comparison.Verdict? {
        comparison.changes.first { $0.metric == metric }?.verdict
    }

    @Test func theRankTestKnowsItsTables() {
        // Two-sided exact probabilities of complete separation: 2 / C(n + m, n).
        #expect(abs(RankTest.probability([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) - 2.0 / 252) < 1e-12)
        #expect(abs(RankTest.probability([6, 7, 8, 9], [1, 2, 3]) - 2.0 / 35) < 1e-12)
        // U = 1 of 25 for the smaller side: two orders of 252 are as extreme on each side.
        #expect(abs(RankTest.probability([1, 2, 3, 4, 6], [5, 7, 8, 9, 10]) - 4.0 / 252) < 1e-12)
        #expect(RankTest.probability([1, 2, 3], [1, 2, 3]) > 0.9 && RankTest.probability([], [1]) == 1)
        #expect(RankTest.probability([5, 5, 5], [5, 5, 5]) == 1)
        // Thirty and thirty apart, by the approximation.
        let many = (0..<30).map(Double.init)
        #expect(RankTest.probability(many, many.map { $0 + 100 }) < 1e-9)
    }

    @Test func whatChangedIsFound() {
        let seed = UInt64.random(in: 1...1 << 40)
        var random = SeededRandom(seed: seed)
        let before = Sample.repetitions(1000, noise: 3, &random)
        let faster = Comparison(before, Sample.repetitions(1100, noise: 3, &random), threshold: 0.02)
        #expect(verdict(faster, "operations/s") == .better, "seed \(seed)")
        let slower = Comparison(before, Sample.repetitions(900, noise: 3, &random), threshold: 0.02)
        #expect(verdict(slower, "operations/s") == .worse, "seed \(seed)")
        #expect(slower.text.contains("worse") && slower.text.contains("5+5"))
    }

    @Test("Where nothing changed, at most about one figure of a hundred is reported")
    func noiseIsNoChange() {
        let seed = UInt64.random(in: 1...1 << 40)
        var random = SeededRandom(seed: seed)
        var reported = 0
        for _ in 0..<500 {
            let (left, right) = (
                Sample.repetitions(1000, noise: 8, &random), Sample.repetitions(1000, noise: 8, &random)
            )
            let found = verdict(Comparison(left, right, threshold: 0), "operations/s")
            reported += found == .noise ? 0 : 1
        }
        // 4 of 500 are expected; 16 are six standard deviations above.
        #expect(reported <= 16, "\(reported) of 500; seed \(seed)")
    }

    @Test func smallChangesAreNotReported() {
        let before = Sample.file((1...5).map { Sample.run("w", $0, rate: 1000 + Double($0), p99: 1000) })
        let after = Sample.file((1...5).map { Sample.run("w", $0, rate: 1011 + Double($0), p99: 1000) })
        #expect(verdict(Comparison(before, after, threshold: 0.02), "operations/s") == .noise)
        #expect(verdict(Comparison(before, after, threshold: 0.005), "operations/s") == .better)
    }

    @Test("Fewer than five repetitions: the intervals are the samples; fewer than five of those are too few")
    func intervals() {
        let (slow, fast) = ((0..<11).map { 1000 + Double($0) }, (0..<11).map { 1200 + Double($0) })
        let before = Sample.file([Sample.run("w", 1, rate: 1000, p99: 1000, intervals: slow)])
        let after = Sample.file([Sample.run("w", 1, rate: 1200, p99: 1000, intervals: fast)])
        let comparison = Comparison(before, after, threshold: 0.02)
        #expect(verdict(comparison, "operations/s") == .better)
        #expect(comparison.changes.first?.samples.before == 10)
        let few = Sample.file([Sample.run("w", 1, rate: 1200, p99: 1000, intervals: [1, 2, 3])])
        #expect(verdict(Comparison(before, few, threshold: 0.02), "operations/s") == .tooFew)
    }

    @Test func whatOnlyOneFileHasIsSaid() {
        let before = Sample.file([Sample.run("a", 1, rate: 1, p99: 1)])
        let comparison = Comparison(before, Sample.file([Sample.run("b", 1, rate: 1, p99: 1)]), threshold: 0)
        #expect(comparison.changes.isEmpty && comparison.unmatched == ["a", "b"])
    }

    @Test func newFailuresAreAChange() {
        func file(_ failed: Int) -> BenchFile {
            Sample.file(
                (1...5).map {
                    var run = Sample.run("w", $0, rate: 1000, p99: 1000)
                    run.failed = failed == 0 ? 0 : failed + $0
                    return run
                }
            )
        }
        #expect(verdict(Comparison(file(0), file(9), threshold: 0.02), "failed/s") == .worse)
        #expect(verdict(Comparison(file(0), file(0), threshold: 0.02), "failed/s") == nil)
    }
}
