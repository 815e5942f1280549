import CairnLog
import Synchronization

/// Which hints of manifests' entries (``ManifestEntry/hint``) are followed.
///
/// A record proves itself: its header names the chunk, and its checksum, which begins with the segment's life, holds. So a hint that is
/// out of date costs a second look, by way of the dictionary, and no more. What a record cannot prove is that its bytes are those that
/// were hashed, where memory failed before they got their checksum. A scrub finds that, and when the data comes again the dictionary
/// leads elsewhere; but entries lead to the bad record still, or to that from which compaction took it. So of a chunk that was ever healed
/// no hint is followed.
///
/// Where the dictionary's record is damaged, and the one that is hinted at whole, readers are served, and do not notice: the scrub does.
final class RecordHints: Sendable {
    private let log: SegmentLog
    /// Nil: they could not be read, or are too many, so none is followed. Those that are gone stay until the shard is opened anew.
    private let healed: Mutex<Set<ChunkKey>?>
    private let followsAll: Atomic<Bool>
    /// Chunks that were healed, up to which they are kept in memory: some megabytes.
    private static let mostHealed = 32 << 10

    init(_ log: SegmentLog, _ database: IndexDatabase) {
        self.log = log
        let chunks = Self.healedChunks(database)
        followsAll = Atomic(chunks?.isEmpty == true)
        healed = Mutex(chunks)
    }

    private static func healedChunks(_ database: IndexDatabase) -> Set<ChunkKey>? {
        var chunks: Set<ChunkKey> = []
        do throws(StoreError) {
            let cursor = database.makeView().makeCursor(within: Key(.healed).bytes)
            cursor.seek(Key(.healed).bytes)
            while try cursor.isValid() {
                guard chunks.count < mostHealed, var key = KeyReader(cursor.key, .healed), let chunk = key.takeChunk()
                else { return nil }
                chunks.insert(chunk)
                cursor.next()
            }
        } catch { return nil }
        return chunks
    }

    /// Whether what is there may be read for the chunk; it must prove itself then.
    func mayFollow(_ hint: RecordLocation, to chunk: ChunkKey) -> Bool {
        guard log.mayHold(hint) else { return false }
        return followsAll.load(ordering: .acquiring) || !mayBeHealed(chunk)
    }

    /// Called before the index says that the chunk is elsewhere now.
    func noteHealed(_ chunk: ChunkKey) {
        healed.withLock { chunks in
            if chunks?.count == Self.mostHealed { chunks = nil }
            chunks?.insert(chunk)
        }
        followsAll.store(false, ordering: .releasing)
    }

    func mayBeHealed(_ chunk: ChunkKey) -> Bool { healed.withLock { $0?.contains(chunk) ?? true } }
}

extension Key {
    static func healed(_ chunk: ChunkKey) -> [UInt8] {
        Key(.healed).then(chunk).bytes
    }
}
