internal import CRocksDB
internal import CairnCore

/// A shard's index: one RocksDB without a log of its own, for the segment log is the log (DESIGN §5).
///
/// What is applied shows at once to every reader; what is durable is what the last ``flush()`` wrote. RocksDB never flushes by
/// itself here: the write buffer is far larger than what the shard lets gather, so that the durable index never runs ahead of
/// the synced log.
// Safety: RocksDB's handles may be used from any thread; they are closed when the last user has gone.
final class IndexDatabase: @unchecked Sendable {
    struct Options {
        var cacheBytes = 64 << 20
        /// The shard flushes when this much has been applied; the write buffer itself is four times as large.
        var flushBytes = 32 << 20
    }

    fileprivate let handle: OpaquePointer
    fileprivate let readOptions: OpaquePointer
    fileprivate let iterationOptions: OpaquePointer
    private let writeOptions: OpaquePointer
    private let options: OpaquePointer

    /// Opens the database, and makes it where there is none.
    init(path: String, _ settings: Options) throws(StoreError) {
        options = Self.databaseOptions(settings)
        var failure: UnsafeMutablePointer<CChar>?
        guard let handle = rocksdb_open(options, path, &failure) else {
            rocksdb_options_destroy(options)
            throw Self.error(failure, "cannot open the index in \(path)")
        }
        self.handle = handle
        readOptions = rocksdb_readoptions_create()
        iterationOptions = rocksdb_readoptions_create()
        // Walks cross tables by design; a table that all keys share needs no total order hint.
        rocksdb_readoptions_set_verify_checksums(readOptions, 1)
        rocksdb_readoptions_set_verify_checksums(iterationOptions, 1)
        writeOptions = rocksdb_writeoptions_create()
        rocksdb_writeoptions_disable_WAL(writeOptions, 1)
    }

    deinit {
        rocksdb_close(handle)
        rocksdb_writeoptions_destroy(writeOptions)
        rocksdb_readoptions_destroy(readOptions)
        rocksdb_readoptions_destroy(iterationOptions)
        rocksdb_options_destroy(options)
    }

