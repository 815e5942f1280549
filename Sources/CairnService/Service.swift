import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Foundation
public import Logging
import Synchronization

/// How a service behaves where the caller says nothing.
public struct ServiceOptions: Sendable {
    public var defaultVolumeSize: UInt64 = 16 << 30
    public var defaultChunkSize = ChunkSize(bytes: 64 << 10)!
    /// Whether a block may come without a checksum (SPEC U4).
    public var checksumOptional = false
    /// How long QueryChunks promises hold, in milliseconds: what the store was opened with.
    public var leaseMilliseconds: UInt64 = 900_000
    /// How often a client is asked how far its snapshot is, if it does not say so itself, in milliseconds; 0: never (SPEC S10).
    public var promptMilliseconds: UInt64 = 60_000
    /// After how long a snapshot in progress is cancelled that nobody does anything for, in milliseconds (SPEC S11).
    public var snapshotIdleMilliseconds: UInt64 = 72 * 3600 * 1000
    /// What a walk of GetUsage may take, in milliseconds: it holds a view of the index, and one of the few walks that there can be.
    public var usageMilliseconds: UInt64 = 30 * 60 * 1000
    /// What an account may have that has no limits of its own (SPEC R3).
    public var accountLimits = AccountLimits()
    public var logger = Logger(label: "cairn.service")
    /// Threads that hash, compress and read.
    public var workers = 1 + max(1, ProcessorCount.value)

    public init() {}
}

/// What the API's calls mean, over the shards of a store. Knows no network: every call is a message, a context, and a closure
/// that takes the answer, on any thread.
///
/// A call that changes something: checked and prepared on a worker, then carried out on its shard's queue as one transaction,
/// answered when that is durable. A call that reads: on a worker, from a view of the shard's index.
public final class Service: Sendable {
    let store: Store
    let options: ServiceOptions
    let workers: Workers
    let gate = IdempotencyGate()
    let usageGate = UsageGate()
    let limitTable: AccountLimitTable
    let quotas = Quotas()
    let prompts: Prompts
    let idleRule: IdleRule
    private let watch = Mutex<SnapshotWatch?>(nil)

    var logger: Logger { options.logger }

    public init(store: Store, options: ServiceOptions) {
        self.store = store
        self.options = options
        workers = Workers(width: options.workers)
        limitTable = AccountLimitTable(usual: options.accountLimits)
        prompts = Prompts(intervalNanoseconds: options.promptMilliseconds * 1_000_000)
        idleRule = IdleRule(limitMilliseconds: options.snapshotIdleMilliseconds)
    }

    /// Reads the accounts' limits, and begins what the service does by itself, as time goes by. Before the first call.
    public func start() throws(ServiceError) {
        try storeCall { () throws(StoreError) in try limitTable.load(from: store.shards) }
        // Not weakly: that would make all counting of references to the service dearer, for good.
        store.whenRecovered { [self] shard in reloadLimits(from: shard) }
        store.growth.set { [self] account, bytes in mayGrow(account, by: bytes) }
        watch.withLock { $0 = $0 ?? SnapshotWatch(self) }
        sweepGrants()
    }

    /// Ends it: before the store is closed. Without it, the store and the service hold one another.
    public func stop() {
        store.whenRecovered { _ in }
        // What has not been merged when the store closes stays in parts: nobody says any more what an account may have.
        store.growth.set { _, _ in false }
        let watch = watch.withLock { watch in
            defer { watch = nil }
            return watch
        }
        watch?.stop()
    }

    /// Whether an account may have so many more stored bytes, which it did not ask for (SPEC R3).
    private func mayGrow(_ account: AccountID, by bytes: UInt64) -> Bool {
        let limit = limits(of: account).storedBytes
        guard limit != 0, let usage = try? usage(of: account) else { return limit == 0 }
        return usage.storedBytes.saturatingSum(bytes) <= limit
    }

    private func reloadLimits(from shard: Shard) {
        do throws(StoreError) {
            try limitTable.reload(from: shard) { homeShard(of: $0).index == shard.index }
        } catch { logger.error("accounts' limits cannot be read again", metadata: ["reason": "\(error)"]) }
    }

    /// The shard that an ID names; nil for an ID of another store.
    func shard(of id: UUID128) -> Shard? {
        Int(id.shard.rawValue) < store.shardCount ? store.shard(id.shard) : nil
    }

    /// The shard for a new volume: chosen by its affinity key (SPEC V10), else by its idempotency key, so that a repeated
    /// call finds what the first one did, else at random.
    func shard(forAffinity affinity: [UInt8], idempotencyKey key: [UInt8], account: AccountID) -> Shard {
        if !affinity.isEmpty { return shard(for: "affinity", account, affinity) }
        return key.isEmpty ? store.pickShard() : shard(for: "key", account, key)
    }

    /// The shard that keeps what belongs to an account as a whole.
    func homeShard(of account: AccountID) -> Shard { shard(for: "home", account, []) }

    /// Always the same one for the same account and key.
    private func shard(for purpose: String, _ account: AccountID, _ key: [UInt8]) -> Shard {
        let bytes = Array("\(purpose)/\(account)/".utf8) + key
        let hash = bytes.withUnsafeBytes { SHA256.hash($0).words.0 }
        return store.shard(ShardIndex(UInt16(hash % UInt64(store.shardCount))))
    }

    /// What the service writes down a time by; milliseconds since 1970.
    var now: UInt64 { store.milliseconds }

    /// Runs `body` on a worker and answers with what it returns or throws; not at all worth starting when nobody waits.
    /// - Parameter bytes: how many it reads or hashes, about: the account's share of the workers is counted in them.
    func onWorker<Value>(
        _ context: CallContext,
        bytes: Int = 0,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable () throws(ServiceError) -> Value
    ) {
        workers.run(for: context.account, bytes: bytes) {
            let result = Result { () throws(ServiceError) -> Value in
                try context.checkWanted()
                return try body()
            }
            answer(result)
        }
    }

    /// The same for a call that is answered later: `body` sees to that, unless it throws.
    func beginOnWorker<Value>(
        _ context: CallContext,
        bytes: Int = 0,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable () throws(ServiceError) -> Void
    ) {
        workers.run(for: context.account, bytes: bytes) {
            do throws(ServiceError) {
                try context.checkWanted()
                try body()
            } catch { answer(.failure(error)) }
        }
    }

    public func health() -> Wire.GetHealthResponse {
        var response = Wire.GetHealthResponse()
        response.problems = store.shards.compactMap { shard in
            shard.fenceReason.map { "shard \(shard.index) recovers from a failure: \($0)" }
        }
        response.healthy = response.problems.isEmpty
        return response
    }
}

/// The processors that this process may use.
enum ProcessorCount {
    static var value: Int { ProcessInfo.processInfo.activeProcessorCount }
}
