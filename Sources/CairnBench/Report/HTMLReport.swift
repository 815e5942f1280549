import Foundation

/// One self-contained page of a measurement: plots as inline SVG, each with a description and with its figures in a table. No
/// script, nothing from elsewhere. It is well-formed XML as well.
public struct HTMLReport: Sendable {
    private let file: BenchFile

    public init(_ file: BenchFile) { self.file = file }

    /// - Throws: `file` where it cannot be written.
    public func write(to path: String) throws(BenchError) { try BenchFile.write(page, to: path) }

    public var page: String {
        let machine = file.machine
        let facts = [
            machine.processor, "\(machine.cores) cores", "Linux \(machine.kernel)",
            machine.build == "release" ? nil : "a \(machine.build) build: no figures to go by", file.createdAt,
        ]
        return """
            <!DOCTYPE html>
            <html lang="en" xmlns="http://www.w3.org/1999/xhtml">
            <head>
            <meta charset="utf-8"/>
            <meta name="viewport" content="width=device-width, initial-scale=1"/>
            <title>cairn-bench</title>
            <style>\(Self.style)</style>
            </head>
            <body>
            <main>
            <h1>cairn-bench</h1>
            <p>\(facts.compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: " · ").escaped)</p>
            \(section("Results", summary))
            \(section("Latency by percentile", latency))
            \(section("Throughput over time", throughput))
            \(section("Processor time", processor))
            </main>
            </body>
            </html>

            """
    }

    private func section(_ title: String, _ body: String) -> String {
        "<section>\n<h2>\(title)</h2>\n\(body)</section>"
    }

    private func name(_ run: RunResult) -> String {
        file.runs.contains { $0.label == run.label && $0.repetition != run.repetition }
            ? "\(run.label) #\(run.repetition)" : run.label
    }

    private func table(_ caption: String, _ rows: [[String]]) -> String {
        var text = "<div class=\"scroll\"><table><caption>\(caption.escaped)</caption>\n<thead><tr>"
        text += rows[0].map { "<th scope=\"col\">\($0.escaped)</th>" }.joined() + "</tr></thead>\n<tbody>\n"
        for row in rows.dropFirst() {
            let cells = row.dropFirst().map { "<td>\($0.escaped)</td>" }.joined()
            text += "<tr><th scope=\"row\">\(row[0].escaped)</th>\(cells)</tr>\n"
        }
        return text + "</tbody></table></div>\n"
    }

    private var summary: String {
        var rows = [["Run", "Load", "Operations/s", "Data", "p50", "p99", "p99.9", "Slowest", "Failed"]]
        for run in file.runs {
            let load = run.rate.map { "\(Text.rate($0))/s" } ?? "\(run.connections) × \(run.inFlight) in flight"
            let data = run.bytes > 0 ? Text.bytes(perSecond: run.bytesPerSecond) : "–"
            let latency = run.latencyUs
            let times = [latency.p50, latency.p99, latency.p999, latency.max].map { Text.time(microseconds: $0) }
            rows.append([name(run), load, Text.rate(run.operationsPerSecond), data] + times + ["\(run.failed)"])
        }
        return table("Each run: throughput, latencies, failed operations", rows)
    }
}

extension HTMLReport {
    private static let percentiles = [0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999]

    /// Along the axis each nine has the same room.
    private static func nines(_ percent: Double) -> Double { 100 / max(100 - percent, 0.0005) }

    /// Nearest rank in the buckets of a file.
    private func percentile(_ run: RunResult, _ percent: Double) -> Double {
        let total = run.histogramUs.reduce(0) { $0 + ($1.count == 2 ? $1[1] : 0) }
        let rank = max(1, (percent / 100 * total).rounded(.up))
        var seen = 0.0
        for bucket in run.histogramUs where bucket.count == 2 {
            seen += bucket[1]
            if seen >= rank { return min(bucket[0], run.latencyUs.max) }
        }
        return run.latencyUs.max
    }