    private static func databaseOptions(_ settings: Options) -> OpaquePointer {
        let base = rocksdb_options_create()!
        let options = rocksdb_options_create()!
        // A flush at closing would write what the log has not synced; the C API has this setting only as text.
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_get_options_from_string(base, "avoid_flush_during_shutdown=true", options, &failure)
        precondition(failure == nil, "RocksDB does not know avoid_flush_during_shutdown")
        rocksdb_options_destroy(base)
        rocksdb_options_set_create_if_missing(options, 1)
        rocksdb_options_set_paranoid_checks(options, 1)
        rocksdb_options_set_compression(options, Int32(rocksdb_no_compression))
        rocksdb_options_set_max_background_jobs(options, 2)
        rocksdb_options_set_write_buffer_size(options, settings.flushBytes * 4)
        rocksdb_options_set_max_write_buffer_number(options, 3)
        rocksdb_options_set_max_open_files(options, 512)
        rocksdb_options_set_keep_log_file_num(options, 2)
        rocksdb_options_set_avoid_unnecessary_blocking_io(options, 1)
        rocksdb_options_set_info_log_level(options, Int32(3))
        let table = rocksdb_block_based_options_create()!
        rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10))
        let cache = rocksdb_cache_create_lru(settings.cacheBytes)
        rocksdb_block_based_options_set_block_cache(table, cache)
        rocksdb_cache_destroy(cache)
        // In parts of 4 KiB: the whole filter of a large file is larger than the cache's parts are, and would be read anew,
        // megabytes of it, with each look-up.
        rocksdb_block_based_options_set_index_type(
            table,
            Int32(rocksdb_block_based_table_index_type_two_level_index_search)
        )
        rocksdb_block_based_options_set_partition_filters(table, 1)
        rocksdb_block_based_options_set_metadata_block_size(table, 4096)
        rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1)
        rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1)
        rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1)
        rocksdb_options_set_block_based_table_factory(options, table)
        rocksdb_block_based_options_destroy(table)
        return options
    }

    /// What is applied at this moment, unchanging.
    func makeView() -> IndexView { IndexView(self) }

    func apply(_ overlay: IndexOverlay) throws(StoreError) {
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_write_writebatch_wi(handle, writeOptions, overlay.batch, &failure)
        try Self.check(failure, "cannot apply to the index")
    }

    /// Bytes on disk, and of what is not written yet; RocksDB's own counts.
    var approximateBytes: UInt64 {
        ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"].reduce(0) { sum, name in
            var value: UInt64 = 0
            return rocksdb_property_int(handle, name, &value) == 0 ? sum + value : sum
        }
    }

    /// Whether there are marks of damage; true as well where that cannot be told.
    var mayHaveDamage: Bool {
        do throws(StoreError) {
            for table in [Table.damagedChunks, .damagedParts] {
                let cursor = makeView().makeCursor()
                cursor.seek(Key(table).bytes)
                if try cursor.isValid(), cursor.key.first == table.rawValue { return true }
            }
            return false
        } catch { return true }
    }

    /// Makes all that was applied before durable. Blocks.
    func flush() throws(StoreError) {
        let flushOptions = rocksdb_flushoptions_create()
        defer { rocksdb_flushoptions_destroy(flushOptions) }
        rocksdb_flushoptions_set_wait(flushOptions, 1)
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_flush(handle, flushOptions, &failure)
        try Self.check(failure, "cannot flush the index")
    }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? { try get(key, readOptions) }

    fileprivate func get(_ key: [UInt8], _ options: OpaquePointer) throws(StoreError) -> [UInt8]? {
        var failure: UnsafeMutablePointer<CChar>?
        var value: OpaquePointer?
        key.withUnsafeBytes { value = rocksdb_get_pinned(handle, options, $0.characters, $0.count, &failure) }
        try Self.check(failure, "cannot read the index")
        guard let value else { return nil }
        defer { rocksdb_pinnableslice_destroy(value) }
        var count = 0
        guard let bytes = rocksdb_pinnableslice_value(value, &count) else { return [] }
        return Array(UnsafeRawBufferPointer(start: bytes, count: count))
    }

    fileprivate static func check(_ failure: UnsafeMutablePointer<CChar>?, _ what: String) throws(StoreError) {
        if let failure { throw error(failure, what) }
    }

    private static func error(_ failure: UnsafeMutablePointer<CChar>?, _ what: String) -> StoreError {
        guard let failure else { return StoreError(.io, what) }
        let text = String(cString: failure)
        rocksdb_free(failure)
        // RocksDB's C API tells the kind of an error by its text alone.
        return StoreError(text.hasPrefix("Corruption") ? .damaged : .io, "\(what): \(text)")
    }
}

/// Reading an index: what a view and an overlay both can.
protocol IndexReading: AnyObject {
    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]?
    /// A cursor of its own; it must not outlive the reader.
    func makeCursor() -> IndexCursor
}

/// The index as it was at one moment.
// Safety: reads of a RocksDB snapshot may come from any thread.
final class IndexView: IndexReading, @unchecked Sendable {
    private let database: IndexDatabase
    private let snapshot: OpaquePointer
    private let options: OpaquePointer

    fileprivate init(_ database: IndexDatabase) {
        self.database = database
        snapshot = rocksdb_create_snapshot(database.handle)
        options = rocksdb_readoptions_create()
        rocksdb_readoptions_set_verify_checksums(options, 1)
        rocksdb_readoptions_set_snapshot(options, snapshot)
    }

    deinit {
        rocksdb_readoptions_destroy(options)
        rocksdb_release_snapshot(database.handle, snapshot)
    }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? { try database.get(key, options) }
    func makeCursor() -> IndexCursor { IndexCursor(rocksdb_create_iterator(database.handle, options), owner: self) }

    /// For a walk through all there is: what it reads drives nothing out of the cache.
    func makeScanCursor() -> IndexCursor {
        let options = ScanOptions(snapshot, view: self)
        return IndexCursor(rocksdb_create_iterator(database.handle, options.options), owner: options)
    }
}

/// The options of one scan, which outlive its iterator.
private final class ScanOptions {
    let options: OpaquePointer
    private let view: IndexView

    init(_ snapshot: OpaquePointer, view: IndexView) {
        self.view = view
        options = rocksdb_readoptions_create()
        rocksdb_readoptions_set_verify_checksums(options, 1)
        rocksdb_readoptions_set_fill_cache(options, 0)
        rocksdb_readoptions_set_snapshot(options, snapshot)
    }

    deinit { rocksdb_readoptions_destroy(options) }
}

