import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Logging

@testable import CairnService
@testable import CairnStore

/// What differs from run to run of the service's model.
struct ServiceModelConfiguration: Sendable {
    static let count = 20
    let index: Int

    var shards: Int { [1, 2, 3, 4][index % 4] }
    /// Of volumes; each is made with one of them.
    var chunks: [Int] { [[4096], [4096, 8192], [8192], [4096, 16384], [16384]][index % 5] }
    var segmentBytes: UInt64 { [1 << 20, 2 << 20, 4 << 20][(index + index / 4) % 3] }
    var checkpointBytes: UInt64 { [128 << 10, 512 << 10, 64 << 20][index % 3] }
    var indexFlushBytes: Int { [16 << 10, 256 << 10, 32 << 20][index / 2 % 3] }
    var leaseMilliseconds: UInt64 { [1, 50, 2000, 20000][index / 3 % 4] }
    /// Milliseconds that pass by themselves within each step: leases and pins end while calls are made. Fewer than pins last: what
    /// a call has found here stays until it ends.
    var driftMilliseconds: UInt64 { index % 6 == 5 ? min(20, leaseMilliseconds / 2) : 0 }
    var mix: ServiceModelMix { ServiceModelMix.all[(index + index / 5) % ServiceModelMix.all.count] }

    var description: String {
        "\(mix.name), \(shards) shards, chunks \(chunks), segments \(segmentBytes), checkpoints \(checkpointBytes), "
            + "index \(indexFlushBytes), leases \(leaseMilliseconds) ms"
            + (driftMilliseconds > 0 ? ", time passes" : "")
    }
}

/// A service over a store that can crash. Calls block until they are answered.
final class ModelServer {
    private let folder: String
    private let configuration: ServiceModelConfiguration
    let clock: ModelClock
    private(set) var store: Store
    private(set) var service: Service
    /// Notes the calls, where somebody wants to know of them.
    var trace: CallTrace?

    init(_ configuration: ServiceModelConfiguration, seed: UInt64) throws {
        self.configuration = configuration
        clock = ModelClock(seed: seed, drift: configuration.driftMilliseconds)
        folder = Torture.scratchFolder("cairn-service-model")
        var creation = StoreCreation()
        creation.shardCount = configuration.shards
        creation.segmentBytes = configuration.segmentBytes
        try Store.create(at: folder, creation)
        (store, service) = try Self.open(folder, configuration, clock)
    }

    deinit {
        service.stop()
        store.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    private static func open(_ folder: String, _ configuration: ServiceModelConfiguration, _ clock: ModelClock) throws
        -> (Store, Service)
    {
        var storeOptions = StoreOptions()
        storeOptions.execution = clock
        storeOptions.leaseTime = .milliseconds(Int(configuration.leaseMilliseconds))
        storeOptions.checkpointBytes = configuration.checkpointBytes
        storeOptions.indexFlushBytes = configuration.indexFlushBytes
        storeOptions.spareSegments = 1
        // So that other operations come in between.
        if configuration.shards > 1 { storeOptions.releaseStep = 4 }
        storeOptions.logger.logLevel = .error
        var options = ServiceOptions()
        options.defaultChunkSize = ChunkSize(bytes: configuration.chunks[0])!
        options.leaseMilliseconds = configuration.leaseMilliseconds
        options.workers = 2
        options.logger.logLevel = .error
        let store = try Torture.reopening { try Store.open(at: folder, storeOptions) }
        let service = Service(store: store, options: options)
        try service.start()
        return (store, service)
    }

    /// Goes on with what an orderly end leaves, or a process that was killed.
    func restart(crashing: Bool) throws {
        service.stop()
        if crashing { store.kill() } else { store.close() }
        (store, service) = try Self.open(folder, configuration, clock)
    }

    func audit() throws {
        for shard in store.shards {
            let problems = try shard.audit().problems
            if !problems.isEmpty { throw ModelFailure("audit of shard \(shard.index): \(problems.prefix(5))") }
        }
    }

    /// Throws unless the background has soon done all that there is.
    /// - Parameter purged: also what only time makes possible: leases that have ended, chunks that nothing holds. No pin may last longer.
    func settle(purged: Bool = false) throws {
        let end = Date() + 30
        while Date() < end {
            for shard in store.shards { shard.background.wake(newWork: true, isFull: false) }
            usleep(2_000)
            if try store.shards.allSatisfy({ try isSettled($0, purged: purged) }) { return }
        }
        throw ModelFailure("the background does not come to rest")
    }

    private func isSettled(_ shard: Shard, purged: Bool) throws -> Bool {
        if try Self.hasRows(.work, shard) { return false }
        guard purged else { return true }
        let hasEnded = try !shard.makeView().leases(endingBy: clock.earliest, from: nil, limit: 1).isEmpty
        return try !hasEnded && !Self.hasRows(.unreferenced, shard)
    }

    private static func hasRows(_ table: Table, _ shard: Shard) throws -> Bool {
        let cursor = shard.makeView().index.makeCursor()
        cursor.seek(Key(table).bytes)
        return try cursor.isValid() && cursor.key.first == table.rawValue
    }

    /// What of the calls that `body` makes is noted, at most.
    func noting<Value>(_ part: CallTrace.Part, _ body: () throws -> Value) rethrows -> Value {
        guard let before = trace?.part, part.rawValue < before.rawValue else { return try body() }
        trace?.part = part
        defer { trace?.part = before }
        return try body()
    }

    func call<Request: WireMessage, Response: Sendable>(
        _ served: ServiceHarness.Served<Request, Response>,
        _ request: Request,
        _ context: CallContext
    ) -> Result<Response, ServiceError> {
        let waiter = Waiter<Response>()
        served(request, context) { waiter.set($0) }
        let result = Self.result(waiter)
        trace?.note(request, context, result)
        return result
    }

    func upload(_ request: Wire.UploadBlockRequest, _ payload: [UInt8], _ context: CallContext)
        -> Result<Wire.UploadBlockResponse, ServiceError>
    {
        let waiter = Waiter<Wire.UploadBlockResponse>()
        let buffer = payload.isEmpty ? nil : Buffer(copying: payload).slice
        service.uploadBlock(request, payload: buffer, context) { waiter.set($0) }
        let result = Self.result(waiter)
        trace?.note(request, context, result)
        return result
    }

    private static func result<Value>(_ waiter: Waiter<Value>) -> Result<Value, ServiceError> {
        do { return .success(try waiter.get()) } catch let error as ServiceError { return .failure(error) } catch {
            return .failure(ServiceError(.internalFailure, "\(error)"))
        }
    }
}

struct ModelFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
