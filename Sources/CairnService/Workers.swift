import CairnCore
import Dispatch
import Synchronization

/// The threads that hash, compress, decode and read: what must never run on a shard's queue or a network loop.
///
/// A fixed number of jobs runs at once. While more wait, accounts take turns, and each gets the same share of the work (SPEC
/// R3); one account's jobs begin in their order. What waits is bounded by the connections' credits and answer budgets, not
/// here. A wake-up costs one hop, and only where a worker was idle. While one waits for the disk another takes its place, so that the
/// disk has many small reads to choose from.
final class Workers: Sendable, DiskWaits {
    typealias Job = @Sendable () -> Void
    private struct State {
        var jobs = FairQueue<AccountID?, Job>(quantum: 512 << 10)
        var idle: [Int]
        /// Workers that carry out jobs, or are about to; those that wait for the disk are not counted.
        var busy = 0
        let width: Int

        var hasPlace: Bool { busy < width && !idle.isEmpty }

        /// A worker that is to be woken for the jobs that wait; nil where there are enough at work.
        mutating func takeOn() -> Int? {
            guard hasPlace, !jobs.isEmpty else { return nil }
            busy += 1
            return idle.removeLast()
        }
    }
    private let queues: [DispatchQueue]
    private let state: Mutex<State>
    /// See ``isCrowded``.
    private let crowded = Atomic<Bool>(false)

    /// Workers that may wait for the disk at once, beside those that do not.
    static let mostWaiting = 32

    /// What a job costs beside the bytes that it hashes or reads, in bytes that would take as long.
    static let jobCost = 32 << 10
    /// What a look-up in an index costs, in bytes that would take as long to hash and compress: about 5 µs.
    static let lookUpBytes = 8 << 10
    /// Look-ups after which a job gives way to others: as long as those bytes take.
    static let lookUpsPerJob = Limits.payloadBytes / lookUpBytes

    init(width: Int) {
        queues = (0..<width + Self.mostWaiting).map { DispatchQueue(label: "cairn.worker.\($0)") }
        state = Mutex(State(idle: Array((0..<width + Self.mostWaiting).reversed()), width: width))
    }

    /// - Parameters:
    ///   - account: on whose behalf; nil for the server's own work.
    ///   - bytes: how many the job hashes, compresses or reads, about.
    func run(for account: AccountID? = nil, bytes: Int = 0, _ job: @escaping Job) {
        let woken = change { state in
            state.jobs.append(job, of: account, cost: Self.jobCost + bytes)
            return state.takeOn()
        }
        wake(woken)
    }

    private func wake(_ worker: Int?) { if let worker { queues[worker].async { self.drain(worker) } } }

    func beginWait() {
        let woken = change { state in
            state.busy -= 1
            return state.takeOn()
        }
        wake(woken)
    }

    /// There may be too many at work then, until each has done its job: such jobs are short (see `Service.readsLittle`).
    func endWait() { change { $0.busy += 1 } }

    /// Whether jobs wait and no worker is on its way to them: then accounts take turns.
    var isCrowded: Bool { crowded.load(ordering: .relaxed) }

    private func change<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        state.withLock { state in
            defer { crowded.store(!state.hasPlace && !state.jobs.isEmpty, ordering: .relaxed) }
            return body(&state)
        }
    }

    /// Jobs that wait for a worker.
    var waiting: Int { state.withLock { $0.jobs.count } }

    private func drain(_ worker: Int) {
        while true {
            let next = change { state -> Job? in
                if state.busy <= state.width, let job = state.jobs.popFirst() { return job }
                state.busy -= 1
                state.idle.append(worker)
                return nil
            }
            guard let next else { return }
            next()
        }
    }
}