/// The mutations of one group over the applied index: reads see both. It keeps them in our own encoding too, for the commit
/// record, so that the log does not depend on RocksDB's format.
// Safety: held by the shard's queue while it is built, then by its I/O queue.
final class IndexOverlay: IndexReading, @unchecked Sendable {
    fileprivate let batch: OpaquePointer
    private let database: IndexDatabase
    /// op (0 delete, 1 put), key length u16, key, and of a put: value length u32, value; see FORMAT.md.
    private(set) var encoded: [UInt8] = []
    private var savedCount = 0

    init(_ database: IndexDatabase) {
        self.database = database
        batch = rocksdb_writebatch_wi_create(0, 1)
    }

    deinit { rocksdb_writebatch_wi_destroy(batch) }

    var isEmpty: Bool { encoded.isEmpty }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? {
        var failure: UnsafeMutablePointer<CChar>?
        var count = 0
        let value = key.withUnsafeBytes {
            rocksdb_writebatch_wi_get_from_batch_and_db(
                batch,
                database.handle,
                database.readOptions,
                $0.characters,
                $0.count,
                &count,
                &failure
            )
        }
        try IndexDatabase.check(failure, "cannot read the index")
        guard let value else { return nil }
        defer { rocksdb_free(value) }
        return Array(UnsafeRawBufferPointer(start: value, count: count))
    }

    func put(_ key: [UInt8], _ value: [UInt8]) {
        key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                rocksdb_writebatch_wi_put(batch, key.characters, key.count, value.characters, value.count)
            }
        }
        encoded.append(1)
        append(length: UInt16(key.count), key)
        append(length: UInt32(value.count), value)
    }

    func delete(_ key: [UInt8]) {
        key.withUnsafeBytes { rocksdb_writebatch_wi_delete(batch, $0.characters, $0.count) }
        encoded.append(0)
        append(length: UInt16(key.count), key)
    }

    private func append(length: some FixedWidthInteger, _ bytes: [UInt8]) {
        withUnsafeBytes(of: length.littleEndian) { encoded.append(contentsOf: $0) }
        encoded.append(contentsOf: bytes)
    }

    /// Puts and deletes everything that a commit record holds; false where it is no such record.
    func replay(_ encoded: UnsafeRawBufferPointer) -> Bool {
        var reader = ByteReader(encoded)
        while !reader.isAtEnd {
            guard let operation = reader.take(UInt8.self), let keyLength = reader.take(UInt16.self),
                let key = reader.take(bytes: Int(keyLength))
            else { return false }
            switch operation {
            case 0: delete(key)
            case 1:
                guard let length = reader.take(UInt32.self), let value = reader.take(bytes: Int(length)) else {
                    return false
                }
                put(key, value)
            default: return false
            }
        }
        return true
    }

    /// The point that ``rollback()`` goes back to. Cursors made before a rollback must not be used after it.
    func setSavepoint() {
        rocksdb_writebatch_wi_set_save_point(batch)
        savedCount = encoded.count
    }

    func rollback() {
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_writebatch_wi_rollback_to_save_point(batch, &failure)
        precondition(failure == nil, "a rollback without a save point")
        encoded.removeLast(encoded.count - savedCount)
    }

    func makeCursor() -> IndexCursor {
        let base = rocksdb_create_iterator(database.handle, database.iterationOptions)
        return IndexCursor(rocksdb_writebatch_wi_create_iterator_with_base(batch, base), owner: self)
    }
}

/// Walks keys in order.
final class IndexCursor {
    private let iterator: OpaquePointer
    /// Kept alive as long as the cursor is.
    private let owner: AnyObject?

    fileprivate init(_ iterator: OpaquePointer?, owner: AnyObject?) {
        self.iterator = iterator!
        self.owner = owner
    }

    deinit { rocksdb_iter_destroy(iterator) }

    /// Goes to the first key that is not below `key`.
    func seek(_ key: [UInt8]) { key.withUnsafeBytes { rocksdb_iter_seek(iterator, $0.characters, $0.count) } }
    func next() { rocksdb_iter_next(iterator) }

    /// Whether there is a key; throws where the index could not be read.
    func isValid() throws(StoreError) -> Bool {
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
    fileprivate var characters: UnsafePointer<CChar>? { baseAddress?.assumingMemoryBound(to: CChar.self) }
}
