import CairnStore
import CairnTesting
import Foundation
import Logging
import Synchronization

/// A real server over a small store, the writers that load it, and its lives: it is started, loaded, dies, and is checked.
final class Victim: Sendable {
    let server: ServerProcess
    let plan: FaultPlan
    let writers: [CrashWriter]
    let repairs = Mutex(Repairs())
    private let callers = Mutex<[Caller]>([])

    /// A server's death that a test did not cause.
    static let trapped: Set<Int32> = [132, 133, 134, 135, 136, 139]

    /// - Parameters:
    ///   - store: where it is made, if not in a folder of its own.
    ///   - seed: of all that the writers do.
    init(shards: Int, writers count: Int, store: String? = nil, seed: UInt64) async throws {
        // As little as a store can have, so that segments are recycled and compacted; leases that end, so that chunks are purged.
        let settings = [
            "capacity=\(shards * 9 * 32)MiB", "checkpoint-bytes=\(1 + seed % 3)MiB", "lease-seconds=1",
            "drain-seconds=5",
        ]
        nonisolated(unsafe) var made: FaultPlan?
        server = try await ServerProcess(shards: shards, settings: settings, store: store) { folder in
            // The shim sees paths without links.
            let data = store ?? folder.file("store")
            let plan = try FaultPlan(folder: data, in: folder)
            made = plan
            return plan.environment
        }
        plan = made!
        writers = try (0..<count).map { try CrashWriter($0, seed: seed &* 64) }
    }

    /// Starts the server and lets every writer check what it finds.
    func begin() async throws {
        try await server.start()
        try await connect()
        for writer in writers { try await writer.prepare() }
    }

    func connect() async throws {
        callers.withLock { $0 = [] }
        for writer in writers {
            let caller = try await server.connect(writer.account)
            callers.withLock { $0.append(caller) }
            await writer.use(caller)
        }
    }

    /// Cuts the power of the disk that the store is on.
    ///
    /// A machine without power answers nothing. This one does: xfs (seen with Linux 6.18) may say of a sync that is under way when it
    /// is shut down that all is well, and the file system then comes back without what was synced. So no answer of this life counts
    /// from here on.
    func cutPower(of disk: LoopDisk) throws {
        callers.withLock { for caller in $0 { caller.voidAnswers() } }
        try disk.cutPower()
    }

    /// All writers at once, until each has ended; `body` is what happens to the server meanwhile.
    /// - Returns: why writers ended, of those that were not told to.
    func load(_ body: @escaping @Sendable () async throws -> Void) async throws -> [String] {
        try await within(.seconds(90), "the writers end") { [self] in
            try await withThrowingTaskGroup(of: String?.self) { group in
                for writer in writers { group.addTask { try await writer.run() } }
                let result: Result<Void, any Error>
                do { result = .success(try await body()) } catch { result = .failure(error) }
                for writer in writers { await writer.stop() }
                var endings: [String] = []
                for try await ending in group { if let ending { endings.append(ending) } }
                try result.get()
                return endings
            }
        }
    }

    /// The server is gone, or goes within a minute: it must have been killed, or have ended in order; never by a trap of its own.
    /// - Returns: as the shell has it: 137 for SIGKILL.
    func expectDead() async throws -> Int32 {
        let outcome = try await server.child.wait(limit: .seconds(60))
        let lines = outcome.errors.split(separator: "\n")
        guard !Self.trapped.contains(outcome.status) else {
            let marks = ["Fatal error", "Assertion", "terminate called", "💣", "crashed:"]
            let first = lines.firstIndex { line in marks.contains { line.contains($0) } } ?? max(0, lines.count - 60)
            let text = lines[first...].prefix(60).joined(separator: "\n")
            throw Loss("the server ended by a trap (\(outcome.status)): \(text)")
        }
        return outcome.status
    }

    /// Starts it again without faults, and checks everything.
    /// - Parameters:
    ///   - again: whether another death follows at once, and everything is checked once more.
    ///   - loss: whether the indexes are lost before it is started.
    func recover(again: Bool, after loss: IndexLoss? = nil) async throws {
        plan.disarm()
        if let loss { try await repair(after: loss) }
        do { try await server.start() } catch { throw Loss("the store does not open again: \(error)") }
        try await check { try await $0.recover() }
        guard again else { return }
        try await server.crash()
        do { try await server.start() } catch { throw Loss("the store opens once, and not again: \(error)") }
        try await check { try await $0.recoverAgain() }
    }

    /// By every writer, on a new connection.
    func check(_ body: @escaping @Sendable (CrashWriter) async throws -> Void) async throws {
        try await connect()
        try await within(.seconds(120), "everything is checked") { [self] in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for writer in writers { group.addTask { try await body(writer) } }
                try await group.waitForAll()
            }
        }
    }

    /// SIGTERM, which must end it well.
    func stopInOrder() async throws {
        let outcome = try await server.stop()
        guard outcome.status == 0 else {
            throw Loss("SIGTERM ended the server with \(outcome.status): \(outcome.errors.suffix(2000))")
        }
    }

    /// Ends the server in order, counts everything in its store again, and reads all of it.
    func audit() async throws {
        try await stopInOrder()
        var options = StoreOptions()
        options.logger = Logger(label: "audit") { _ in SwiftLogNoOpLogHandler() }
        let store = try Store.open(at: server.store, options)
        defer { store.close() }
        for shard in store.shards {
            let problems = try shard.audit().problems
            guard problems.isEmpty else { throw Loss("audit of shard \(shard.index): \(problems.prefix(5))") }
            shard.scrubber.begin(bytesPerSecond: 0)
        }
        try await eventually("the store is scrubbed", within: .seconds(120)) {
            store.shards.allSatisfy { !$0.scrubber.status.isRunning }
        }
        for shard in store.shards {
            let status = shard.scrubber.status
            guard status.found == 0, shard.damagedCount == 0, status.indexProblem == nil else {
                throw Loss("scrub of shard \(shard.index): \(status)")
            }
        }
    }

    /// What all writers counted.
    func counts() async -> CrashWriter.Counts {
        var sum = CrashWriter.Counts()
        for writer in writers {
            let counts = await writer.counts
            sum.acknowledged += counts.acknowledged
            sum.open += counts.open
            sum.found += counts.found
            sum.refusedAsFull += counts.refusedAsFull
            sum.images += counts.images
        }
        return sum
    }

    /// Nothing was found: the ledgers go.
    func removeLedgers() async { for writer in writers { writer.ledger.remove() } }
}
