import Foundation
import Synchronization

/// When operations begin.
public enum Pace: Sendable, Equatable {
    /// Each lane begins the next one when its last one is done.
    case closed
    /// They begin at a rate, whether or not earlier ones are done: what a slow server makes wait shows in the latencies.
    /// - Parameters:
    ///   - rate: operations a second, of all lanes together.
    ///   - poisson: they arrive by chance, as from many independent users; else evenly.
    case open(rate: Double, poisson: Bool)
}

/// Tells lanes when to begin an operation.
protocol Pacer: Sendable {
    /// Waits for the next operation's time.
    /// - Returns: when it is to begin, which may be past; nil: no more.
    func next() async -> UInt64?
    func stop()
    /// Intended times of operations that were due and that no lane began.
    func leftOver() -> [UInt64]
}

final class ClosedPacer: Pacer {
    private let end: UInt64
    private let isStopped = Atomic(false)

    init(end: UInt64) { self.end = end }

    func next() async -> UInt64? {
        let now = Time.now()
        return now < end && !isStopped.load(ordering: .relaxed) ? now : nil
    }
    func stop() { isStopped.store(true, ordering: .relaxed) }
    func leftOver() -> [UInt64] { [] }
}

/// A thread of its own wakes at each intended time and hands it to a lane that waits, or puts it in line. The latency of an
/// operation counts from its intended time, so that one that waited in line shows it (no coordinated omission).
final class OpenPacer: Pacer {
    private struct State {
        /// Intended times that no lane took yet; those before `first` are taken.
        var line: [UInt64] = []
        var first = 0
        var waiting: [CheckedContinuation<UInt64?, Never>] = []
        /// No more times come.
        var isOver = false
        /// The line is not served any more either.
        var isClosed = false

        mutating func takeFirst() -> UInt64 {
            let time = line[first]
            first += 1
            if first >= 4096, first * 2 > line.count {
                line.removeFirst(first)
                first = 0
            }
            return time
        }
    }
    private let state = Mutex(State())
    private let isStopped = Atomic(false)
    private let schedule: Schedule
    private let drain: UInt64

    /// - Parameter drain: nanoseconds after the end for which the line is still served.
    init(_ schedule: Schedule, drain: UInt64) {
        self.schedule = schedule
        self.drain = drain
    }

    func start() {
        let thread = Thread { [self] in
            TimerSlack.least()
            run()
        }
        thread.name = "cairn-bench.pace"
        thread.start()
    }

    private func run() {
        var schedule = schedule
        while let time = schedule.next() {
            let now = Time.now()
            if time > now { wait(until: time) }
            if isStopped.load(ordering: .relaxed) { break }
            let lane = state.withLock { state -> CheckedContinuation<UInt64?, Never>? in
                if let lane = state.waiting.popLast() { return lane }
                state.line.append(time)
                return nil
            }
            lane?.resume(returning: time)
        }
        let idle = state.withLock { state in
            state.isOver = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for lane in idle { lane.resume(returning: nil) }
        let end = Time.now() + drain
        while Time.now() < end, !isStopped.load(ordering: .relaxed), state.withLock({ $0.first < $0.line.count }) {
            Time.sleep(until: Time.now() + 5_000_000)
        }
        state.withLock { $0.isClosed = true }
    }

    /// In pieces, so that a stop is heard.
    private func wait(until time: UInt64) {
        while !isStopped.load(ordering: .relaxed) {
            let now = Time.now()
            guard now < time else { return }
            Time.sleep(until: min(time, now + 50_000_000))
        }
    }

    func next() async -> UInt64? {
        await withCheckedContinuation { continuation in
            let answer = state.withLock { state -> UInt64?? in
                if state.first < state.line.count, !state.isClosed {
                    return .some(state.takeFirst())
                }
                if state.isOver { return .some(nil) }
                state.waiting.append(continuation)
                return nil
            }
            if let answer { continuation.resume(returning: answer) }
        }
    }

    func stop() { isStopped.store(true, ordering: .relaxed) }

    func leftOver() -> [UInt64] { state.withLock { Array($0.line[$0.first...]) } }
}

/// The intended times of an open loop, one after the other.
struct Schedule: Sendable {
    private let start: UInt64
    private let end: UInt64
    private let period: Double
    private let poisson: Bool
    private var count: UInt64 = 0
    private var elapsed = 0.0
    private let seed: UInt64

    init(start: UInt64, end: UInt64, rate: Double, poisson: Bool, seed: UInt64 = 0) {
        self.start = start
        self.end = end
        self.poisson = poisson
        self.seed = seed
        period = 1e9 / rate
    }

    mutating func next() -> UInt64? {
        defer { count += 1 }
        if poisson {
            // Exponential gaps: (0, 1] is mapped by the logarithm.
            let dice = Double(Mix.hash(count ^ Mix.hash(seed)) >> 11 + 1) / Double(UInt64(1) << 53)
            elapsed -= log(dice) * period
        } else {
            elapsed = Double(count) * period
        }
        let time = start + UInt64(elapsed)
        return time < end ? time : nil
    }
}
