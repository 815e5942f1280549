import Foundation

/// Figures as people read them.
enum Text {
    /// Three digits or so: `12.3 ms`.
    static func time(microseconds: Double) -> String {
        if microseconds < 1000 { return digits(microseconds) + " µs" }
        if microseconds < 1_000_000 { return digits(microseconds / 1000) + " ms" }
        return digits(microseconds / 1_000_000) + " s"
    }

    static func rate(_ perSecond: Double) -> String {
        if perSecond < 10_000 { return digits(perSecond) }
        return perSecond < 1_000_000 ? digits(perSecond / 1000) + "k" : digits(perSecond / 1_000_000) + "M"
    }

    /// Decimal, as disks and networks are measured.
    static func bytes(perSecond: Double) -> String {
        perSecond >= 1e9 ? digits(perSecond / 1e9) + " GB/s" : digits(perSecond / 1e6) + " MB/s"
    }

    /// Three significant digits, never in powers of ten.
    static func digits(_ value: Double) -> String {
        let size = abs(value)
        return String(format: size >= 99.95 || value == 0 ? "%.0f" : size >= 9.995 ? "%.1f" : "%.2f", value)
    }

    /// Columns as wide as their widest cell; the first to the left, the others to the right.
    static func table(_ rows: [[String]]) -> String {
        let widths = (0..<(rows.map(\.count).max() ?? 0)).map { column in
            rows.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            row.enumerated().map { column, cell in
                let gap = String(repeating: " ", count: widths[column] - cell.count)
                return column == 0 ? cell + gap : gap + cell
            }.joined(separator: "  ")
        }.joined(separator: "\n")
    }

    /// Of an odd or even count; 0 of none.
    static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return 0 }
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

/// The table at the end of a run.
public enum ResultTable {
    private static let titles = [
        "", "ops/s", "data", "p50", "p90", "p99", "p99.9", "max", "failed", "client CPU", "server CPU",
    ]

    /// A line for each run; of workloads with several kinds of calls one for each kind below it; of several repetitions the
    /// medians.
    public static func text(_ runs: [RunResult]) -> String {
        var rows = [titles]
        var notes: [String] = []
        var labels: [String] = []
        for run in runs where !labels.contains(run.label) { labels.append(run.label) }
        for label in labels {
            let group = runs.filter { $0.label == label }
            for run in group {
                rows.append(row(run, name: group.count > 1 ? "\(label) #\(run.repetition)" : label))
                if run.kinds.count > 1 {
                    rows += run.kinds.sorted { $0.key < $1.key }.map { kindRow($0, $1, run.seconds) }
                }
                notes += remarks(run)
            }
            if group.count > 1 { rows.append(medians(group, name: "\(label) median")) }
        }
        return ([Text.table(rows)] + notes).joined(separator: "\n") + "\n"
    }

    private static func row(_ run: RunResult, name: String) -> [String] {
        [
            name, Text.rate(run.operationsPerSecond), run.bytes > 0 ? Text.bytes(perSecond: run.bytesPerSecond) : "-",
        ] + times(run.latencyUs) + ["\(run.failed)", cpu(run, run.clientCpuSeconds), cpu(run, run.serverCpuSeconds)]
    }

    private static func times(_ latency: Latencies) -> [String] {
        [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map { Text.time(microseconds: $0) }
    }

    private static func kindRow(_ kind: String, _ result: RunResult.KindResult, _ seconds: Double) -> [String] {
        let span = max(seconds, 1e-9)
        let data = result.bytes > 0 ? Text.bytes(perSecond: Double(result.bytes) / span) : "-"
        return ["  " + kind, Text.rate(Double(result.operations) / span), data] + times(result.latencyUs)
    }

    /// For each GiB where data travels in pieces of 64 KiB or more, else for each operation.
    private static func cpu(_ run: RunResult, _ used: CPUSeconds?) -> String {
        if run.bytes >= UInt64(max(run.operations, 1)) << 16, let value = run.perGiB(used) {
            return Text.digits(value) + " s/GiB"
        }
        return run.perOperation(used).map { Text.digits($0) + " µs/op" } ?? "-"
    }

    private static func medians(_ runs: [RunResult], name: String) -> [String] {
        func median(_ value: (RunResult) -> Double) -> Double { Text.median(runs.map(value)) }
        let bytes = median { $0.bytesPerSecond }
        let times = [\Latencies.p50, \.p90, \.p99, \.p999, \.max].map { path in
            Text.time(microseconds: median { $0.latencyUs[keyPath: path] })
        }
        return [name, Text.rate(median { $0.operationsPerSecond }), bytes > 0 ? Text.bytes(perSecond: bytes) : "-"]
            + times
    }

    private static func remarks(_ run: RunResult) -> [String] {
        var notes: [String] = []
        if !run.errors.isEmpty {
            let all = run.errors.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }
            notes.append("\(run.label) #\(run.repetition): failed: " + all.joined(separator: ", "))
        }
        if run.unstarted > 0 {
            notes.append("\(run.label) #\(run.repetition): \(run.unstarted) operations were due and never began")
        }
        if run.interrupted {
            notes.append("\(run.label) #\(run.repetition): interrupted after \(Text.digits(run.seconds)) s")
        }
        return notes
    }
}
