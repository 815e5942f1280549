import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire
import Foundation

@testable import CairnService

/// Random calls of several accounts and their compute hosts against ``World``.
final class ServiceModelRun {
    static let accounts = ["amy", "ben", "cat"].map { AccountID($0)! }

    let configuration: ServiceModelConfiguration
    let server: ModelServer
    var random: SeededRandom
    var world = World()
    var contents: ModelContents
    var last = ""

    /// A promise that a chunk can be named, until a time: by a lease, or since it was asked for.
    var promises: [AccountID: [Fingerprint: UInt64]] = [:]
    /// Until when a chunk may be held by what was promised, or by a call of which only the server knows how it ended.
    var holds: [AccountID: [Fingerprint: UInt64]] = [:]
    /// Leases that last beyond the run: let go of in the end.
    var longLeases: [AccountID: Set<Fingerprint>] = [:]
    /// What was answered ON_FLUSH since a shard was last made durable, with how it was before; by the volume's shard.
    var unflushed: [UInt8: [Unflushed]] = [:]
    /// Calls with an idempotency key, to be made again.
    var repeatable: [Repeatable] = []
    var verdicts = (refused: 0, either: 0)
    /// The most snapshots that one volume had in progress.
    var mostInProgress = 0
    private var idleTimes: UInt64 = 0

    struct Unflushed {
        let pile: Pile
        let version: UInt64
        let before: [Int: Written]?
        let volume: World.Volume
        let blocks: [Block]
        let dataVersion: UInt64
    }
    struct Repeatable {
        /// Makes the same call again; throws where the answer is another.
        let again: () throws -> Void
    }

    init(_ configuration: ServiceModelConfiguration, seed: UInt64) throws {
        self.configuration = configuration
        server = try ModelServer(configuration, seed: ~seed)
        random = SeededRandom(seed: seed)
        contents = ModelContents()
    }

    // MARK: Choosing

    func pick<Value>(_ values: [Value]) -> Value? { values.isEmpty ? nil : values[random.below(values.count)] }
    func pickAccount() -> AccountID { Self.accounts[random.below(Self.accounts.count)] }
    func chance(_ percent: Int) -> Bool { random.chance(percent) }
    /// Milliseconds since 1970 at which a call of this step can be made, and end: the same where no time passes by itself.
    var earliest: UInt64 { server.clock.earliest }
    var latest: UInt64 { server.clock.latest }
    func context(_ account: AccountID, host: Bool = false) -> CallContext {
        CallContext(account: account, isHost: host)
    }

    func volumes(of account: AccountID, local: Bool? = nil) -> [World.Volume] {
        world.volumes.filter { $0.account == account && (local == nil || $0.isLocal == local) }
    }
    func snapshots(of account: AccountID) -> [World.Snapshot] { world.snapshots.filter { $0.account == account } }

    /// The chunks that are written to: a few at the beginning, and the last two, of which the last may be short.
    func activeChunks(_ source: World.Source) -> [Int] { Array(0..<10) + [source.chunks - 2, source.chunks - 1] }

    static func shard(of id: [UInt8]) -> UInt8 {
        UInt8(truncatingIfNeeded: UUID128(bytes: id)?.shard.rawValue ?? 0)
    }

    /// An ID of the same shard that nothing has: of random ones no two are so alike.
    static func absent(_ id: [UInt8]) -> [UInt8] { [id[0] ^ 1] + id.dropFirst() }

    // MARK: Judging

    struct Refusal {
        let code: ServiceError.Code
        var block: Int?

        init(_ code: ServiceError.Code, at block: Int? = nil) { (self.code, self.block) = (code, block) }
    }

    /// The answer where none is to be refused.
    func succeeds<Value>(_ result: Result<Value, ServiceError>) throws -> Value {
        switch result {
        case .success(let value): return value
        case .failure(let error): throw ModelFailure("\(last): refused with \(error)")
        }
    }

