import CairnRPC
import CairnService
import CairnWire
import Synchronization

/// Counts the calls of all connections (SPEC R4). By method and status only: no account, volume or snapshot is a label (C3).
final class CallCounters: CallObserver {
    fileprivate struct Kind: Hashable {
        /// Nil for numbers that no method has: whatever a peer sends is one label.
        let method: Wire.Method?
        let status: UInt32
    }
    private struct State {
        var calls: [Kind: UInt64] = [:]
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
        let method = Wire.Method(header: outcome.method).flatMap { Wire.Method.allCases.contains($0) ? $0 : nil }
        state.withLock { state in
            state.calls[Kind(method: method, status: outcome.status), default: 0] += 1
            state.requestBytes += UInt64(outcome.requestBytes)
            state.answerBytes += UInt64(outcome.answerBytes)
        }
    }

    func write(to text: inout MetricsText) {
        let state = state.withLock { $0 }
        text.family("cairn_calls_total", .counter, "Calls that were answered, by method and status.")
        for (kind, count) in state.calls.sorted(by: { ($0.key.number, $0.key.status) < ($1.key.number, $1.key.status) })
        {
            let status = Status(rawValue: kind.status).map { "\($0)" } ?? "UNKNOWN"
            text.sample("cairn_calls_total", ["method": kind.method?.name ?? "unknown", "status": status], count)
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

extension CallCounters.Kind {
    fileprivate var number: Int32 { method?.rawValue ?? .max }
}

/// GetMetrics' answer: Prometheus' text format, version 0.0.4.
struct MetricsText {
    enum Kind: String { case counter, gauge }

    private(set) var text = ""

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
        one("cairn_workers", .gauge, "Worker threads.", UInt64(service.workers))
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
                "cairn_shard_index_bytes", .gauge, "What the shard's index takes, on disk and in memory.",
                { $0.indexBytes }
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
