import CairnCore
import CairnLog
public import Logging

/// What is fixed when a store is made.
public struct StoreCreation: Sendable {
    /// 1 … 256: each is a log, an index and a dictionary of its own.
    public var shardCount = 4
    /// Bytes of a segment of the log: 1 MiB … 1 GiB, a multiple of 4096.
    public var segmentBytes: UInt64 = 64 << 20
    public init() {}
}

/// How a store behaves while it is open.
public struct StoreOptions: Sendable {
    /// How long a chunk that QueryChunks found is kept for the caller (SPEC A1).
    public var leaseTime: Duration = .seconds(900)
    /// Bytes of log after which the index is made durable: bounds what recovery must read.
    public var checkpointBytes: UInt64 = 512 << 20
    /// Bytes of index changes after which it is made durable: bounds its memory.
    public var indexFlushBytes = 32 << 20
    /// Bytes of log after which the index is copied (FORMAT.md, "Checkpoints"). Two copies are kept, so a shard holds back up to
    /// twice as much of the log that could be free, as long as there is room, and a repair replays no more. At 4 GiB that is some
    /// seconds of replay; and a copy takes the index's new files alone, a hundredth of what the log has got meanwhile.
    public var indexBackupBytes: UInt64 = 4 << 30
    /// RocksDB's block cache, for each shard.
    public var indexCacheBytes = 32 << 20
    /// The most bytes of segments on the disk, over all shards; nil: as much as there is.
    public var capacityBytes: UInt64?
    /// Bytes of the file system that the log leaves free, for the indexes beside it; nil: a sixteenth of all, at most 1 GiB.
    public var freeBytes: UInt64?
    /// Free segments that each shard keeps for its next writes, beyond its reserve.
    public var spareSegments = 32
    /// The first wait where the recovery of a shard that failed fails as well; then twice as long each time, up to 60 times.
    public var recoveryWait: Duration = .seconds(1)
    /// How long a scrub of all data may take that runs by itself; nil: none does.
    public var scrubPeriod: Duration?
    /// The most that it reads in a second, for each shard.
    public var scrubBytesPerSecond: UInt64 = 8 << 20
    /// How often its place is made durable: what was read since is read again after a restart.
    public var scrubSaveInterval = Duration.seconds(30)
    /// Entries that one step of a release frees: its commit must fit in a segment of the smallest size. Tests take fewer, so that other
    /// changes come in between.
    var releaseStep = 256
    /// After how long a snapshot that could not be sealed for damage is tried again: what was damaged may be healed by then.
    var sealRetry = Duration.seconds(60)
    /// The store's; see ``Store/growth``.
    var growth = GrowthRule()
    /// What stands between a shard and its files: tests make it fail.
    var indexStep: @Sendable (IndexDatabase.Step) throws(StoreError) -> Void = { (_) throws(StoreError) in }
    var storage: @Sendable (ShardIndex, any SegmentStorage) -> any SegmentStorage = { $1 }
    /// What shards run on: tests simulate it.
    var execution: any ShardExecution = DispatchExecution()
    public var logger = Logger(label: "cairn.store")
    public init() {}
}
