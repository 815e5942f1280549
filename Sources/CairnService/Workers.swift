import DequeModule
import Dispatch
import Synchronization

/// The threads that hash, compress, decode and read: what must never run on a shard's queue or a network loop.
///
/// A fixed number of jobs runs at once; the rest wait in order. What waits is bounded by the connections' credits and
/// answer budgets, not here. A wake-up costs one hop, and only where a worker was idle.
final class Workers: Sendable {
    typealias Job = @Sendable () -> Void
    private struct State {
        var jobs = Deque<Job>()
        var idle: [Int]
    }
    private let queues: [DispatchQueue]
    private let state: Mutex<State>

    init(width: Int) {
        queues = (0..<width).map { DispatchQueue(label: "cairn.worker.\($0)") }
        state = Mutex(State(idle: Array(0..<width)))
    }

    func run(_ job: @escaping Job) {
        let woken = state.withLock { state in
            state.jobs.append(job)
            return state.idle.popLast()
        }
        if let woken { queues[woken].async { self.drain(woken) } }
    }

    private func drain(_ worker: Int) {
        while true {
            let next = state.withLock { state -> Job? in
                if let job = state.jobs.popFirst() { return job }
                state.idle.append(worker)
                return nil
            }
            guard let next else { return }
            next()
        }
    }
}
