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

    /// Commit bytes after which the index is flushed: far below what RocksDB's write buffer holds.
    private static let flushBytes = 32 << 20

    init(_ database: IndexDatabase, _ logBytes: UInt64) {
        self.database = database
        self.logBytes = logBytes
    }

    /// - Parameter bytes: what the group takes of the log.
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
        // The write buffer must not fill by itself, though here nothing could run ahead of the log.
        if unflushed >= Self.flushBytes {
            try database.flush()
            unflushed = 0
        }
    }

    /// Makes it durable.
    mutating func finish() throws(StoreError) {
        if groups > 0 { try database.flush() }
    }
}
