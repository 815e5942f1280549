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
    /// Of a walk: no key lies between this one and the cursor; see `floorKind`.
    private var floor: [UInt8] = []
    private var floorKind = FloorKind.unknown

    private enum FloorKind {
        case unknown
        /// The cursor may be on it.
        case sought
        /// The cursor is behind it.
        case passed
    }

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
        if walks { (floor, floorKind) = (key, .sought) }
    }

    /// Goes to the last key that is not above `key`.
    func seekBack(_ key: [UInt8]) {
        guard let iterator else { return }
        floorKind = .unknown
        key.withUnsafeBytes { rocksdb_iter_seek_for_prev(iterator, $0.characters, $0.count) }
    }

    func next() {
        guard let iterator else { return }
        if walks {
            if rocksdb_iter_valid(iterator) != 0 { pass(key) } else { floorKind = .unknown }
        }
        rocksdb_iter_next(iterator)
    }

    /// Copies the key to where the last one was, mostly: a walk comes here for each of millions.
    private func pass(_ key: UnsafeRawBufferPointer) {
        if floor.count == key.count {
            floor.withUnsafeMutableBytes { $0.copyMemory(from: key) }
        } else {
            floor = Array(key)
        }
        floorKind = .passed
    }

    /// Whether the cursor is where a seek would bring it, or was after a few steps.
    private func isNear(_ key: [UInt8]) -> Bool {
        guard floorKind != .unknown else { return false }
        let order = key.withUnsafeBytes { key in floor.withUnsafeBytes { Self.order(key, $0) } }
        guard order > 0 || order == 0 && floorKind == .sought else { return false }
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

extension UnsafeRawBufferPointer {
    /// Whether its first bytes are those of a key.
    func begins(as key: [UInt8], _ count: Int) -> Bool {
        self.count >= count && key.withUnsafeBytes { memcmp(baseAddress!, $0.baseAddress!, count) == 0 }
    }
}
