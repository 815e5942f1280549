/// One repetition of one workload.
public struct RunResult: Codable, Sendable {
    /// A ``Workload``'s name, or whatever another program that writes such files calls its own.
    public var workload: String
    /// What runs with the same label are repetitions of, in one file and across files.
    public var label: String
    /// From 1.
    public var repetition: Int
    /// What was asked for: sizes, ratios, durability.
    public var options: [String: String]
    /// `closed` or `open`.
    public var pace: String
    /// Of an open loop: operations a second that were to begin.
    public var rate: Double?
    public var connections: Int
    /// On each connection; of an open loop: at most.
    public var inFlight: Int
    public var accounts: Int

    /// Of the measured time.
    public var seconds: Double
    /// Completed in the measured time.
    public var operations: Int
    /// Of data that they carried, uncompressed.
    public var bytes: UInt64
    public var operationsPerSecond: Double
    public var bytesPerSecond: Double
    /// How many failed, by reason.
    public var errors: [String: Int]
    public var failed: Int
    /// Of an open loop: due and never begun; their waits are among the latencies.
    public var unstarted: Int
    /// Whether it was ended early.
    public var interrupted: Bool
    /// Of operations that began (open loop: were due) in the measured time.
    public var latencyUs: Latencies
    public var kinds: [String: KindResult]
    public var clientCpuSeconds: CPUSeconds
    /// Where the server's process was named.
    public var serverCpuSeconds: CPUSeconds?
    public var intervals: [IntervalResult]
    /// Buckets that are not empty, as [microseconds, count].
    public var histogramUs: [[Double]]

    /// The operations of one kind of call.
    public struct KindResult: Codable, Sendable {
        public var operations: Int
        public var bytes: UInt64
        public var latencyUs: Latencies
    }

    /// One interval of the measured time.
    public struct IntervalResult: Codable, Sendable {
        /// Seconds since the measured time began.
        public var start: Double
        public var seconds: Double
        public var operations: Int
        public var bytes: UInt64
        public var failed: Int
        public var p50Us: Double
        public var p99Us: Double
        public var maxUs: Double
        public var clientCpuSeconds: Double
        public var serverCpuSeconds: Double?
    }
}

/// What a run was asked for, beside its ``LoadPlan``.
struct RunSubject: Sendable {
    var workload: String
    var label: String
    var repetition: Int
    var options: [String: String]
    var connections: Int
    var inFlight: Int
    var accounts: Int
}

extension RunResult {
    init(_ subject: RunSubject, _ plan: LoadPlan, _ measured: Measurement) {
        workload = subject.workload
        label = subject.label
        repetition = subject.repetition
        options = subject.options
        connections = subject.connections
        inFlight = subject.inFlight
        accounts = subject.accounts
        switch plan.pace {
        case .closed: pace = "closed"
        case .open(let rate, let poisson):
            pace = "open"
            self.rate = rate
            options["arrivals"] = poisson ? "poisson" : "even"
        }
        seconds = measured.seconds
        operations = measured.kinds.values.reduce(0) { $0 + $1.operations }
        bytes = measured.kinds.values.reduce(0) { $0 + $1.bytes }
        operationsPerSecond = seconds > 0 ? Double(operations) / seconds : 0
        bytesPerSecond = seconds > 0 ? Double(bytes) / seconds : 0
        errors = measured.errors
        failed = measured.errors.values.reduce(0, +)
        unstarted = measured.unstarted
        interrupted = measured.interrupted
        latencyUs = Latencies(measured.latencies)
        kinds = Dictionary(
            uniqueKeysWithValues: measured.kinds.map { kind, tally in
                let latencies = Latencies(tally.latencies)
                return (
                    kind.rawValue, KindResult(operations: tally.operations, bytes: tally.bytes, latencyUs: latencies)
                )
            }
        )
        clientCpuSeconds = CPUSeconds(measured.clientCPU)
        serverCpuSeconds = measured.serverCPU.map { CPUSeconds($0) }
        intervals = measured.intervals.map { IntervalResult($0) }
        histogramUs = measured.latencies.buckets.map { [Double($0.value) / 1000, Double($0.count)] }
    }

    /// Processor seconds for each GiB of data; nil where none was carried.
    func perGiB(_ cpu: CPUSeconds?) -> Double? {
        guard let cpu, bytes > 0 else { return nil }
        return cpu.total / (Double(bytes) / Double(1 << 30))
    }

    /// Processor microseconds for each operation; nil where there was none.
    func perOperation(_ cpu: CPUSeconds?) -> Double? {
        guard let cpu, operations > 0 else { return nil }
        return cpu.total * 1e6 / Double(operations)
    }
}

extension RunResult.IntervalResult {
    init(_ interval: Interval) {
        start = interval.start
        seconds = interval.seconds
        operations = interval.tally.operations
        bytes = interval.tally.bytes
        failed = interval.tally.errors.values.reduce(0, +)
        p50Us = Double(interval.tally.latencies.percentile(50)) / 1000
        p99Us = Double(interval.tally.latencies.percentile(99)) / 1000
        maxUs = Double(interval.tally.latencies.maximum) / 1000
        clientCpuSeconds = interval.clientCPU.total
        serverCpuSeconds = interval.serverCPU?.total
    }
}
