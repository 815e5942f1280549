import CairnCore
import CairnTesting
import Dispatch
import Foundation
import Logging
import Synchronization
import Testing

@testable import CairnLog
@testable import CairnStore

/// The level `errors`: every call of the storage in a script fails in turn, each time in another way, also several in a row, so that
/// recovery meets them as well; first what changes it, then reads. The shard recovers in process; then, and once more when the store was
/// closed and opened, it holds all that was acknowledged as durable, and of the rest a beginning.
@Suite(.serialized) struct ErrorTests {
    private static let level = "errors"

    @Test(
        "U8, S8: each call of the log's storage fails in turn: acknowledged changes are there after recovery in process, and after a start"
    )
    func everyCall() throws {
        let operations = Torture.count(Self.level, otherwise: 8)
        let sum = runs(.changes, of: operations, density: .max)
        #expect(sum.faults >= operations)
        Torture.report(
            Self.level,
            [
                "operations": operations, "faults": sum.faults, "calls_failed": sum.hits, "recoveries": sum.recoveries,
                "lost": sum.failures.count,
            ]
        )
    }

    @Test(
        "U8: reads of the log's storage fail in turn: what cannot be done for that is refused and not done, and all that was acknowledged is there"
    )
    func everyRead() throws {
        let operations = Torture.count(Self.level, otherwise: 8)
        // A segment that is emptied is read block by block: of these some are enough.
        let sum = runs(.reads, of: operations, density: max(8, operations / 4))
        #expect(sum.faults > 0)
        Torture.report(
            Self.level,
            [
                "read_faults": sum.faults, "reads_failed": sum.hits, "recoveries": sum.recoveries,
                "lost": sum.failures.count,
            ]
        )
    }

    /// - Parameter density: each of the first so many calls fails in turn, then ever fewer of those that follow.
    private func runs(_ calls: FaultyDisk.Fault.Calls, of operations: Int, density: Int) -> Sums {
        let seed = Torture.seed(Self.level)
        // Memory, where there is such a folder: how long a sync takes is not what is looked at here.
        let folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NSTemporaryDirectory()
        let sums = Mutex(Sums(density: density))
        // Each fault is a run of its own: one for each processor at a time.
        DispatchQueue.concurrentPerform(iterations: ProcessInfo.processInfo.activeProcessorCount) { _ in
            while let call = sums.withLock({ $0.next() }) {
                do {
                    let run = try ErrorRun(in: folder, operations: operations, seed: seed, calls, call)
                    defer { run.remove() }
                    try run.play()
                    sums.withLock { $0.add(run) }
                } catch {
                    sums.withLock {
                        $0.failures.append(
                            "call \(call) of \(calls) in \(operations) operations, seed \(seed): \(error)"
                        )
                    }
                }
            }
        }
        let sum = sums.withLock(\.self)
        for failure in sum.failures { Issue.record("\(failure)") }
        return sum
    }

    private struct Sums {
        private let density: Int
        private var calls = 0
        private var isAtEnd = false
        private(set) var (faults, hits, recoveries) = (0, 0, 0)
        var failures: [String] = []

        init(density: Int) { self.density = density }

        /// The number of the call that fails next; nil where the script has no more, or enough was found.
        mutating func next() -> Int? {
            guard !isAtEnd, failures.count < 5 else { return nil }
            calls += 1 + calls / density
            return calls
        }

        mutating func add(_ run: ErrorRun) {
            // The script has fewer calls than that.
            if run.hits == 0 { isAtEnd = true } else { faults += 1 }
            hits += run.hits
            recoveries += run.recoveries
        }
    }
}

/// One script with one fault.
private final class ErrorRun {
    struct Failure: Error, CustomStringConvertible { let description: String }

    private let path: String
    private let disk: FaultyDisk
    private let fault: FaultyDisk.Fault
    private let options: StoreOptions
    private let operations: Int
    private var store: Store
    private var random: SeededRandom
    private var stamp: UInt32 = 0
    /// What may be there: the last durable state, and what came of each later change that is not known to be durable.
    private var possible = [ErrorState()]
    /// Of the shard that answered last (SPEC U8).
    private var verifier: UInt64 = 0
    private(set) var recoveries = 0
    private var steps = 0

    var hits: Int { disk.hits }

    init(in folder: String, operations: Int, seed: UInt64, _ calls: FaultyDisk.Fault.Calls, _ call: Int) throws {
        path = folder + "/cairn-errors-" + UUID().uuidString
        self.operations = operations
        random = SeededRandom(seed: seed)
        var dice = SeededRandom(seed: seed &+ UInt64(call) &* 1_000_003)
        let kinds = FaultyDisk.Fault.Kind.allCases
        fault = FaultyDisk.Fault(
            call: call,
            length: dice.chance(60) ? 1 : 1 + dice.below(12),
            kind: kinds[dice.below(kinds.count)],
            calls: calls
        )
        let disk = FaultyDisk(seed: dice.next())
        self.disk = disk
        var creation = StoreCreation()
        creation.shardCount = 1
        creation.segmentBytes = 1 << 20
        try Store.create(at: path, creation)
        var options = StoreOptions()
        options.leaseTime = .milliseconds(1)
        options.checkpointBytes = 1 << 20
        options.indexFlushBytes = 64 << 10
        options.indexCacheBytes = 1 << 20
        options.spareSegments = 1
        options.recoveryWait = .milliseconds(1)
        options.logger = Logger(label: "errors") { _ in SwiftLogNoOpLogHandler() }
        options.storage = { _, files in FaultyStorage(files: files, disk: disk) }
        self.options = options
        store = try Store.open(at: path, options)
        verifier = store.shards[0].verifier
    }

