import CairnCore
import CairnCrypto
import CairnTesting
import Foundation
import Logging

@testable import CairnLog
@testable import CairnStore

/// One seed: some lives of a shard, each of which ends in another way, and what must be there after each.
// Safety: used by whoever has the simulation's baton.
final class SimulationRun: @unchecked Sendable {
    /// What came of it.
    struct Outcome: Equatable {
        var trace: UInt64 = 0
        var steps = 0
        var calls = 0
        var crashes = 0
        var faults = 0
        var recycled = 0
        var fences = 0
        /// Indexes that were lost, and made anew.
        var repairs = 0
        /// Calls that were refused for want of space.
        var full = 0
    }

    let simulation: Simulation
    let disk: SimulatedDisk
    let folder: String
    let chunkSize: ChunkSize
    let errors = ErrorLog()
    private let header: StoreHeader
    private let isFaulty: Bool
    private var options = StoreOptions()
    var outcome = Outcome()

    var machine: SimulatedMachine { simulation.machine }
    var shard: Shard?
    var isFenced = false
    var failure: (any Error)?

    /// What was there when the shard was last opened, and what has been answered since.
    var base = SimulatedState()
    var state = SimulatedState()
    /// Calls of this life that were not refused, in the order in which they were sent.
    var calls: [SimulatedCall] = []
    var inFlight = 0
    var callCount = 0
    var bodies = 0
    /// The LSN up to which everything was said to be durable.
    var promised: UInt64 = 0
    /// The last LSN of which anything was answered.
    var answeredLSN: UInt64 = 0
    var nextStamp: UInt32 = 1
    var readings: [SimulatedReading] = []
    var tokens = SimulatedTokens()
    var kinds: [UInt32: ChunkData] = [:]
    var leaseNanoseconds: UInt64 { UInt64(options.leaseTime / .nanoseconds(1)) }

    init(seed: UInt64, folder: String) throws {
        simulation = Simulation(seed: seed)
        self.folder = folder
        disk = SimulatedDisk(simulation)
        simulation.machine = SimulatedMachine(simulation)
        header = StoreHeader(
            id: UUID128(high: seed, low: 0x8000_0000_0000_0000),
            shardCount: 1,
            segmentBytes: 1 << 20
        )
        chunkSize = ChunkSize(bytes: [4 << 10, 16 << 10, 64 << 10][simulation.random.below(3)])!
        options.leaseTime = .milliseconds([1, 500, 5000][simulation.random.below(3)])
        options.checkpointBytes = [256 << 10, 1 << 20, 64 << 20][simulation.random.below(3)]
        // Steps of releases between which the shard crashes.
        if seed % 2 == 1 { options.releaseStep = 4 }
        // RocksDB must never flush by itself here: that would not be the same each time.
        options.indexFlushBytes = 1 << 20
        options.indexCacheBytes = 1 << 20
        options.spareSegments = simulation.random.below(3)
        // Copies of the index are real files, which no power cut takes: when they are made is what is simulated of them.
        options.indexBackupBytes = [512 << 10, 2 << 20, 1 << 30][simulation.random.below(3)]
        // The disk's room is the simulated one.
        options.freeBytes = 0
        isFaulty = simulation.random.chance(40)
        // What cannot be read once would be marked as damaged, and the reference knows of no damage.
        if !isFaulty, simulation.random.chance(40) { options.scrubPeriod = .seconds(1) }
        if simulation.random.chance(50) {
            let segments = 8 + simulation.random.below(4)
            if simulation.random.chance(50) {
                disk.capacity = segments
            } else {
                options.capacityBytes = UInt64(segments) << 20
            }
        }
        let (disk, simulation, errors) = (disk, simulation, errors)
        options.storage = { _, _ in disk }
        options.indexStep = { (step) throws(StoreError) in try Self.pass(step, simulation) }
        options.logger = Logger(label: "simulation") { _ in errors.handler }
        try FileManager.default.createDirectory(atPath: folder + "/shard-000", withIntermediateDirectories: true)
        try LogRecovery.format(
            disk,
            identity: LogIdentity(store: header.id, shard: ShardIndex(0)),
            segmentSize: Int(header.segmentBytes)
        )
    }

    /// Other things happen before and after RocksDB's calls; on a dead machine nothing does.
    private static func pass(_ step: IndexDatabase.Step, _ simulation: Simulation) throws(StoreError) {
        if step != .apply { simulation.pause(80) }
        if simulation.machine.isDead { throw SimulatedMachine.dead }
    }

    /// - Throws: ``ModelFailure`` where something is lost, or wrong.
    func run() throws -> Outcome {
        defer {
            stop()
            simulation.end()
        }
        for _ in 0..<2 + simulation.random.below(3) {
            try open()
            if isFaulty {
                disk.faults.writing = simulation.random.chance(70) ? 5 + simulation.random.below(100) : nil
                disk.faults.reading = simulation.random.chance(40) ? 5 + simulation.random.below(200) : nil
            }
            try live()
            disk.faults = SimulatedDisk.Faults()
        }
        try open(crashing: false)
        try finish()
        outcome.trace = simulation.trace ^ UInt64(disk.durableHash)
        outcome.steps = simulation.steps
        outcome.calls = callCount
        outcome.faults = disk.injected
        outcome.recycled = disk.recycled
        return outcome
    }

    // MARK: Beginning and ending a machine

