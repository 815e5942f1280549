internal import CRocksDB
import Glibc

/// Walks keys in order.
final class IndexCursor {
    /// Nil where the database is closed.
    private let iterator: OpaquePointer?
    private let handle: IndexHandle?
    /// Kept alive as long as the cursor is.
    private let owner: AnyObject?
    private let walks: Bool
    /// Of a walk: no key lies between this one and the cursor.
    private var floor: [UInt8]?
    /// Steps that cost less than a seek.
    private static let nearby = 4

    /// - Parameter walks: whether a key nearby is stepped on to, which takes a tenth of a seek. What is read must not change.
    init(_ iterator: OpaquePointer?, _ handle: IndexHandle?, owner: AnyObject?, walks: Bool = false) {
        (self.iterator, self.handle, self.owner, self.walks) = (iterator, handle, owner, walks)
    }

    deinit { if let iterator { rocksdb_iter_destroy(iterator) } }

    /// Goes to the first key that is not below `key`.
    func seek(_ key: [UInt8]) {
        guard let iterator, !walks || !isNear(key) else { return }
        key.withUnsafeBytes { rocksdb_iter_seek(iterator, $0.characters, $0.count) }
        if walks { floor = key }
    }

    /// Goes to the last key that is not above `key`.
    func seekBack(_ key: [UInt8]) {
        guard let iterator else { return }
        floor = nil
        key.withUnsafeBytes { rocksdb_iter_seek_for_prev(iterator, $0.characters, $0.count) }
    }

    func next() {
        guard let iterator else { return }
        if walks { floor = rocksdb_iter_valid(iterator) != 0 ? Array(key) + [0] : nil }
        rocksdb_iter_next(iterator)
    }

    /// Whether the cursor is where a seek would bring it, or was after a few steps.
    private func isNear(_ key: [UInt8]) -> Bool {
        guard let floor, key.withUnsafeBytes({ key in floor.withUnsafeBytes { Self.order(key, $0) >= 0 } }) else {
            return false
        }
        var steps = 0
        while rocksdb_iter_valid(iterator) != 0 {
            if key.withUnsafeBytes({ Self.order(self.key, $0) >= 0 }) { return true }
            if steps == Self.nearby { return false }
            next()
            steps += 1
        }
        return false
    }

    /// As RocksDB's comparator has it.
    private static func order(_ one: UnsafeRawBufferPointer, _ other: UnsafeRawBufferPointer) -> Int {
        let common = min(one.count, other.count)
        let order = common == 0 ? 0 : Int(memcmp(one.baseAddress!, other.baseAddress!, common))
        return order == 0 ? one.count - other.count : order
    }

    /// Whether there is a key; throws where the index could not be read.
    func isValid() throws(StoreError) -> Bool {
        guard let iterator, let handle else { throw IndexHandle.retired }
        try handle.check()
        if rocksdb_iter_valid(iterator) != 0 { return true }
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_iter_get_error(iterator, &failure)
        try IndexDatabase.check(failure, "cannot walk the index")
        return false
    }

    /// The key under the cursor; valid until it moves.
    var key: UnsafeRawBufferPointer {
        var count = 0
        let bytes = rocksdb_iter_key(iterator, &count)
        return UnsafeRawBufferPointer(start: bytes, count: count)
    }

    /// The value under the cursor; valid until it moves.
    var value: UnsafeRawBufferPointer {
        var count = 0
        let bytes = rocksdb_iter_value(iterator, &count)
        return UnsafeRawBufferPointer(start: bytes, count: count)
    }
}
