import ArgumentParser
import CairnClient
import CairnCore
import CairnTransport

/// Shows what an account's calls take beside others (SPEC R3): `tools/fairness` runs it against a server of its own.
@main
struct Fairness: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn-fairness",
        abstract: "Measures one account's small calls alone, beside a modest account, and beside a greedy one."
    )

    @Option(help: "The server's address.") var server: String
    @Option(help: "The victim's certificate and key: PATH.crt and PATH.key.") var victim: String
    @Option(help: "The other account's certificate and key.") var other: String
    @Option(help: "Seconds of each phase.") var seconds = 10
    @Option(help: "Rounds of the three phases: they alternate, so that all meet the same machine.") var rounds = 3
    @Option(help: "Connections of the greedy account.") var connections = 16
    @Option(help: "Calls that the greedy account has under way on each.") var inFlight = 16

    func run() async throws {
        guard let endpoint = Endpoint(text: server), seconds > 0, rounds > 0 else {
            throw ValidationError("a server's address, a time and a number of rounds are needed")
        }
        let small = try await Tenant.make(endpoint, victim, connections: 1)
        let modest = try await Tenant.make(endpoint, other, connections: 1)
        let greedy = try await Tenant.make(endpoint, other, connections: connections)
        var samples: [Company: Samples] = [:]
        for _ in 0..<rounds {
            for company in Company.allCases {
                let others: Load? =
                    switch company {
                    case .none: nil
                    case .modest: Load(tenant: modest, writers: 1, bytes: 4096)
                    case .greedy: Load(tenant: greedy, writers: connections * inFlight, bytes: 1 << 20)
                    }
                samples[company, default: Samples()].add(try await measure(small, beside: others))
            }
        }
        print(Self.table(samples), terminator: "")
    }

    private func measure(_ victim: Tenant, beside load: Load?) async throws -> Samples {
        let end = ContinuousClock.now + .seconds(seconds)
        return try await withThrowingTaskGroup(of: Samples?.self) { group in
            if let load {
                for writer in 0..<load.writers {
                    group.addTask {
                        _ = try await load.tenant.work(until: end, bytes: load.bytes, lane: writer)
                        return nil
                    }
                }
            }
            group.addTask { try await victim.work(until: end, bytes: 4096, lane: 0) }
            var samples = Samples()
            for try await one in group { if let one { samples = one } }
            return samples
        }
    }

    private static func table(_ samples: [Company: Samples]) -> String {
        var text =
            pad("the victim's calls", 34) + ["p50 ms", "p99 ms", "p50 ×", "p99 ×", "calls"].map { pad($0) }.joined()
        for kind in Samples.Kind.allCases {
            for company in Company.allCases {
                let alone = samples[.none]!.times[kind]!
                let now = samples[company]!.times[kind]!
                let values = [0.5, 0.99].map { (percentile(now, $0), percentile(alone, $0)) }
                text += "\n" + pad("\(kind.rawValue), \(company.rawValue)", 34)
                text += values.map { pad(decimal($0.0 * 1000)) }.joined()
                text += values.map { pad(decimal($0.0 / $0.1)) }.joined() + pad("\(now.count)")
            }
        }
        return text + "\n"
    }

    private static func pad(_ text: String, _ width: Int = 10) -> String {
        let fill = String(repeating: " ", count: max(0, width - text.count))
        return width == 10 ? fill + text : text + fill
    }
    private static func decimal(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
    }
    private static func percentile(_ times: [Double], _ part: Double) -> Double {
        let sorted = times.sorted()
        return sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))]
    }
}

/// Who else is at work.
enum Company: String, CaseIterable {
    case none = "alone"
    case modest = "beside a modest account"
    case greedy = "beside a greedy account"
}

struct Load: Sendable {
    let tenant: Tenant
    /// Calls under way at once.
    let writers: Int
    let bytes: Int
}

/// Seconds that calls took.
struct Samples: Sendable {
    enum Kind: String, CaseIterable, Sendable {
        case write = "4 KiB written"
        case read = "4 KiB read"
    }
    var times: [Kind: [Double]] = [.write: [], .read: []]

    mutating func add(_ more: Samples) {
        for (kind, times) in more.times { self.times[kind]! += times }
    }
}
