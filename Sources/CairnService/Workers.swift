import CairnCore
import Dispatch
import Synchronization

/// The threads that hash, compress, decode and read: what must never run on a shard's queue or a network loop.
///
/// A fixed number of jobs runs at once. While more wait, accounts take turns, and each gets the same share of the work (SPEC
/// R3); one account's jobs begin in their order. What waits is bounded by the connections' credits and answer budgets, not
/// here. A wake-up costs one hop, and only where a worker was idle.
final class Workers: Sendable {
    typealias Job = @Sendable () -> Void
    private struct State {
        var jobs = FairQueue<AccountID?, Job>(quantum: 512 << 10)
        var idle: [Int]
    }
    private let queues: [DispatchQueue]
    private let state: Mutex<State>

    /// What a job costs beside the bytes that it hashes or reads, in bytes that would take as long.
    static let jobCost = 32 << 10
    /// What a look-up in an index costs, in bytes that would take as long to hash and compress: about 5 µs.
    static let lookUpBytes = 8 << 10
    /// Look-ups after which a job gives way to others: as long as those bytes take.
    static let lookUpsPerJob = Limits.payloadBytes / lookUpBytes

    init(width: Int) {
        queues = (0..<width).map { DispatchQueue(label: "cairn.worker.\($0)") }
        state = Mutex(State(idle: Array(0..<width)))
    }

    /// - Parameters:
    ///   - account: on whose behalf; nil for the server's own work.
    ///   - bytes: how many the job hashes, compresses or reads, about.
    func run(for account: AccountID? = nil, bytes: Int = 0, _ job: @escaping Job) {
        let woken = state.withLock { state in
            state.jobs.append(job, of: account, cost: Self.jobCost + bytes)
            return state.idle.popLast()
        }
        if let woken { queues[woken].async { self.drain(woken) } }
    }

    /// Whether jobs wait and no worker is on its way to them: then accounts take turns.
    var isCrowded: Bool { state.withLock { $0.idle.isEmpty && !$0.jobs.isEmpty } }

    /// Jobs that wait for a worker.
    var waiting: Int { state.withLock { $0.jobs.count } }

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
