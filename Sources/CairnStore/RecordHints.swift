import CairnLog
import Synchronization

/// Which hints of manifests' entries (``ManifestEntry/hint``) are followed.
///
/// A record proves itself: its header names the chunk, and its checksum, which begins with the segment's life, holds. So a hint that is
/// out of date costs a second look, by way of the dictionary, and no more. What a record cannot prove is that its bytes are those that
/// were hashed, where memory failed before they got their checksum. A scrub finds that, and when the data comes again the dictionary
/// leads elsewhere; but entries lead to the bad record still. So no hint is followed any more into a life of a segment in which a chunk
/// was healed.
final class RecordHints: Sendable {
    /// A segment's life; what is damaged in one says nothing of the next.
    private struct Life: Hashable {
        let segment: SegmentID
        let seed: UInt32

        init(_ location: RecordLocation) { (segment, seed) = (location.segment, location.seed) }
    }

    private let log: SegmentLog
    /// Nil: that could not be read, so none is followed.
    private let healed: Mutex<Set<Life>?>
    private let followsAll: Atomic<Bool>

    init(_ log: SegmentLog, _ database: IndexDatabase) {
        self.log = log
        let lives = Self.healedLives(database)
        followsAll = Atomic(lives?.isEmpty == true)
        healed = Mutex(lives)
    }

    private static func healedLives(_ database: IndexDatabase) -> Set<Life>? {
        var lives: Set<Life> = []
        do throws(StoreError) {
            let cursor = database.makeView().makeCursor(within: Key(.healed).bytes)
            cursor.seek(Key(.healed).bytes)
            while try cursor.isValid() {
                guard var key = KeyReader(cursor.key, .healed), let segment = key.take(UInt32.self),
                    let seed = key.take(UInt32.self)
                else { return nil }
                lives.insert(Life(RecordLocation(segment: SegmentID(segment), offset: 0, length: 0, seed: seed)))
                cursor.next()
            }
        } catch { return nil }
        return lives
    }

    /// Whether what is there may be read; it must prove itself then.
    func mayFollow(_ hint: RecordLocation) -> Bool {
        guard log.mayHold(hint) else { return false }
        return followsAll.load(ordering: .acquiring) || healed.withLock { $0?.contains(Life(hint)) == false }
    }

    /// Called before the index says that a chunk is elsewhere now.
    func distrust(_ location: RecordLocation) {
        healed.withLock { _ = $0?.insert(Life(location)) }
        followsAll.store(false, ordering: .releasing)
    }
}

extension Key {
    static func healed(_ location: RecordLocation) -> [UInt8] {
        Key(.healed).then(location.segment.rawValue).then(location.seed).bytes
    }
}
