/// Medians in microseconds, and their ratios to the first column.
struct Table {
    private let columns: [(chunks: UInt64, snapshots: Int)]
    /// What the columns' chunks are.
    private let counted: String
    private var times: [Measure: [[Double]]]
    private var processorTimes: [Measure: [[Double]]]

    init(_ columns: [(chunks: UInt64, snapshots: Int)], counted: String) {
        (self.columns, self.counted) = (columns, counted)
        let none = [[Double]](repeating: [], count: columns.count)
        times = Dictionary(uniqueKeysWithValues: Measure.allCases.map { ($0, none) })
        processorTimes = times
    }

    mutating func add(_ time: Double, _ processor: Double, _ measure: Measure, _ column: Int) {
        times[measure]![column].append(time)
        processorTimes[measure]![column].append(processor)
    }

    var text: String {
        var text = line(counted, columns.map { "\($0.chunks)" })
        text += line("snapshots of the volume", columns.map { "\($0.snapshots)" })
        text += "\nmicroseconds until the answer (ratio to the first)\n"
        for measure in Measure.allCases { text += line(measure.rawValue, Self.cells(times[measure]!)) }
        text += "\nmicroseconds of the server's processors (ratio to the first)\n"
        for measure in Measure.allCases { text += line(measure.rawValue, Self.cells(processorTimes[measure]!)) }
        return text
    }

    private static func cells(_ samples: [[Double]]) -> [String] {
        let medians = samples.map(median)
        return medians.map { "\(Int($0.rounded())) (\(hundredths($0 / medians[0])))" }
    }

    private func line(_ name: String, _ cells: [String]) -> String {
        let left = name + String(repeating: " ", count: max(0, 30 - name.count))
        return left + cells.map { String(repeating: " ", count: max(1, 15 - $0.count)) + $0 }.joined() + "\n"
    }

    private static func median(_ samples: [Double]) -> Double {
        let sorted = samples.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 0 ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
    }

    private static func hundredths(_ value: Double) -> String {
        let whole = Int((value * 100).rounded())
        return "\(whole / 100).\(whole % 100 < 10 ? "0" : "")\(whole % 100)"
    }
}
