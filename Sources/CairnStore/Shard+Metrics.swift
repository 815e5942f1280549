import CairnLog

/// How large and how busy a shard is (SPEC R4). Any thread; waits for nothing.
extension Shard {
    /// What the log takes on disk, with the segments that are allocated ahead.
    public var logBytes: UInt64 { log.allocatedBytes }
    /// Bytes of the log that the durable index does not hold yet: what a start after a crash reads.
    public var logTailBytes: UInt64 { UInt64(unflushed.withLock { $0.logBytes }) }
    /// What the index takes on disk and in memory.
    public var indexBytes: UInt64 { database.approximateBytes }
    /// Whether only what frees space is let in.
    public var isFull: Bool { log.isFull || isShort.load(ordering: .relaxed) }
}