    func play() throws {
        disk.arm(fault)
        var after = 0
        // Some more after the fault, on what was recovered; the rest of the script is seen with other faults.
        for _ in 0..<operations where after < 6 {
            try step()
            if hits > 0 { after += 1 }
        }
        try flush()
        disk.arm(nil)
        if hits == 0 { return }
        recoveries = store.recoveries(of: ShardIndex(0)).done
        store.close()
        store = try Store.open(at: path, options)
        try check("opened again")
        // It works as before.
        for _ in 0..<4 { try step() }
        try flush()
        try check("used again")
    }

    /// The shard; what is in it is looked at first where another one took its place (SPEC U8).
    private func shard() throws -> Shard {
        let end = Date() + 60
        while let reason = store.shards[0].fenceReason {
            guard Date() < end else { throw Failure(description: "\(fault): not recovered within 60 s: \(reason)") }
            usleep(500)
        }
        let shard = store.shards[0]
        if shard.verifier != verifier { try check("recovered", shard) }
        return shard
    }

    private func step() throws {
        steps += 1
        if fault.calls == .reads {
            // Recoveries read as well, and hardly anything else brings them about here.
            if steps.isMultiple(of: 5) { try self.shard().fence(StoreError(.io, "the test wants a recovery")) }
            if steps.isMultiple(of: 2) { try readBack() }
        }
        let shard = try shard()
        let operation = ErrorOperation.random(possible.last!, &random, stamp: &stamp)
        if case .flush = operation { return try flush() }
        var next = possible.last!
        operation.apply(to: &next)
        let result = try wait { done in
            shard.submit(
                durability: operation.isDurable ? .durable : .onFlush,
                records: 8,
                bytes: 64 << 10,
                entries: 64,
                reclaims: operation.reclaims
            ) { (transaction) throws(StoreError) in
                try operation.run(transaction)
            } completion: {
                done($0)
            }
        }
        switch result {
        case .success: possible = operation.isDurable ? [next] : possible + [next]
        case .failure(let error) where error.code == .full: break
        // What had to be read for it could not be: nothing was written.
        case .failure(let error) where error.code == .io && fault.calls == .reads: break
        // It may have been written, or not.
        case .failure(let error) where error.code == .fenced: possible.append(next)
        case .failure(let error): throw Failure(description: "\(fault): \(operation): \(error.code) \(error)")
        }
    }

    /// C6: what was answered is read, durable or not; or it is said that it cannot be. For reads that fail alone: a sync that fails may
    /// take away what was written, and for a moment nobody knows of it.
    private func readBack() throws {
        let shard = try shard()
        do {
            let found = try ErrorState(of: shard)
            guard found == possible.last! else { throw Failure(description: "\(fault): read: \(difference(found))") }
        } catch let error as StoreError where error.code == .fenced || error.code == .closed {
            // It failed meanwhile, at work of its own.
        } catch let error as StoreError where error.code == .io {
            // The next one may be answered.
        }
    }

    private func flush() throws {
        let shard = try shard()
        switch try wait({ shard.flush($0) }) {
        case .success: possible = [possible.last!]
        case .failure(let error) where error.code == .fenced: break
        case .failure(let error): throw Failure(description: "\(fault): flush: \(error.code) \(error)")
        }
    }

    private func wait(
        _ call: (@escaping @Sendable (Result<Void, StoreError>) -> Void) -> Void
    ) throws -> Result<Void, StoreError> {
        let answer = Mutex<Result<Void, StoreError>?>(nil)
        let done = DispatchSemaphore(value: 0)
        call { result in
            answer.withLock { $0 = result }
            done.signal()
        }
        guard done.wait(timeout: .now() + 60) == .success else {
            throw Failure(description: "\(fault): no answer within 60 s")
        }
        return answer.withLock { $0! }
    }

    private func check(_ when: String) throws { try check(when, try shard()) }

    /// What is there is one of the states that may be; later changes build on it.
    private func check(_ when: String, _ shard: Shard) throws {
        let found: ErrorState
        do { found = try read(shard) } catch { throw Failure(description: "\(fault): \(when): \(error)") }
        guard possible.contains(found) else {
            throw Failure(description: "\(fault): \(when): none of \(possible.count) states: \(difference(found))")
        }
        possible = [found]
        verifier = shard.verifier
        let problems = try shard.audit().problems
        guard problems.isEmpty else { throw Failure(description: "\(fault): \(when): \(problems.prefix(3))") }
    }

    /// What the shard holds, as soon as it can be read.
    private func read(_ shard: Shard) throws -> ErrorState {
        for _ in 0..<fault.length {
            do { return try ErrorState(of: shard) } catch let error as StoreError
                where error.code == .io && fault.calls == .reads
            { continue }
        }
        return try ErrorState(of: shard)
    }

    private func difference(_ found: ErrorState) -> String {
        let wanted = possible.last!
        let volumes = wanted.volumes.filter { found.volumes[$0.key] != $0.value }.map(\.key)
        let snapshots = wanted.snapshots.filter { found.snapshots[$0.key] != $0.value }.map(\.key)
        return "volumes \(volumes) of \(found.volumes.keys.sorted()), snapshots \(snapshots)"
    }

    func remove() {
        store.close()
        for _ in 0..<100 where FileManager.default.fileExists(atPath: path) {
            try? FileManager.default.removeItem(atPath: path)
            usleep(1000)
        }
    }
}

extension ErrorOperation {
    fileprivate var reclaims: Bool {
        switch self {
        case .deleteVolume, .deleteSnapshot: true
        default: false
        }
    }
}
