import CairnLog

/// How large and how busy a shard is (SPEC R4). Any thread; waits for nothing.
extension Shard {
    /// What the log takes on disk, with the segments that are allocated ahead.
    public var logBytes: UInt64 { log.allocatedBytes }
    /// What the index takes on disk and in memory.
    public var indexBytes: UInt64 { database.approximateBytes }
    /// Whether only what frees space is let in.
    public var isFull: Bool { log.isFull || isShort.load(ordering: .relaxed) }
}
