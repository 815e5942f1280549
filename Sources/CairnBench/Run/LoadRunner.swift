import Foundation
import Synchronization

/// How long, how hard, in what rhythm. Seconds.
public struct LoadPlan: Sendable, Equatable {
    /// Operations under way at once, of all connections together.
    public var lanes = 1
    public var pace = Pace.closed
    /// Works, and is not measured.
    public var warmUp = 2.0
    public var seconds = 10.0
    /// Of the series.
    public var interval = 1.0
    /// How long an open loop's line is still served after the end.
    public var drain = 10.0
    /// The server's process, where it runs on this machine.
    public var serverPID: Int32?

    public init() {}

    public func validate() throws(BenchError) {
        guard (1...65536).contains(lanes) else { throw BenchError(.invalid, "1 to 65,536 operations can be in flight") }
        guard seconds > 0, seconds <= 86400, warmUp >= 0, warmUp <= 3600, drain >= 0, drain <= 3600 else {
            throw BenchError(
                .invalid,
                "a measurement takes more than nothing and at most a day, its warm-up at most an hour"
            )
        }
        guard interval >= 0.01, seconds / interval <= 100_000 else {
            throw BenchError(.invalid, "an interval is 10 ms or more, and there are at most 100,000")
        }
        if case .open(let rate, _) = pace {
            guard rate > 0, rate <= 10_000_000, rate * (seconds + warmUp) <= 1e8 else {
                throw BenchError(.invalid, "a rate is above 0, at most 10,000,000 a second and 10^8 operations in all")
            }
        }
    }
}

/// What operations are done to.
protocol LoadTarget: Sendable {
    /// Does one operation.
    /// - Parameter lane: which of those at work at once: only one operation of each lane is under way.
    func perform(lane: Int) async -> Outcome
    /// Where a lane's operations are done; nil: on any thread.
    func executor(lane: Int) -> (any TaskExecutor)?
}

extension LoadTarget {
    func executor(lane: Int) -> (any TaskExecutor)? { nil }
}

/// One interval of a run.
struct Interval: Sendable {
    /// Seconds since the measured time began.
    let start: Double
    let seconds: Double
    var tally: Tally
    let clientCPU: CPUTime
    let serverCPU: CPUTime?
}

/// All that a run gave.
struct Measurement: Sendable {
    let seconds: Double
    let latencies: Histogram
    let kinds: [OperationKind: Tally]
    let errors: [String: Int]
    let unstarted: Int
    let clientCPU: CPUTime
    let serverCPU: CPUTime?
    let intervals: [Interval]
    let interrupted: Bool
}

/// Puts load on a target and measures it.
final class LoadRunner: Sendable {
    private let target: any LoadTarget
    private let plan: LoadPlan
    private let pacer: any Pacer
    private let recorder: Recorder
    private let isStopped = Atomic(false)
    /// An error costs at least this, so that a server that refuses everything is not asked a million times.
    private static let pauseAfterError = Duration.milliseconds(10)

    init(_ target: any LoadTarget, _ plan: LoadPlan, seed: UInt64 = 0) {
        self.target = target
        self.plan = plan
        let now = Time.now()
        let start = now + Time.nanoseconds(plan.warmUp)
        let end = start + Time.nanoseconds(plan.seconds)
        recorder = Recorder(window: Window(start: start, end: end))
        switch plan.pace {
        case .closed: pacer = ClosedPacer(end: end)
        case .open(let rate, let poisson):
            let schedule = Schedule(start: now, end: end, rate: rate, poisson: poisson, seed: seed)
            let pacer = OpenPacer(schedule, drain: Time.nanoseconds(plan.drain))
            pacer.start()
            self.pacer = pacer
        }
    }

    /// Ends the run: operations under way are waited for, and what was measured is kept.
    func stop() {
        isStopped.store(true, ordering: .relaxed)
        pacer.stop()
        recorder.closeWindow(at: Time.now())
    }

