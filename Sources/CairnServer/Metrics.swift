import CairnRPC
import CairnService
import CairnWire
import Foundation
import Synchronization

/// Counts the calls of all connections (SPEC R4). By method and status only: no account, volume or snapshot is a label (C3).
final class CallCounters: CallObserver {
    /// The calls of one method.
    private struct OfMethod {
        /// By status.
        var calls = [UInt64](repeating: 0, count: Status.allCases.count)
        var small = CallTimes()
        /// With bytes enough to take their time by themselves.
        var large = CallTimes()
    }
    /// Request and answer together; beyond it a call is a large one.
    private static let smallBytes = 64 << 10

    /// In the order in which they are told of.
    private static let methods = Wire.Method.allCases.sorted { $0.rawValue < $1.rawValue }
    /// The place of each number among the methods.
    private static let places: [Int?] = {
        var places = [Int?](repeating: nil, count: Int(methods.last!.rawValue) + 1)
        for (place, method) in methods.enumerated() where method.rawValue >= 0 { places[Int(method.rawValue)] = place }
        return places
    }()

    private struct State {
        /// Those of the methods, and last those of all numbers that no method has: whatever a peer sends is one label.
        var methods = [OfMethod](repeating: OfMethod(), count: CallCounters.methods.count + 1)
        var requestBytes: UInt64 = 0
        var answerBytes: UInt64 = 0
    }
    private let state = Mutex(State())
    private let underWay = Atomic<Int>(0)
    private let connections = Atomic<Int>(0)

    /// Calls that have come and are not answered.
    var inFlight: Int { underWay.load(ordering: .relaxed) }

    /// A client was let in, or has gone.
    func opened() { connections.add(1, ordering: .relaxed) }
    func closed() { connections.subtract(1, ordering: .relaxed) }

    func began(method: UInt32) { underWay.add(1, ordering: .relaxed) }

    func ended(_ outcome: CallOutcome) {
        underWay.subtract(1, ordering: .relaxed)
        let place = (outcome.method < Self.places.count ? Self.places[Int(outcome.method)] : nil) ?? Self.methods.count
        state.withLock { state in
            state.methods[place].calls[Int(outcome.status)] += 1
            state.requestBytes += UInt64(outcome.requestBytes)
            state.answerBytes += UInt64(outcome.answerBytes)
            if outcome.requestBytes + outcome.answerBytes > Self.smallBytes {
                state.methods[place].large.add(nanoseconds: outcome.nanoseconds)
            } else {
                state.methods[place].small.add(nanoseconds: outcome.nanoseconds)
            }
        }
    }

    func write(to text: inout MetricsText) {
        let state = state.withLock { $0 }
        text.family("cairn_calls_total", .counter, "Calls that were answered, by method and status.")
        let names = Self.methods.map(\.name) + ["unknown"]
        for (name, method) in zip(names, state.methods) {
            for (status, count) in zip(Status.allCases, method.calls) where count > 0 {
                text.sample("cairn_calls_total", ["method": name, "status": "\(status)"], count)
            }
        }
        text.family("cairn_call_seconds", .histogram, "From a call's arrival to its answer, by method and size.")
        for (name, method) in zip(names, state.methods) {
            for (size, times) in [("small", method.small), ("large", method.large)] where times.isAny {
                times.write(to: &text, "cairn_call_seconds", "method=\"\(name)\",size=\"\(size)\"")
            }
        }
        text.one("cairn_request_bytes_total", .counter, "Bytes of calls' frames that came in.", state.requestBytes)
        text.one("cairn_answer_bytes_total", .counter, "Bytes of answers' frames that went out.", state.answerBytes)
        text.one(
            "cairn_connections",
            .gauge,
            "Connections that were let in.",
            UInt64(max(0, connections.load(ordering: .relaxed)))
        )
        text.one("cairn_calls_in_flight", .gauge, "Calls that are not answered yet.", UInt64(max(0, inFlight)))
    }
}

/// GetMetrics' answer: Prometheus' text format, version 0.0.4.
struct MetricsText {
    enum Kind: String { case counter, gauge, histogram }

    fileprivate(set) var text = ""

