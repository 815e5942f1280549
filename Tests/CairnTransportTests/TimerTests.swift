import CairnCore
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
