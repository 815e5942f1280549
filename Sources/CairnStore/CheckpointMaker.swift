import CairnCore
import CairnLog
import Logging
import Synchronization

/// Copies a shard's index beside everything else that the shard does, one copy at a time.
final class CheckpointMaker: Sendable {
    private struct State {
        var isRunning = false
        var isStopped = false
        /// No other is tried before, unless room is short; in nanoseconds of uptime.
        var rest: UInt64 = 0
        /// Whether the last one failed.
        var hasFailed = false
        /// Whether one was found damaged, and none has been made since.
        var isWanted = false
    }

    /// Bytes each second, where nobody waits for the copy: it shall not be felt.
    static let pace = 128 << 20
    /// After a failure.
    private static let restSeconds: UInt64 = 30

    let folder: CheckpointFolder
    private let database: IndexDatabase
    private let index: String
    private let logger: Logger
    private let execution: any ShardExecution
    private let queue: any SerialQueue
    private let state = Mutex(State())

    /// - Parameter index: the folder of `database`.
    init(_ folder: CheckpointFolder, of database: IndexDatabase, in index: String, _ options: StoreOptions) {
        (self.folder, self.database, self.index, logger) = (folder, database, index, options.logger)
        execution = options.execution
        queue = execution.makeQueue("cairn.checkpoints", isBackground: true)
    }

    var isRunning: Bool { state.withLock { $0.isRunning } }
    var hasFailed: Bool { state.withLock { $0.hasFailed } }
    /// Whether another is to be made though the log has not got so much since the last.
    var isWanted: Bool { state.withLock { $0.isWanted } }
    var isResting: Bool { state.withLock { $0.rest > execution.uptime } }

    /// Makes one of what is durable now, unless one is being made. Called by who recycles segments.
    /// - Parameters:
    ///   - durable: where the durable index stands: what comes after it in the log is kept.
    ///   - hurried: whether the log waits for it.
    ///   - finished: called on another queue when it is made, or has failed.
    func start(at durable: LogPosition, hurried: Bool, finished: @escaping @Sendable () -> Void) {
        guard claim() else { return }
        folder.begin(at: durable)
        queue.async { [self] in
            make(hurried: hurried)
            folder.end()
            state.withLock { $0.isRunning = false }
            finished()
        }
    }

    /// Whether no other touches the copies until `isRunning` is false again.
    private func claim() -> Bool {
        state.withLock { state in
            guard !state.isRunning, !state.isStopped else { return false }
            state.isRunning = true
            return true
        }
    }

    /// Reads all copies. One that is not what it was is removed, for the index is there, and another wanted in its place. Blocks.
    /// - Returns: what is wrong; empty also while a copy is being made.
    func verify() -> [String] {
        guard claim() else { return [] }
        defer { state.withLock { $0.isRunning = false } }
        var problems: [String] = []
        // Those whose contents could not be read when the shard was opened, and those that have rotted since.
        var damaged = folder.damaged.map { (number: $0, found: ["contents is missing or damaged"]) }
        for checkpoint in folder.checkpoints {
            let found = folder.verify(checkpoint)
            if !found.isEmpty { damaged.append((checkpoint.number, found)) }
        }
        for (number, found) in damaged {
            let problem = "checkpoint \(number): \(found.joined(separator: ", "))"
            problems.append(problem)
            logger.error("a copy of the index is damaged, and made anew", metadata: ["reason": "\(problem)"])
            do throws(StoreError) { try folder.remove(number) } catch {
                logger.error("a copy of the index cannot be removed", metadata: ["reason": "\(error)"])
            }
        }
        if !problems.isEmpty { state.withLock { ($0.isWanted, $0.rest) = (true, 0) } }
        return problems
    }

    private func make(hurried: Bool) {
        let started = execution.uptime
        var copied = 0
        do throws(StoreError) {
            let made = try folder.make(of: database, in: index) { (bytes) throws(StoreError) in
                if state.withLock({ $0.isStopped }) { throw StoreError(.closed, "the shard is closing") }
                copied += bytes
                if !hurried { try wait(copied, since: started) }
            }
            try folder.prune()
            state.withLock { ($0.hasFailed, $0.isWanted, $0.rest) = (false, false, 0) }
            let took = (execution.uptime - started) / 1_000_000
            logger.info(
                "the index is copied",
                metadata: [
                    "checkpoint": "\(made.number)", "position": "\(made.contents.position)", "copied": "\(copied)",
                    "of": "\(made.contents.bytes)", "milliseconds": "\(took)",
                ]
            )
        } catch {
            state.withLock { state in
                state.hasFailed = true
                state.rest = execution.uptime + Self.restSeconds * 1_000_000_000
            }
            switch error.code {
            case .closed, .fenced: break
            default: logger.error("the index cannot be copied", metadata: ["reason": "\(error)"])
            }
        }
    }

    private func wait(_ copied: Int, since started: UInt64) throws(StoreError) {
        let due = started + UInt64(copied) * 1_000_000_000 / UInt64(Self.pace)
        let now = execution.uptime
        if due > now { try execution.rest(due - now) }
    }

    /// Ends a copy that is being made, and begins no other.
    func stop() {
        state.withLock { $0.isStopped = true }
        // Where the machine stops meanwhile, that is over as well.
        try? queue.sync { () throws(StoreError) in }
    }
}
