import CairnCore
import CairnLog

/// Applies the log's commits to an index, one after the other: at a start, and where a copy of the index is brought up to date.
///
/// Commits are puts and deletes and nothing is read, so that the same log gives the same index from wherever an index stands.
struct IndexReplay {
    private let database: IndexDatabase
    private(set) var groups = 0
    /// Of the log, that they took.
    private(set) var bytes = 0
    /// Up to the last commit, since the shard was made.
    private(set) var logBytes: UInt64
    private var unflushed = 0
    private let flushBytes: Int

    /// - Parameters:
    ///   - logBytes: what the log had got up to where the index stands.
    ///   - flushBytes: commit bytes after which the index is flushed; RocksDB's write buffer holds four times as much.
    init(_ database: IndexDatabase, _ logBytes: UInt64, flushBytes: Int) {
        self.database = database
        self.logBytes = logBytes
        self.flushBytes = flushBytes
    }

    /// - Parameter bytes: what the group takes of the log.
    /// - Throws: `.damaged`, `.io`; `.full` where the disk has no room for the index.
    mutating func apply(_ commit: BufferSlice, at position: LogPosition, bytes: Int) throws(StoreError) {
        let overlay = IndexOverlay(database)
        let isWhole = withExtendedLifetime(commit) { overlay.replay(commit.bytes) }
        guard isWhole else { throw StoreError(.damaged, "the commit at \(position) does not decode") }
        logBytes += UInt64(bytes)
        self.bytes += bytes
        overlay.put(position: position, logBytes: logBytes)
        try database.apply(overlay)
        groups += 1
        unflushed += commit.count
        // The write buffer must not fill by itself: RocksDB would flush without looking whether there is room.
        if unflushed >= flushBytes { try flush() }
    }

    /// Makes it durable.
    /// - Throws: `.full` where the disk has no room for that, `.io`.
    mutating func finish() throws(StoreError) {
        if groups > 0 { try flush() }
    }

    private mutating func flush() throws(StoreError) {
        try database.checkRoom()
        try database.flush()
        unflushed = 0
    }
}