    /// Opens the shard, however often the machine stops on the way.
    func open(crashing: Bool = true) throws {
        while true {
            simulation.machine = SimulatedMachine(simulation)
            if simulation.random.chance(15) { try loseIndex() }
            let crash = crashing && simulation.random.chance(30) ? simulation.random.below(60) : nil
            if crashing, simulation.random.chance(10) { disk.faults.writing = 10 + simulation.random.below(40) }
            if crashing, simulation.random.chance(10) { disk.faults.reading = 10 + simulation.random.below(100) }
            let isOpen = try attempt(crash: crash)
            disk.faults = SimulatedDisk.Faults()
            if isOpen, try check(crash: crash == nil && crashing && simulation.random.chance(10)) { return }
        }
    }

    private func attempt(crash: Int?) throws -> Bool {
        var options = options
        options.execution = machine
        isFenced = false
        let opening = ShardOpening(header: header, folder: folder, options: options)
        let faults = disk.injected
        var result: Result<Shard, StoreError>?
        simulation.spawn { [self] in
            result = Result { () throws(StoreError) in
                let shard = try opening.open(ShardIndex(0)) { [unowned self] in
                    isFenced = true
                    if !machine.isDead { outcome.fences += 1 }
                }
                self.shard = shard
                try shard.undoCreations()
                return shard
            }
        }
        let isDone = try drive(steps: crash) { result != nil }
        guard isDone, case .success(let shard)? = result else {
            if isDone, case .failure(let error)? = result, disk.injected == faults {
                throw ModelFailure("cannot be opened: \(error.code): \(error)")
            }
            crashMachine(losing: simulation.random.chance(70))
            return false
        }
        try recovered(to: shard.log.position?.lsn.rawValue ?? 0)
        shard.background.start()
        return true
    }

    /// Takes the index away, and makes it anew from its copies and the log.
    private func loseIndex() throws {
        let shard = folder + "/shard-000"
        let identity = LogIdentity(store: header.id, shard: ShardIndex(0))
        // Where copies were given up for room, the index alone counts.
        guard IndexDatabase.exists(shard + "/index"),
            try CheckpointFolder(shard: shard, identity: identity).retention != .none
        else { return }
        try FileManager.default.removeItem(atPath: shard + "/index")
        var options = options
        options.execution = machine
        let opening = ShardOpening(header: header, folder: folder, options: options)
        var result: Result<ShardRepair, StoreError>?
        simulation.spawn {
            result = Result { () throws(StoreError) in
                let repair = try ShardRepairing(ShardIndex(0), opening, RepairOptions())
                try repair.run()
                return repair.report
            }
        }
        _ = try drive { result != nil }
        guard let report = try result?.get(), report.lost == nil, report.audit.isEmpty,
            report.outcome == .repaired || report.outcome == .healthy && report.lsn == 0 && promised == 0
        else { throw ModelFailure("the index cannot be made anew: \(String(describing: result))") }
        outcome.repairs += 1
        if simulation.random.chance(50) { disk.cutPower() }
    }

    /// The machine is gone, and what it had not written with it.
    func crashMachine(losing: Bool) {
        outcome.crashes += 1
        stop()
        if losing { disk.cutPower() }
        simulation.note(0xdead, UInt64(disk.durableHash))
    }

    /// Nothing goes on any more, and RocksDB is closed as it is.
    func stop() {
        machine.die()
        readings = []
        let database = shard?.database
        shard = nil
        guard let database else { return }
        precondition(database.close(within: .seconds(60)), "something still holds the index")
    }

    // MARK: Steps

    /// A whole run takes some thousand steps. Copies of the index cost milliseconds each: work without end is to be told in a minute.
    private static let mostSteps = 50_000

    /// Goes on until `isDone`; false where the steps are used up before.
    func drive(steps: Int? = nil, _ isDone: () -> Bool) throws -> Bool {
        var left = steps ?? Self.mostSteps
        var idle = 0
        while !isDone() {
            if left == 0 {
                guard steps != nil else { throw ModelFailure("work goes on without end, and something is waited for") }
                return false
            }
            left -= 1
            if simulation.step() {
                idle = 0
            } else {
                simulation.waitForTimer()
                idle += 1
                guard idle < 1000 else { throw ModelFailure("nothing goes on, and something is waited for") }
            }
            if let failure { throw failure }
        }
        return true
    }

    /// Closes in order: then nothing that was answered may be lost.
    func close() throws {
        guard let shard else { return }
        let faults = disk.injected
        let wasFenced = shard.fenceReason != nil
        var isClosed = false
        simulation.spawn {
            shard.close()
            isClosed = true
        }
        guard try drive(steps: simulation.random.chance(20) ? simulation.random.below(30) : nil, { isClosed }) else {
            return crashMachine(losing: true)
        }
        if !wasFenced, shard.fenceReason == nil, shard.log.isFenced, disk.injected == faults {
            promised = max(promised, shard.log.position?.lsn.rawValue ?? 0)
        }
        stop()
        if simulation.random.chance(30) { disk.cutPower() }
    }
}

/// What the shard logs as an error or worse.
// Safety: used by whoever has the simulation's baton.
final class ErrorLog: @unchecked Sendable {
    var lines: [String] = []

    struct Handler: LogHandler {
        let log: ErrorLog
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.error
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) { log.lines.append("\(event.message) \(event.metadata ?? [:])") }
    }
    var handler: Handler { Handler(log: self) }
}