    mutating func family(_ name: String, _ kind: Kind, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    /// - Parameter labels: values without quotes, backslashes or line ends.
    mutating func sample(_ name: String, _ labels: KeyValuePairs<String, String>, _ value: UInt64) {
        let pairs = labels.map { "\($0.key)=\"\($0.value)\"" }.joined(separator: ",")
        text += pairs.isEmpty ? "\(name) \(value)\n" : "\(name){\(pairs)} \(value)\n"
    }

    /// A family of one sample.
    mutating func one(_ name: String, _ kind: Kind, _ help: String, _ value: UInt64) {
        family(name, kind, help)
        sample(name, [:], value)
    }

    mutating func write(_ service: ServiceMetrics) {
        one("cairn_jobs_waiting", .gauge, "Jobs that wait for a worker.", UInt64(service.waitingJobs))
        one(
            "cairn_workers",
            .gauge,
            "Jobs that workers carry out at a time, beside waits for the disk.",
            UInt64(service.workers)
        )
        let families: [(String, MetricsText.Kind, String, (ServiceMetrics.OfShard) -> UInt64)] = [
            (
                "cairn_shard_calls_waiting", .gauge, "Changes that wait for the shard's next group.",
                { UInt64($0.waitingCalls) }
            ),
            (
                "cairn_shard_log_bytes", .gauge, "What the shard's log takes on disk, with segments allocated ahead.",
                { $0.logBytes }
            ),
            (
                "cairn_shard_log_tail_bytes", .gauge,
                "What of the log the durable index does not hold yet: a start after a crash reads it.",
                { $0.logTailBytes }
            ),
            (
                "cairn_shard_index_bytes", .gauge, "What the shard's index takes, on disk and in memory.",
                { $0.indexBytes }
            ),
            (
                "cairn_shard_damaged_chunks", .gauge, "Chunks, and parts of chunks, that are known to be damaged.",
                { UInt64($0.damaged) }
            ),
            (
                "cairn_shard_scrubbed_bytes_total", .counter, "Bytes of records that scrubs have read.",
                { $0.scrubbedBytes }
            ),
            ("cairn_shard_full", .gauge, "Whether the shard has no room for new data.", { $0.isFull ? 1 : 0 }),
            (
                "cairn_shard_fenced", .gauge, "Whether the shard has failed, and is not recovered yet.",
                { $0.isFenced ? 1 : 0 }
            ),
            (
                "cairn_shard_recoveries_total", .counter, "How often the shard was recovered from a failure.",
                { UInt64($0.recoveries) }
            ),
            (
                "cairn_shard_failed_recoveries_total", .counter, "Recoveries that could not be done yet.",
                { UInt64($0.failedRecoveries) }
            ),
        ]
        for (name, kind, help, value) in families {
            family(name, kind, help)
            for shard in service.shards { sample(name, ["shard": "\(shard.index)"], value(shard)) }
        }
    }
}

/// How long calls took: a histogram whose buckets grow by a fifth each, from 0.1 ms to 10 s.
struct CallTimes: Sendable {
    private static let first = 100_000.0
    private static let count = 68
    private var counts = [UInt64](repeating: 0, count: count + 1)
    private var total: UInt64 = 0
    private var nanoseconds: UInt64 = 0

    var isAny: Bool { total > 0 }

    mutating func add(nanoseconds time: UInt64) {
        let steps = (log2(max(1, Double(time) / Self.first)) * 4).rounded(.up)
        counts[min(Int(steps), Self.count)] += 1
        total += 1
        nanoseconds &+= time
    }

    /// Buckets that nothing fell into are left out; readers take the one before.
    func write(to text: inout MetricsText, _ name: String, _ labels: String) {
        var sum: UInt64 = 0
        for (index, count) in counts.enumerated() where count > 0 && index < Self.count {
            sum += count
            let end = Self.first / 1e9 * exp2(Double(index) / 4)
            text.text += "\(name)_bucket{\(labels),le=\"\(Self.decimal(end))\"} \(sum)\n"
        }
        text.text += "\(name)_bucket{\(labels),le=\"+Inf\"} \(total)\n"
        text.text += "\(name)_sum{\(labels)} \(Self.decimal(Double(nanoseconds) / 1e9))\n"
        text.text += "\(name)_count{\(labels)} \(total)\n"
    }

    private static func decimal(_ seconds: Double) -> String { String(format: "%.6f", seconds) }
}
