/// Medians in milliseconds, and their ratios to the smallest case.
struct Table {
    private let subjects: [Subject]
    private var samples: [Measure: [[Duration]]]

    init(_ subjects: [Subject]) {
        self.subjects = subjects
        samples = Dictionary(
            uniqueKeysWithValues: Measure.allCases.map { ($0, [[Duration]](repeating: [], count: subjects.count)) }
        )
    }

    mutating func add(_ sample: Duration, _ measure: Measure, _ subject: Int) {
        samples[measure]![subject].append(sample)
    }

    var text: String {
        var text = line("milliseconds (ratio)", subjects.map { "\($0.chunks) chunks" })
        text += line("", subjects.map { "\($0.snapshots) snapshots" })
        for measure in Measure.allCases {
            let medians = samples[measure]!.map(Self.median)
            text += line(
                measure.rawValue,
                medians.map { Self.decimals($0, 3) + " (" + Self.decimals($0 / medians[0], 2) + ")" }
            )
        }
        return text
    }

    private func line(_ name: String, _ cells: [String]) -> String {
        let left = name + String(repeating: " ", count: max(0, 30 - name.count))
        return left + cells.map { String(repeating: " ", count: max(1, 18 - $0.count)) + $0 }.joined() + "\n"
    }

    /// Of an odd or even count, in milliseconds.
    private static func median(_ samples: [Duration]) -> Double {
        let sorted = samples.sorted()
        let middle = sorted.count / 2
        let both = sorted.count % 2 == 0 ? [sorted[middle - 1], sorted[middle]] : [sorted[middle]]
        return both.reduce(0) { $0 + $1 / .milliseconds(1) } / Double(both.count)
    }

    private static func decimals(_ value: Double, _ count: Int) -> String {
        let scale = (0..<count).reduce(1) { product, _ in product * 10 }
        let scaled = Int((value * Double(scale)).rounded())
        let rest = String(scaled % scale)
        return "\(scaled / scale)." + String(repeating: "0", count: count - rest.count) + rest
    }
}