    private var latency: String {
        let runs = file.runs.filter { $0.latencyUs.count > 0 }
        let lines = runs.map { run in
            // A percentile that less than one sample stands for says nothing.
            let known = Self.percentiles.filter { Double(run.latencyUs.count) * (100 - $0) / 100 >= 1 }
            return Plot.Line(name: name(run), points: known.map { (Self.nines($0), percentile(run, $0)) })
        }
        let shown = [0, 50, 90, 99, 99.9, 99.99, 99.999]
        let ticks = shown.map { percent in
            (value: Self.nines(percent), text: (percent < 99.5 ? String(Int(percent)) : String(percent)) + " %")
        }
        let plot = Plot(
            title: "Latency by percentile",
            description: "How long operations took, as the share of operations that took no longer: "
                + runs.map {
                    "\(name($0)): half within \(Text.time(microseconds: $0.latencyUs.p50)), 99 of a hundred within \(Text.time(microseconds: $0.latencyUs.p99)), the slowest \(Text.time(microseconds: $0.latencyUs.max))"
                }
                .joined(separator: "; "),
            x: .init(title: "operations that took no longer", scale: .logarithmic, range: 1...1e5, ticks: ticks),
            y: .logarithmic("latency", lines.flatMap { $0.points.map(\.y) }) { Text.time(microseconds: $0) },
            lines: lines
        )
        var rows = [["Run", "Least", "Mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "Most"]]
        for run in runs {
            let all = run.latencyUs
            let values = [all.min, all.mean, all.p50, all.p75, all.p90, all.p95, all.p99, all.p999, all.p9999, all.max]
            rows.append([name(run)] + values.map { Text.time(microseconds: $0) })
        }
        return plot.svg(id: "latency") + table("Latencies", rows)
    }

    private var throughput: String {
        let carriesData = file.runs.contains { $0.bytes > 0 }
        var text = ""
        if carriesData {
            text += series("data", "Data over time", "MB/s", file.runs.filter { $0.bytes > 0 }) {
                Double($0.bytes) / 1e6 / max($0.seconds, 1e-9)
            }
        }
        text += series("operations", "Operations over time", "operations/s", file.runs) {
            Double($0.operations) / max($0.seconds, 1e-9)
        }
        return text
    }

    private func series(
        _ id: String,
        _ title: String,
        _ unit: String,
        _ runs: [RunResult],
        _ value: (RunResult.IntervalResult) -> Double
    ) -> String {
        let lines = runs.map { run in
            Plot.Line(name: name(run), points: run.intervals.map { ($0.start + $0.seconds / 2, value($0)) })
        }
        let ends = runs.flatMap { $0.intervals.map { $0.start + $0.seconds } }
        var rows = [["Run", "Least", "Median", "Most"]]
        for line in lines {
            let values = line.points.map(\.y)
            rows.append(
                [line.name] + [values.min() ?? 0, Text.median(values), values.max() ?? 0].map { Text.digits($0) }
            )
        }
        let words = rows.dropFirst().map { "\($0[0]): between \($0[1]) and \($0[3]), median \($0[2])" }
        let plot = Plot(
            title: title,
            description: "\(unit) in each interval. " + words.joined(separator: "; "),
            x: .linear("seconds", ends, isTight: true) { Plot.number($0) },
            y: .linear(unit, lines.flatMap { $0.points.map(\.y) }) { Text.rate($0) },
            lines: lines
        )
        return plot.svg(id: id) + table("\(unit), of the intervals", rows)
    }

    private var processor: String {
        let data = file.runs.filter { $0.bytes > 0 }
        var text = ""
        if !data.isEmpty {
            text += bars("gib", "CPU seconds for each GiB", "s/GiB", data) { $0.perGiB($1) }
        }
        text += bars("operation", "CPU microseconds for each operation", "µs", file.runs) { $0.perOperation($1) }
        return text
    }

    private func bars(
        _ id: String,
        _ title: String,
        _ unit: String,
        _ runs: [RunResult],
        _ value: (RunResult, CPUSeconds?) -> Double?
    ) -> String {
        let groups = runs.map { run in
            (name: name(run), values: [value(run, run.clientCpuSeconds), value(run, run.serverCpuSeconds)])
        }
        var rows = [["Run", "Client", "Server", "Client in the kernel", "Server in the kernel"]]
        for (run, group) in zip(runs, groups) {
            let kernel = [run.clientCpuSeconds, run.serverCpuSeconds].map { cpu -> String in
                guard let cpu, cpu.total > 0 else { return "–" }
                return Text.digits(cpu.system / cpu.total * 100) + " %"
            }
            rows.append([group.name] + group.values.map { $0.map { Text.digits($0) } ?? "–" } + kernel)
        }
        let words = rows.dropFirst().map { "\($0[0]): client \($0[1]), server \($0[2])" }
        let chart = Plot.bars(
            id: id,
            title: title,
            description: words.joined(separator: "; "),
            groups: groups,
            series: ["client", "server"],
            unit: unit
        )
        return "<h3>\(title.escaped)</h3>\n" + chart + table("\(title) (\(unit))", rows)
    }

    /// Colours of both schemes have a contrast of 3 : 1 or more to their page.
    private static let style = """

        :root { color-scheme: light dark; --page: #ffffff; --ink: #1b1f24; --soft: #57606a; --grid: #d8dee4;
          --c0: #0550ae; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #bf3989; --c5: #0a7a83; --c6: #9a6700; --c7: #57606a; }
        @media (prefers-color-scheme: dark) {
          :root { --page: #0d1117; --ink: #e6edf3; --soft: #9198a1; --grid: #30363d;
            --c0: #79c0ff; --c1: #ffa657; --c2: #7ee787; --c3: #d2a8ff; --c4: #ff9bce; --c5: #76e3ea; --c6: #e3b341; --c7: #9198a1; }
        }
        body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0; }
        main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
        h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
        p { color: var(--soft); margin: .3rem 0; }
        svg { width: 100%; height: auto; display: block; }
        svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } svg .label { fill: var(--ink); }
        .grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
        .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
        .s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); }
        .s4 { --c: var(--c4); } .s5 { --c: var(--c5); } .s6 { --c: var(--c6); } .s7 { --c: var(--c7); }
        .line { stroke: var(--c); } .dot, .bar { fill: var(--c); } .key { background: var(--c); }
        .line.s1, .line.s5 { stroke-dasharray: 7 3; } .line.s2, .line.s6 { stroke-dasharray: 2 3; } .line.s3, .line.s7 { stroke-dasharray: 9 3 2 3; }
        .legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .3rem 0 .8rem; }
        .sample { width: 34px; height: 10px; margin-right: .4em; display: inline-block; }
        .key { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.1em; }
        .scroll { overflow-x: auto; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: .4rem 0 1rem; }
        caption { text-align: left; color: var(--soft); padding-bottom: .2rem; }
        th, td { padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--grid); text-align: right; font-weight: normal; white-space: nowrap; }
        thead th { color: var(--soft); } th:first-child { text-align: left; }

        """
}
