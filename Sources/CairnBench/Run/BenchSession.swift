import CairnClient
import Foundation
import Synchronization

/// Runs workloads one after the other, each so many times, on volumes made for it.
public final class BenchSession: Sendable {
    public struct Job: Sendable {
        public var workload: Workload
        public var options: WorkloadOptions
        public var plan: LoadPlan
        /// Operations under way on each connection.
        public var inFlight: Int
        public var repetitions: Int
        /// Set before the workload's own label, for comparisons.
        public var label: String

        public init(
            _ workload: Workload,
            _ options: WorkloadOptions,
            _ plan: LoadPlan,
            inFlight: Int,
            repetitions: Int,
            label: String
        ) {
            self.workload = workload
            self.options = options
            self.plan = plan
            self.inFlight = inFlight
            self.repetitions = repetitions
            self.label = label
        }
    }
    private let connections: [BenchConnection]
    private let line: LiveLine
    private let current = Mutex<LoadRunner?>(nil)
    private let stopped = Atomic(false)

    public init(_ connections: [BenchConnection], quiet: Bool) {
        self.connections = connections
        line = LiveLine(isShown: !quiet)
    }

    /// Ends what runs, in order; what was measured is kept.
    public func stop() {
        stopped.store(true, ordering: .sequentiallyConsistent)
        current.withLock { $0 }?.stop()
    }

    public var isStopped: Bool { stopped.load(ordering: .sequentiallyConsistent) }

    /// - Returns: a result of each repetition; fewer where ``stop()`` was called.
    /// - Throws: `invalid` before anything was done, `setUp` where the volumes cannot be made.
    public func run(_ job: Job) async throws(BenchError) -> [RunResult] {
        try job.options.validate(for: job.workload)
        try job.plan.validate()
        var results: [RunResult] = []
        for repetition in 1...max(1, job.repetitions) where !isStopped {
            guard let result = try await runOnce(job, repetition) else { break }
            results.append(result)
        }
        return results
    }

    private func runOnce(_ job: Job, _ repetition: Int) async throws(BenchError) -> RunResult? {
        let name = job.repetitions > 1 ? "\(job.name) \(repetition)/\(job.repetitions)" : job.name
        var options = job.options
        // Data of its own, or a later repetition would send what the store has.
        options.seed = Mix.hash(
            options.seed &+ UInt64(repetition) &+ UInt64(ProcessInfo.processInfo.processIdentifier) << 32
        )
        var plan = job.plan
        plan.lanes = connections.count * job.inFlight
        let stage: Stage
        do throws(BenchError) {
            stage = try await Stage.make(
                for: job.workload,
                options,
                connections,
                isStopped: { [weak self] in self?.isStopped ?? true },
                progress: { [line] done, total in
                    line.show("\(name)  preparing volumes  \(done >> 20) of \(total >> 20) MiB")
                }
            )
        } catch {
            line.clear()
            // Whoever stops us knows why there is no result.
            guard isStopped else { throw error }
            return nil
        }
        let target = try CairnTarget(job.workload, options, connections, stage, lanes: plan.lanes)
        let measured = await measure(target, plan, name)
        await target.cleanUp()
        await stage.cleanUp()
        line.clear()
        let subject = RunSubject(
            workload: job.workload.rawValue,
            label: job.name,
            repetition: repetition,
            options: options.facts(of: job.workload),
            connections: connections.count,
            inFlight: job.inFlight,
            accounts: Set(connections.map(\.account)).count
        )
        return RunResult(subject, plan, measured)
    }

    private func measure(_ target: CairnTarget, _ plan: LoadPlan, _ name: String) async -> Measurement {
        let runner = LoadRunner(target, plan, seed: UInt64.random(in: .min ... .max))
        current.withLock { $0 = runner }
        if isStopped { runner.stop() }
        let failed = Atomic(0)
        let measured = await runner.run { [line] interval in
            let errors = interval.tally.errors.values.reduce(0, +)
            let sum = failed.wrappingAdd(errors, ordering: .relaxed).newValue
            line.show(LiveLine.text(name, interval, of: plan.seconds, failed: sum))
        }
        current.withLock { $0 = nil }
        line.show("\(name)  cleaning up")
        return measured
    }
}

extension BenchSession.Job {
    /// What repetitions have in common: the workload, its request size where it has one, and what is in flight.
    var name: String {
        var parts = label.isEmpty ? [] : [label]
        parts.append(workload.rawValue)
        if workload.carriesData { parts.append(Self.short(options.requestBytes)) }
        if case .open(let rate, _) = plan.pace { parts.append("\(Text.rate(rate))/s") }
        return parts.joined(separator: " ")
    }

    private static func short(_ bytes: Int) -> String {
        bytes >= 1 << 20 && bytes % (1 << 20) == 0
            ? "\(bytes >> 20)MiB" : bytes % 1024 == 0 ? "\(bytes >> 10)KiB" : "\(bytes)B"
    }
}
