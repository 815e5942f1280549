public import CairnCore
import CairnStore

/// How busy and how full a service is, for its operator (SPEC R4).
public struct ServiceMetrics: Sendable {
    public struct OfShard: Sendable {
        public let index: ShardIndex
        /// Changes that wait for the next group.
        public let waitingCalls: Int
        public let logBytes: UInt64
        public let logTailBytes: UInt64
        public let indexBytes: UInt64
        public let isFull: Bool
        /// Whether it has failed, and is not recovered yet.
        public let isFenced: Bool
        /// Since the server started: how often it was recovered from a failure, and how often that could not be done yet.
        public let recoveries: Int
        public let failedRecoveries: Int
        /// Chunks, and parts of chunks, that are known to be damaged.
        public let damaged: Int
        /// Since the server started.
        public let scrubbedBytes: UInt64
    }
    public let workers: Int
    /// Jobs that wait for a worker.
    public let waitingJobs: Int
    public let shards: [OfShard]
}

extension Service {
    /// Any thread; waits for nothing.
    public func metrics() -> ServiceMetrics {
        ServiceMetrics(
            workers: options.workers,
            waitingJobs: workers.waiting,
            shards: store.shards.map { shard in
                let recoveries = store.recoveries(of: shard.index)
                return ServiceMetrics.OfShard(
                    index: shard.index,
                    waitingCalls: shard.waitingCalls,
                    logBytes: shard.logBytes,
                    logTailBytes: shard.logTailBytes,
                    indexBytes: shard.indexBytes,
                    isFull: shard.isFull,
                    isFenced: shard.fenceReason != nil,
                    recoveries: recoveries.done,
                    failedRecoveries: recoveries.failed,
                    damaged: shard.damagedCount,
                    scrubbedBytes: shard.scrubber.bytesRead
                )
            }
        )
    }
}