    /// - Parameter onInterval: told each interval as it ends; of the warm-up too, with a negative start.
    func run(onInterval: @escaping @Sendable (Interval) -> Void = { _ in }) async -> Measurement {
        async let series = measure(onInterval)
        await withTaskGroup(of: Void.self) { group in
            for lane in 0..<plan.lanes {
                group.addTask(executorPreference: target.executor(lane: lane)) { await self.work(lane) }
            }
        }
        let ended = Time.now()
        let leftOver = pacer.leftOver()
        for intended in leftOver { recorder.recordUnstarted(intended: intended, now: ended) }
        return finish(await series, unstarted: leftOver.count)
    }

    private func work(_ lane: Int) async {
        while let intended = await pacer.next() {
            let outcome = await target.perform(lane: lane)
            recorder.record(outcome, lane: lane, start: intended, end: Time.now())
            if case .failed = outcome, plan.pace == .closed { try? await Task.sleep(for: Self.pauseAfterError) }
        }
    }
}

extension LoadRunner {
    private struct Series: Sendable {
        var intervals: [Interval] = []
        var client = CPUTime()
        var server: CPUTime?
    }

    /// Walks through the intervals until the measured time is over.
    private func measure(_ onInterval: @Sendable (Interval) -> Void) async -> Series {
        let interval = Time.nanoseconds(plan.interval)
        var series = Series()
        var meter = Meter(plan)
        let start = recorder.measured.start
        // Of the warm-up only the live line learns.
        while Time.now() < start, !isStopped.load(ordering: .relaxed) {
            await pause(until: min(start, Time.now() + interval))
            onInterval(meter.interval(recorder.harvest(warmUp: true), origin: start))
        }
        meter = Meter(plan)
        let first = meter
        var boundary = start
        while Time.now() < recorder.measured.end {
            boundary += interval
            await pause(until: min(boundary, recorder.measured.end))
            let ended = meter.interval(recorder.harvest(), origin: start)
            series.intervals.append(ended)
            onInterval(ended)
        }
        (series.client, series.server) = meter.since(first)
        return series
    }

    /// In pieces, so that a stop is heard.
    private func pause(until time: UInt64) async {
        while !isStopped.load(ordering: .relaxed) {
            let now = Time.now()
            guard now < time else { return }
            try? await Task.sleep(for: .nanoseconds(Int(min(time - now, 50_000_000))))
        }
    }

    private func finish(_ series: Series, unstarted: Int) -> Measurement {
        let window = recorder.measured
        var intervals = series.intervals
        // What completed in time and came after the last harvest, and errors of operations that ended later.
        let late = recorder.harvest()
        if intervals.isEmpty {
            intervals = [
                Interval(start: 0, seconds: 0, tally: late, clientCPU: CPUTime(), serverCPU: series.server)
            ]
        } else {
            intervals[intervals.count - 1].tally.merge(late)
        }
        var errors: [String: Int] = [:]
        for interval in intervals { errors.merge(interval.tally.errors, uniquingKeysWith: +) }
        let totals = recorder.totals()
        return Measurement(
            seconds: Double(window.end - window.start) / 1e9,
            latencies: totals.latencies,
            kinds: totals.kinds,
            errors: errors,
            unstarted: unstarted,
            clientCPU: series.client,
            serverCPU: series.server,
            intervals: intervals,
            interrupted: isStopped.load(ordering: .relaxed)
        )
    }
}

/// Processor time from one interval to the next.
private struct Meter {
    private let pid: Int32?
    private var time: UInt64
    private var client: CPUTime
    private var server: CPUTime?

    init(_ plan: LoadPlan) {
        pid = plan.serverPID
        time = Time.now()
        client = .ofThisProcess()
        server = plan.serverPID.flatMap { CPUTime.ofProcess($0) }
    }

    mutating func interval(_ tally: Tally, origin: UInt64) -> Interval {
        let before = self
        time = Time.now()
        client = .ofThisProcess()
        server = pid.flatMap { CPUTime.ofProcess($0) }
        let used = since(before)
        return Interval(
            start: (Double(before.time) - Double(origin)) / 1e9,
            seconds: Double(time - before.time) / 1e9,
            tally: tally,
            clientCPU: used.client,
            serverCPU: used.server
        )
    }

    func since(_ before: Meter) -> (client: CPUTime, server: CPUTime?) {
        var used: CPUTime?
        if let server, let earlier = before.server { used = server - earlier }
        return (client - before.client, used)
    }
}