    func isRefused<Value>(_ result: Result<Value, ServiceError>, _ refusal: Refusal) throws {
        switch result {
        case .success: throw ModelFailure("\(last): answered instead of \(refusal.code) (\(refusal.block ?? -1))")
        case .failure(let error):
            guard error.code == refusal.code, error.blockIndex == refusal.block else {
                throw ModelFailure("\(last): \(error) instead of \(refusal.code) (block \(refusal.block ?? -1))")
            }
        }
    }

    /// The answer, or nil where the call is to be refused, and was.
    func judge<Value>(_ result: Result<Value, ServiceError>, _ refusal: Refusal?) throws -> Value? {
        guard let refusal else { return try succeeds(result) }
        try isRefused(result, refusal)
        return nil
    }

    func check(_ condition: Bool, _ text: @autoclosure () -> String) throws {
        if !condition { throw ModelFailure("\(last): \(text())") }
    }

    // MARK: Steps

    func step() throws {
        server.clock.beginStep()
        switch configuration.mix.pick(&random) {
        case .upload: try uploadToVolume()
        case .mark: try mark()
        case .download: try download()
        case .list: try listBlocks()
        case .compare: try compare()
        case .flush: try flush()
        case .createVolume: try createVolume()
        case .clone: try clone()
        case .deleteVolume: try deleteVolume()
        case .resize: try resize()
        case .tag: try tag()
        case .attach: try attach()
        case .createSnapshot: try createSnapshot()
        case .begin: try beginSnapshot()
        case .uploadToSnapshot: try uploadToSnapshot()
        case .report: try report()
        case .deleteSnapshot: try deleteSnapshot()
        case .createSet: try createSet()
        case .idle: try idle()
        case .stage: try stage()
        case .query: try query()
        case .renew: try renew()
        case .release: try release()
        case .expire: try expire()
        case .grant: try grant()
        case .withdraw: try withdraw()
        case .probe: try probe()
        case .strangers: try strangers()
        case .repeated: try repeatCall()
        case .quota: try quota()
        case .usage: try usage()
        case .freed: try freed()
        case .listings: try listings(of: pickAccount())
        case .seals: try seals()
        case .settle: try settle()
        case .restart: try restart(crashing: false)
        case .crash: try restart(crashing: true)
        }
        try probe()
    }

    func settle() throws {
        last = "settle"
        try server.settle()
        try server.audit()
    }

    /// Everything that is the earliest of its volume has been idle for too long (SPEC S11).
    private func idle() throws {
        last = "idle"
        let outstanding = world.volumes.compactMap { world.outstanding(of: $0.id).first }
        // What was touched by the last time has been idle since.
        idleTimes += 1
        server.service.cancelIdleSnapshots(at: earliest + idleTimes * 100 * 3600 * 1000)
        for snapshot in outstanding {
            let end = Date() + 20
            let isCancelled = {
                try self.describe(snapshot.id, self.context(snapshot.account)).state == .error
            }
            while try !server.noting(.nothing, isCancelled) {
                try check(Date() < end, "an idle snapshot is not cancelled")
                usleep(200)
            }
            world.remove(snapshot, isError: true)
        }
    }

    /// The calls since this was taken the last time, and what they came to: the state of all that is chosen, and of what was found.
    func takeTrace() -> [String] {
        var random = random
        let snapshots = world.snapshots.map { "\($0.version).\($0.progress)" }.joined(separator: " ")
        let volumes = world.volumes.map { "\($0.version).\(Self.shard(of: $0.id))" }.joined(separator: " ")
        let state = "\(last); \(random.next()); \(volumes); \(snapshots); \(world.grants.count) grants; \(earliest)"
        return (server.trace?.takeLines() ?? []) + [state]
    }

    func describe(_ snapshot: [UInt8], _ context: CallContext) throws -> Wire.SnapshotDescription {
        let request = Wire.DescribeSnapshotRequest(target: .snapshotID(snapshot))
        let answer = try succeeds(server.call(server.service.describeSnapshot, request, context))
        guard let snapshot = answer.snapshot else { throw ModelFailure("\(last): nothing is described") }
        return snapshot
    }
}
