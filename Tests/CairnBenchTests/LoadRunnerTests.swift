import Foundation
import Synchronization
import Testing

@testable import CairnBench

/// Answers after a millisecond; once, for a second, not at all.
final class StallingTarget: LoadTarget {
    /// Nanoseconds of ``Time``'s clock.
    private let stall: Range<UInt64>
    private let every: UInt64?
    let calls = Atomic<UInt64>(0)

    /// - Parameter failingEvery: how often an operation fails.
    init(stall: Range<UInt64> = 0..<0, failingEvery every: UInt64? = nil) {
        self.stall = stall
        self.every = every
    }

    func perform(lane: Int) async -> Outcome {
        let number = calls.add(1, ordering: .relaxed).newValue
        let now = Time.now()
        let wait = stall.contains(now) ? stall.upperBound - now : 1_000_000
        try? await Task.sleep(for: .nanoseconds(Int(wait)))
        if let every, number % every == 0 { return .failed(reason: number % (2 * every) == 0 ? "A" : "B") }
        return .done(.upload, bytes: 4096)
    }
}

@Suite(.serialized)
struct LoadRunnerTests {
    private func plan(_ pace: Pace, lanes: Int = 4, seconds: Double) -> LoadPlan {
        var plan = LoadPlan()
        plan.lanes = lanes
        plan.pace = pace
        plan.warmUp = 0.1
        plan.seconds = seconds
        plan.interval = 0.25
        plan.drain = 60
        return plan
    }

    private func stalling() -> StallingTarget {
        let start = Time.now() + 600_000_000
        return StallingTarget(stall: start..<start + 1_000_000_000)
    }

    @Test("A target that stalls for a second: an open loop shows it to everyone who would have come in that second")
    func openLoopIsFreeOfCoordinatedOmission() async {
        let measured = await LoadRunner(stalling(), plan(.open(rate: 200, poisson: false), seconds: 3)).run()
        // 200 of the 600 came while it stalled, evenly: the last fifth of them all waited 0.4 s or more.
        #expect(measured.latencies.count == 600)
        #expect(measured.latencies.percentile(99) >= 900_000_000)
        #expect(measured.latencies.percentile(80) >= 300_000_000)
        #expect(measured.unstarted == 0 && measured.errors.isEmpty)
    }

    @Test("The same stall in a closed loop: only those under way see it, which is why there are open loops")
    func closedLoopHidesTheStall() async {
        let measured = await LoadRunner(stalling(), plan(.closed, seconds: 3)).run()
        // One for each lane, and on a busy machine a few more: none of the hundreds who would have come.
        #expect(measured.latencies.count(above: 500_000_000) < 40)
        #expect(measured.latencies.percentile(90) < 500_000_000)
        #expect(measured.latencies.maximum >= 900_000_000)
    }

    @Test("Operations that a saturated target never began are counted, with the time that they waited")
    func whatNeverBeganCounts() async {
        // Two lanes and sleeps of a millisecond cannot do 20,000 a second, and the line is closed at once.
        var plan = plan(.open(rate: 20_000, poisson: false), lanes: 2, seconds: 0.5)
        plan.warmUp = 0
        plan.drain = 0
        let measured = await LoadRunner(StallingTarget(), plan).run()
        #expect(measured.unstarted > 1000)
        #expect(measured.latencies.count == 10_000)
        #expect(measured.latencies.percentile(50) > 100_000_000)
    }

    @Test("Errors are counted by reason, and the series adds up to the whole")
    func errorsAndSeries() async {
        let measured = await LoadRunner(StallingTarget(failingEvery: 10), plan(.closed, seconds: 1)).run()
        let done = measured.kinds[.upload]
        #expect(measured.errors.keys.sorted() == ["A", "B"])
        #expect(done?.operations == measured.intervals.reduce(0) { $0 + $1.tally.operations })
        #expect(done.map { $0.bytes == UInt64($0.operations) * 4096 } == true)
        #expect((1...4).contains(measured.intervals.count) && measured.intervals.allSatisfy { $0.seconds > 0.2 })
        #expect(abs(measured.seconds - 1) < 1e-6 && !measured.interrupted)
        #expect(measured.clientCPU.total > 0)
    }

    @Test(
        "A stop ends a run early, in order, with what was measured",
        arguments: [Pace.closed, .open(rate: 500, poisson: true)]
    )
    func stop(pace: Pace) async throws {
        let runner = LoadRunner(StallingTarget(), plan(pace, seconds: 600))
        let task = Task { await runner.run() }
        try await Task.sleep(for: .milliseconds(700))
        runner.stop()
        let measured = await task.value
        #expect(measured.interrupted && measured.seconds < 300)
        #expect(measured.latencies.count > 0 && !measured.intervals.isEmpty)
    }

    @Test("Arrivals by chance come at the rate, and unevenly; even ones evenly")
    func schedules() {
        func times(poisson: Bool) -> [UInt64] {
            var schedule = Schedule(start: 1000, end: 1000 + 10_000_000_000, rate: 1000, poisson: poisson, seed: 5)
            var times: [UInt64] = []
            while let time = schedule.next() { times.append(time) }
            return times
        }
        let even = times(poisson: false)
        #expect(even.count == 10_000)
        #expect(zip(even, even.dropFirst()).allSatisfy { (999_999...1_000_001).contains($1 - $0) })
        let chance = times(poisson: true)
        // Five standard deviations of a Poisson count.
        #expect((9500...10_500).contains(chance.count))
        let gaps = zip(chance, chance.dropFirst()).map { $1 - $0 }
        // 1 - 1/e of exponential gaps are below the mean.
        let short = Double(gaps.filter { $0 < 1_000_000 }.count) / Double(gaps.count)
        #expect(abs(short - 0.632) < 0.03)
    }

    @Test func processorTimeOfAProcessWithAnOddName() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 9 9 20 0 1 0 5 6 7"
        #expect(CPUTime.parse(stat: stat, ticksPerSecond: 100) == CPUTime(user: 2.5, system: 1.5))
        #expect(CPUTime.parse(stat: "7 (x", ticksPerSecond: 100) == nil)
        #expect(CPUTime.ofProcess(getpid()) != nil)
    }

    @Test func plansHaveLimits() {
        for change: @Sendable (inout LoadPlan) -> Void in [
            { $0.lanes = 0 }, { $0.seconds = 0 }, { $0.interval = 0 }, { $0.pace = .open(rate: 0, poisson: false) },
            {
                $0.pace = .open(rate: 1e7, poisson: false)
                $0.seconds = 60
            },
        ] {
            var plan = LoadPlan()
            change(&plan)
            #expect(throws: BenchError.self) { try plan.validate() }
        }
    }
}
