import CairnCore
import Foundation
import Synchronization
import Testing

@testable import CairnTransport

@Suite(.timeLimit(.minutes(5))) struct TimerTests {
    /// Fires in order of deadlines, not of setting; what was moved or cancelled does not fire at its old time.
    @Test func timersFireInOrderAndMove() async throws {
        let loop = EventLoop(name: "timers")
        let fired = Mutex<[String]>([])
        // Safety: only touched on the loop.
        nonisolated(unsafe) var timers: [LoopTimer] = []
        let start = EventLoop.now
        loop.execute {
            for (name, milliseconds) in [("c", 60), ("a", 20), ("b", 40), ("moved", 10), ("cancelled", 30)]
                as [(String, UInt64)]
            {
                let timer = LoopTimer(loop: loop) { fired.withLock { $0.append(name) } }
                timer.set(start + milliseconds * 1_000_000)
                if name == "moved" { timer.set(start + 80_000_000) }
                if name == "cancelled" { timer.cancel() }
                if name == "c" { timer.setNoLater(start + 200_000_000) }
                timers.append(timer)
            }
        }
        let end = ContinuousClock.now + .seconds(10)
        while fired.withLock({ $0.count }) < 4, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(fired.withLock { $0 } == ["a", "b", "c", "moved"])
        #expect(EventLoop.now >= start + 80_000_000)
        loop.execute { timers = [] }
    }

    /// What one timer does counts for those that are due in the same turn: it may end another's owner, or move or cancel the other.
    @Test func anEarlierOneEndsMovesOrCancelsLaterOnes() async throws {
        let loop = EventLoop(name: "together")
        let fired = Mutex<[String]>([])
        // Safety: only touched on the loop.
        nonisolated(unsafe) var owners: [String: Owner] = [:]
        nonisolated(unsafe) var first: LoopTimer?
        loop.execute {
            let due = EventLoop.now + 1_000_000
            for name in ["ended", "moved", "cancelled", "left"] {
                owners[name] = Owner(loop, due: due + 1) { fired.withLock { $0.append(name) } }
            }
            first = LoopTimer(loop: loop) {
                owners["ended"] = nil
                owners["moved"]?.timer.set(EventLoop.now + 50_000_000)
                owners["cancelled"]?.timer.cancel()
            }
            first?.set(due)
            // So that all are due when the loop looks next.
            Thread.sleep(forTimeInterval: 0.02)
        }
        let end = ContinuousClock.now + .seconds(10)
        while fired.withLock({ $0.count }) < 2, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(fired.withLock { $0 } == ["left", "moved"])
        loop.execute { (owners, first) = ([:], nil) }
    }

    /// As a connection has it: its timer's action does not keep it.
    private final class Owner {
        private let body: () -> Void
        private(set) var timer: LoopTimer!

        init(_ loop: EventLoop, due: UInt64, body: @escaping () -> Void) {
            self.body = body
            timer = LoopTimer(loop: loop) { [unowned self] in self.body() }
            timer.set(due)
        }
        deinit { timer.invalidate() }
    }

    /// Work of many threads arrives whole, each thread's in its order, in few wake-ups.
    @Test func mailboxKeepsTheOrderOfEachThread() async {
        let loop = EventLoop(name: "mailbox")
        let seen = Seen()
        await withTaskGroup(of: Void.self) { group in
            for thread in 0..<8 {
                group.addTask { for index in 0..<2000 { loop.execute { seen.add(index, of: thread) } } }
            }
        }
        await withCheckedContinuation { continuation in loop.execute { continuation.resume() } }
        #expect(seen.lists == Array(repeating: Array(0..<2000), count: 8))
    }

    private final class Seen: Sendable {
        private let mutex = Mutex<[[Int]]>(Array(repeating: [], count: 8))
        var lists: [[Int]] { mutex.withLock { $0 } }
        func add(_ index: Int, of thread: Int) { mutex.withLock { $0[thread].append(index) } }
    }

    @Test func durations() {
        #expect(Duration.milliseconds(1500).nanoseconds == 1_500_000_000)
        #expect(Duration.seconds(-1).nanoseconds == 0)
        #expect(Duration.seconds(Int64.max).nanoseconds == UInt64(Int64.max))
    }
}
