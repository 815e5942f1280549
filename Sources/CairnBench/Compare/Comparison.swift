/// What changed between two measurements.
public struct Comparison: Sendable {
    public enum Verdict: String, Sendable, Equatable {
        case better, worse
        /// Neither: the same, as far as these samples tell.
        case noise = "same"
        case tooFew = "too few samples"
    }

    /// One figure of one workload.
    public struct Change: Sendable {
        public let label: String
        public let metric: String
        /// Medians.
        public let before: Double
        public let after: Double
        public let samples: (before: Int, after: Int)
        public let probability: Double
        public let verdict: Verdict
        /// Of ``before``; 0 where that is 0.
        public var change: Double { before == 0 ? 0 : (after - before) / before }
    }

    public static let rule = """
        A workload is compared where both files have it under the same name. Each figure has a sample for each repetition; \
        where either file has fewer than 5 repetitions, for each interval of the series instead, and then only figures that intervals \
        have.

        A figure changed when (1) the Mann-Whitney U test, two-sided, gives its samples less than 1 % of probability to be of the \
        same thing, and (2) its median changed by more than --threshold percent. With 5 repetitions on each side, (1) holds exactly \
        when every sample of one side is beyond every sample of the other. Of a hundred figures of which none changed, at most \
        about one is reported all the same. Intervals of one run know nothing of what differs from run \
        to run: repetitions are the better samples. Interleave them: A B A B.
        """
    /// Of the rank test.
    static let significance = 0.01
    private static let leastRepetitions = 5

    public let changes: [Change]
    /// Names of workloads that only one of the files has.
    public let unmatched: [String]

    /// - Parameter threshold: parts of one.
    public init(_ before: BenchFile, _ after: BenchFile, threshold: Double) {
        var changes: [Change] = []
        let labels = before.labels
        let common = labels.filter { after.labels.contains($0) }
        unmatched = labels.filter { !common.contains($0) } + after.labels.filter { !common.contains($0) }
        for label in common {
            let (old, new) = (before.runs.filter { $0.label == label }, after.runs.filter { $0.label == label })
            let byRun = min(old.count, new.count) >= Self.leastRepetitions
            for metric in Metric.all {
                let samples = [old, new].map { runs in byRun ? metric.samples(runs) : metric.intervalSamples(runs) }
                guard !samples[0].isEmpty, !samples[1].isEmpty else { continue }
                // That nothing failed is no news.
                if metric.isOfFailures, samples.allSatisfy({ $0.allSatisfy { $0 == 0 } }) { continue }
                changes.append(Self.judge(label, metric, samples[0], samples[1], threshold))
            }
        }
        self.changes = changes
    }

    private static func judge(
        _ label: String,
        _ metric: Metric,
        _ old: [Double],
        _ new: [Double],
        _ threshold: Double
    ) -> Change {
        let (before, after) = (Text.median(old), Text.median(new))
        let probability = RankTest.probability(old, new)
        let isLarge = abs(after - before) > threshold * abs(before)
        let verdict: Verdict
        if min(old.count, new.count) < leastRepetitions {
            verdict = .tooFew
        } else if probability < significance, isLarge {
            verdict = (after > before) == metric.moreIsBetter ? .better : .worse
        } else {
            verdict = .noise
        }
        return Change(
            label: label,
            metric: metric.name,
            before: before,
            after: after,
            samples: (old.count, new.count),
            probability: probability,
            verdict: verdict
        )
    }

    /// A table, and what could not be compared.
    public var text: String {
        var rows = [["", "before", "after", "change", "p", "samples", "verdict"]]
        var last = ""
        for change in changes {
            if change.label != last { rows.append([change.label]) }
            last = change.label
            let percent = change.change * 100
            rows.append([
                "  " + change.metric, Text.digits(change.before), Text.digits(change.after),
                (percent > 0 ? "+" : "") + Text.digits(percent) + " %",
                change.probability < 0.0001 ? "<0.0001" : "\((change.probability * 10000).rounded() / 10000)",
                "\(change.samples.before)+\(change.samples.after)", change.verdict.rawValue,
            ])
        }
        var text = Text.table(rows) + "\n"
        for label in unmatched { text += "\(label): only in one of the files\n" }
        return text
    }
}

extension BenchFile {
    /// In the order of the file, each once.
    var labels: [String] {
        var labels: [String] = []
        for run in runs where !labels.contains(run.label) { labels.append(run.label) }
        return labels
    }
}

/// A figure that is compared.
struct Metric: Sendable {
    let name: String
    let moreIsBetter: Bool
    /// Nil where a run has none.
    let ofRun: @Sendable (RunResult) -> Double?
    /// Nil where an interval has none.
    let ofInterval: @Sendable (RunResult.IntervalResult) -> Double?

    var isOfFailures: Bool { name == "failed/s" }

    func samples(_ runs: [RunResult]) -> [Double] { runs.compactMap(ofRun) }

    /// The last interval of a run may be a short one: it is left out where there are others.
    func intervalSamples(_ runs: [RunResult]) -> [Double] {
        runs.flatMap { run in
            (run.intervals.count > 1 ? run.intervals.dropLast() : run.intervals[...]).compactMap(ofInterval)
        }
    }

    static let all: [Metric] = [
        Metric(name: "operations/s", moreIsBetter: true) {
            $0.operationsPerSecond
        } ofInterval: {
            $0.seconds > 0 ? Double($0.operations) / $0.seconds : nil
        },
        latency("p50 µs", \.p50) { $0.p50Us },
        latency("p99 µs", \.p99) { $0.p99Us },
        // Too few operations of one interval are that slow.
        latency("p99.9 µs", \.p999) { _ in nil },
        Metric(name: "client CPU µs/op", moreIsBetter: false) {
            $0.perOperation($0.clientCpuSeconds)
        } ofInterval: {
            $0.operations > 0 ? $0.clientCpuSeconds * 1e6 / Double($0.operations) : nil
        },
        Metric(name: "server CPU µs/op", moreIsBetter: false) {
            $0.perOperation($0.serverCpuSeconds)
        } ofInterval: { interval in
            interval.operations > 0 ? interval.serverCpuSeconds.map { $0 * 1e6 / Double(interval.operations) } : nil
        },
        Metric(name: "failed/s", moreIsBetter: false) {
            $0.seconds > 0 ? Double($0.failed) / $0.seconds : nil
        } ofInterval: {
            $0.seconds > 0 ? Double($0.failed) / $0.seconds : nil
        },
    ]

    private static func latency(
        _ name: String,
        _ run: KeyPath<Latencies, Double> & Sendable,
        _ interval: @escaping @Sendable (RunResult.IntervalResult) -> Double?
    ) -> Metric {
        Metric(name: name, moreIsBetter: false) {
            $0.latencyUs.count > 0 ? $0.latencyUs[keyPath: run] : nil
        } ofInterval: {
            $0.operations > 0 ? interval($0) : nil
        }
    }
}
