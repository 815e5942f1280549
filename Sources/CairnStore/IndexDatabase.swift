internal import CRocksDB
internal import CRocksDBLog
internal import CairnCore
import Dispatch
import Glibc
import Synchronization

/// A shard's index: one RocksDB without a log of its own, for the segment log is the log (DESIGN §5).
///
/// What is applied shows at once to every reader; what is durable is what the last ``flush()`` wrote. RocksDB never flushes by
/// itself here: the write buffer is far larger than what the shard lets gather, so that the durable index never runs ahead of
/// the synced log.
///
/// ``close(within:)`` takes it away from under whoever still holds it: then all reading fails with `.fenced`, and RocksDB is closed
/// when the last of its users has noticed. It never flushes then: what is only in memory may be ahead of the log.
final class IndexDatabase: Sendable {
    struct Options {
        var cacheBytes = 64 << 20
        /// The shard flushes when this much has been applied; the write buffer itself is four times as large.
        var flushBytes = 32 << 20
        /// Where it is.
        var room: IndexRoom?
        /// Takes what RocksDB has to say of errors, on any thread: it writes no file of its own.
        var log: @Sendable (String) -> Void = { _ in }
        /// Called before a call of RocksDB that changes something, and after a flush or copy: where it throws, that has failed.
        var step: @Sendable (Step) throws(StoreError) -> Void = { (_) throws(StoreError) in }
    }

    enum Step { case apply, flush, flushed, link, linked }

    private let step: @Sendable (Step) throws(StoreError) -> Void
    private let open: Mutex<IndexHandle?>
    private let room: IndexRoom?
    private let isCompacting: Atomic<Bool>
    /// Entered as long as RocksDB is open.
    private let users = DispatchGroup()

    /// How a database is opened.
    enum Access {
        /// To be changed; one must be there.
        case existing
        /// To be changed; made where there is none.
        case create
        /// To be looked at: nothing that counts is written.
        case readOnly
    }

    /// - Throws: `.damaged` where RocksDB finds it so, or finds none and shall not make it; `.full` where there is no room to open
    ///   it, `.io`.
    init(path: String, _ settings: Options, _ access: Access = .create) throws(StoreError) {
        step = settings.step
        room = access == .readOnly ? nil : settings.room
        isCompacting = Atomic(true)
        try room?.make(0)
        let options = Self.databaseOptions(settings)
        rocksdb_options_set_create_if_missing(options, access == .create ? 1 : 0)
        guard access == .create || Self.exists(path) else {
            rocksdb_options_destroy(options)
            throw StoreError(.damaged, "there is no index in \(path)")
        }
        // RocksDB would make it, and complain first that it is missing. Where this fails, the opening does.
        if access == .create { mkdir(path, 0o700) }
        var failure: UnsafeMutablePointer<CChar>?
        let opened =
            access == .readOnly
            ? rocksdb_open_for_read_only(options, path, 0, &failure) : rocksdb_open(options, path, &failure)
        guard let database = opened else {
            rocksdb_options_destroy(options)
            throw Self.error(failure, "cannot open the index in \(path)")
        }
        open = Mutex(IndexHandle(database, options, users))
    }

    /// Whether a folder holds a database, be it damaged: RocksDB's first file names the others, and is written last.
    static func exists(_ path: String) -> Bool { access(path + "/CURRENT", F_OK) == 0 }

    /// Makes a folder of links to the files of the durable index: unchanging, and made in an instant. Flushes nothing.
    func link(to path: String) throws(StoreError) {
        try step(.link)
        let handle = try usable()
        var failure: UnsafeMutablePointer<CChar>?
        let checkpoint = rocksdb_checkpoint_object_create(handle.database, &failure)
        try Self.check(failure, "cannot link the index")
        defer { rocksdb_checkpoint_object_destroy(checkpoint) }
        rocksdb_checkpoint_create(checkpoint, path, .max, &failure)
        try Self.check(failure, "cannot link the index")
        try step(.linked)
    }

    /// Lets go of RocksDB, and waits until its last user has.
    /// - Returns: false where that takes longer; it can be called again.
    func close(within limit: DispatchTimeInterval) -> Bool {
        retire()
        return users.wait(timeout: .now() + limit) == .success
    }

    private func retire() {
        let handle = open.withLock { open in
            defer { open = nil }
            return open
        }
        handle?.isRetired.store(true, ordering: .relaxed)
    }

    /// Whether it was closed, or is about to be.
    var isClosed: Bool { open.withLock { $0 == nil } }

    fileprivate var handle: IndexHandle? { open.withLock { $0 } }

    func volumeAtHand(_ id: VolumeID) -> VolumeRecord? {
        open.withLock { handle in
            guard let handle, !handle.isRetired.load(ordering: .relaxed) else { return nil }
            return handle.hot.volume(id)
        }
    }

    private static func databaseOptions(_ settings: Options) -> OpaquePointer {
        let base = rocksdb_options_create()!
        let options = rocksdb_options_create()!
        // A flush at closing would write what the log has not synced; the C API has these settings only as text.
        var failure: UnsafeMutablePointer<CChar>?
        // And it must not flush by itself after an error: the shard is recovered then.
        // A filter for what is in memory: most chunks that come are new, and each is looked for.
        let texts =
            "avoid_flush_during_shutdown=true;max_bgerror_resume_count=0;"
            + "memtable_whole_key_filtering=true;memtable_prefix_bloom_size_ratio=0.01"
        rocksdb_get_options_from_string(base, texts, options, &failure)
        precondition(failure == nil, "RocksDB does not know one of \(texts)")
        rocksdb_options_destroy(base)
        rocksdb_options_set_paranoid_checks(options, 1)
        rocksdb_options_set_compression(options, Int32(rocksdb_no_compression))
        rocksdb_options_set_max_background_jobs(options, 2)
        rocksdb_options_set_write_buffer_size(options, settings.flushBytes * 4)
        rocksdb_options_set_max_write_buffer_number(options, 3)
        // Bounds the room on the disk that a compaction needs until it ends, beside what it reads (StoreOptions.freeBytes).
        rocksdb_options_set_max_compaction_bytes(options, 256 << 20)
        rocksdb_options_set_max_open_files(options, 512)
        rocksdb_options_set_avoid_unnecessary_blocking_io(options, 1)
        // Tables whose rows come and go: a walk passes what was deleted until it is compacted, which is due where it is half of what lies
        // side by side.
        rocksdb_options_add_compact_on_deletion_collector_factory(options, 4096, 2048)
        setLog(options, settings.log)
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

    private static func setLog(_ options: OpaquePointer, _ log: @escaping @Sendable (String) -> Void) {
        let context = Unmanaged.passRetained(IndexLog(log)).toOpaque()
        cairn_rocksdb_set_log(
            options,
            { context, text in
                guard let context, let text else { return }
                Unmanaged<IndexLog>.fromOpaque(context).takeUnretainedValue().log(String(cString: text))
            },
            context,
            { context in if let context { Unmanaged<IndexLog>.fromOpaque(context).release() } }
        )
    }

    /// What is applied at this moment, unchanging.
    /// - Parameter inMemory: what would have to be read from the disk is refused, `.notInMemory`.
    func makeView(inMemory: Bool = false) -> IndexView { IndexView(handle, inMemory: inMemory) }

    func apply(_ overlay: IndexOverlay) throws(StoreError) {
        try step(.apply)
        let handle = try usable()
        var failure: UnsafeMutablePointer<CChar>?
        handle.hot.change(overlay.hotKeys) {
            rocksdb_write_writebatch_wi(handle.database, handle.writeOptions, overlay.batch, &failure)
        }
        try Self.check(failure, "cannot apply to the index")
    }

    private func usable() throws(StoreError) -> IndexHandle {
        guard let handle else { throw IndexHandle.retired }
        return handle
    }

    /// Bytes on disk, and of what is not written yet; RocksDB's own counts.
    var approximateBytes: UInt64 {
        property("rocksdb.total-sst-files-size") + property("rocksdb.cur-size-all-mem-tables")
    }

    /// Whether a flush or compaction has failed since the database was opened. RocksDB may try such a one again by itself, and
    /// flushes all that is applied then.
    var hasFailed: Bool { property("rocksdb.background-errors") > 0 }

    private func property(_ name: String) -> UInt64 {
        var value: UInt64 = 0
        guard let handle, rocksdb_property_int(handle.database, name, &value) == 0 else { return 0 }
        return value
    }

    /// Whether there is room on the disk for what a flush would write; it may take the reserve.
    /// - Throws: `.full`.
    func checkRoom() throws(StoreError) { try room?.make(property("rocksdb.cur-size-all-mem-tables")) }

    /// Whether the disk has little room for the index. Compactions, which can wait, begin only where it has; and the reserve is
    /// made again then. To be called now and then.
    func lookAtRoom() -> Bool {
        guard let room else { return false }
        let isShort = room.isShort
        room.restore()
        guard isCompacting.load(ordering: .relaxed) == isShort, let handle else { return isShort }
        var failure: UnsafeMutablePointer<CChar>?
        let isDone = "disable_auto_compactions".withCString { name in
            (isShort ? "true" : "false").withCString { value in
                var (name, value): (UnsafePointer<CChar>?, UnsafePointer<CChar>?) = (name, value)
                rocksdb_set_options(handle.database, 1, &name, &value, &failure)
                return failure == nil
            }
        }
        if let failure { rocksdb_free(failure) }
        if isDone { isCompacting.store(!isShort, ordering: .relaxed) }
        return isShort
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
        try step(.flush)
        let handle = try usable()
        let flushOptions = rocksdb_flushoptions_create()
        defer { rocksdb_flushoptions_destroy(flushOptions) }
        rocksdb_flushoptions_set_wait(flushOptions, 1)
        var failure: UnsafeMutablePointer<CChar>?
        rocksdb_flush(handle.database, flushOptions, &failure)
        try Self.check(failure, "cannot flush the index")
        try step(.flushed)
    }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? {
        let handle = try usable()
        return try handle.get(key, handle.readOptions)
    }

    static func check(_ failure: UnsafeMutablePointer<CChar>?, _ what: String) throws(StoreError) {
        if let failure { throw error(failure, what) }
    }

    fileprivate static func error(_ failure: UnsafeMutablePointer<CChar>?, _ what: String) -> StoreError {
        guard let failure else { return StoreError(.io, what) }
        let text = String(cString: failure)
        rocksdb_free(failure)
        // RocksDB's C API tells the kind of an error by its text alone.
        let code: StoreError.Code =
            text.hasPrefix("Corruption") ? .damaged : text.hasPrefix("Result incomplete") ? .notInMemory : .io
        return StoreError(code, "\(what): \(text)")
    }
}

/// Kept by RocksDB as long as it may have something to say.
private final class IndexLog: Sendable {
    let log: @Sendable (String) -> Void
    init(_ log: @escaping @Sendable (String) -> Void) { self.log = log }
}

/// An open RocksDB, closed when its last user has gone.
// Safety: RocksDB's handles may be used from any thread.
final class IndexHandle: @unchecked Sendable {
    /// RocksDB's ReadTier kBlockCacheTier (memtables and block cache): the C API has no name for it.
    static let memoryTier: Int32 = 1
    static let retired = StoreError(.fenced, "the shard was closed, to recover or for good")

    let database: OpaquePointer
    let readOptions: OpaquePointer
    let iterationOptions: OpaquePointer
    /// For who must not wait for the disk.
    let memoryOptions: OpaquePointer
    let writeOptions: OpaquePointer
    /// Whether users shall let go of it.
    let isRetired = Atomic(false)
    let hot = HotRecords()
    private let options: OpaquePointer
    private let users: DispatchGroup

    init(_ database: OpaquePointer, _ options: OpaquePointer, _ users: DispatchGroup) {
        (self.database, self.options, self.users) = (database, options, users)
        readOptions = rocksdb_readoptions_create()
        iterationOptions = rocksdb_readoptions_create()
        // Walks cross tables by design; a table that all keys share needs no total order hint.
        rocksdb_readoptions_set_verify_checksums(readOptions, 1)
        rocksdb_readoptions_set_verify_checksums(iterationOptions, 1)
        memoryOptions = rocksdb_readoptions_create()
        rocksdb_readoptions_set_verify_checksums(memoryOptions, 1)
        rocksdb_readoptions_set_read_tier(memoryOptions, Self.memoryTier)
        writeOptions = rocksdb_writeoptions_create()
        rocksdb_writeoptions_disable_WAL(writeOptions, 1)
        users.enter()
    }

    deinit {
        rocksdb_close(database)
        rocksdb_writeoptions_destroy(writeOptions)
        rocksdb_readoptions_destroy(readOptions)
        rocksdb_readoptions_destroy(iterationOptions)
        rocksdb_readoptions_destroy(memoryOptions)
        rocksdb_options_destroy(options)
        users.leave()
    }

    /// Of a database that was closed nothing is to be had.
    var hotRecords: HotRecords.Moment? { isRetired.load(ordering: .relaxed) ? nil : hot.now }

    func check() throws(StoreError) { if isRetired.load(ordering: .relaxed) { throw Self.retired } }

    func get(_ key: [UInt8], _ options: OpaquePointer) throws(StoreError) -> [UInt8]? {
        try check()
        var failure: UnsafeMutablePointer<CChar>?
        var value: OpaquePointer?
        key.withUnsafeBytes { value = rocksdb_get_pinned(database, options, $0.characters, $0.count, &failure) }
        try IndexDatabase.check(failure, "cannot read the index")
        guard let value else { return nil }
        defer { rocksdb_pinnableslice_destroy(value) }
        var count = 0
        guard let bytes = rocksdb_pinnableslice_value(value, &count) else { return [] }
        return Array(UnsafeRawBufferPointer(start: bytes, count: count))
    }
}

/// Reading an index: what a view and an overlay both can.
protocol IndexReading: AnyObject {
    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]?
    /// Where records that are kept decoded may be had, and left, instead.
    var hotRecords: HotRecords.Moment? { get }
    /// A cursor of its own; it must not outlive the reader.
    func makeCursor() -> IndexCursor
    /// One that ends where the keys that begin with `prefix` do, either way. Others go on behind them to the next key that there is, past all that was
    /// deleted and is not compacted yet: hundreds of thousands of keys, where a table's rows come and go.
    func makeCursor(within prefix: [UInt8]) -> IndexCursor
}

/// The options of one iterator, which outlive it.
private final class IteratorOptions {
    let options: OpaquePointer = rocksdb_readoptions_create()
    /// The key at which it begins, and that at which it ends: RocksDB takes no copy.
    private var bounds: [UnsafeMutableBufferPointer<CChar>] = []
    private let owner: AnyObject?

    init(snapshot: OpaquePointer? = nil, inMemory: Bool = false, owner: AnyObject? = nil) {
        self.owner = owner
        rocksdb_readoptions_set_verify_checksums(options, 1)
        if let snapshot { rocksdb_readoptions_set_snapshot(options, snapshot) }
        if inMemory { rocksdb_readoptions_set_read_tier(options, IndexHandle.memoryTier) }
    }

    deinit {
        rocksdb_readoptions_destroy(options)
        for bound in bounds { bound.deallocate() }
    }

    /// It begins and ends where the keys that begin with `prefix` do. Once.
    func keep(within prefix: [UInt8]) -> IteratorOptions {
        var end = prefix
        while end.last == .max { end.removeLast() }
        precondition(!end.isEmpty && bounds.isEmpty, "a prefix that has no end, or a second one")
        end[end.count - 1] += 1
        bounds = [prefix, end].map { key in
            let bound = UnsafeMutableBufferPointer<CChar>.allocate(capacity: key.count)
            _ = bound.initialize(from: key.lazy.map { CChar(bitPattern: $0) })
            return bound
        }
        rocksdb_readoptions_set_iterate_lower_bound(options, bounds[0].baseAddress, bounds[0].count)
        rocksdb_readoptions_set_iterate_upper_bound(options, bounds[1].baseAddress, bounds[1].count)
        return self
    }

    /// What it reads drives nothing out of the cache.
    func sparingCache() -> IteratorOptions {
        rocksdb_readoptions_set_fill_cache(options, 0)
        return self
    }
}

/// The index as it is whenever it is asked, so far as it is in memory: what would have to be read from the disk is refused,
/// `.notInMemory`. Cheaper than a view, and for one look-up as good.
final class IndexPeek: IndexReading {
    private let database: IndexDatabase

    init(_ database: IndexDatabase) { self.database = database }

    var hotRecords: HotRecords.Moment? { database.handle?.hotRecords }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? {
        guard let handle = database.handle else { throw IndexHandle.retired }
        return try handle.get(key, handle.memoryOptions)
    }
    func makeCursor() -> IndexCursor {
        let handle = database.handle
        let iterator = handle.map { rocksdb_create_iterator($0.database, $0.memoryOptions)! }
        return IndexCursor(iterator, handle, owner: nil)
    }
    func makeCursor(within prefix: [UInt8]) -> IndexCursor {
        let handle = database.handle
        let options = IteratorOptions(inMemory: true).keep(within: prefix)
        return IndexCursor(handle.map { rocksdb_create_iterator($0.database, options.options) }, handle, owner: options)
    }
}

/// The index as it was at one moment.
// Safety: reads of a RocksDB snapshot may come from any thread.
final class IndexView: IndexReading, @unchecked Sendable {
    private let handle: IndexHandle?
    private let moment: HotRecords.Moment?
    private let snapshot: OpaquePointer?
    private let options: OpaquePointer
    private let isInMemory: Bool

    fileprivate init(_ handle: IndexHandle?, inMemory: Bool) {
        self.handle = handle
        isInMemory = inMemory
        // The moment first: what is changed after it is then known to be.
        moment = handle?.hotRecords
        snapshot = handle.map { rocksdb_create_snapshot($0.database) }
        options = rocksdb_readoptions_create()
        rocksdb_readoptions_set_verify_checksums(options, 1)
        rocksdb_readoptions_set_snapshot(options, snapshot)
        if inMemory { rocksdb_readoptions_set_read_tier(options, IndexHandle.memoryTier) }
    }

    deinit {
        rocksdb_readoptions_destroy(options)
        if let handle { rocksdb_release_snapshot(handle.database, snapshot) }
    }

    var hotRecords: HotRecords.Moment? { handle?.isRetired.load(ordering: .relaxed) == false ? moment : nil }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? {
        guard let handle else { throw IndexHandle.retired }
        return try handle.get(key, options)
    }
    func makeCursor() -> IndexCursor {
        IndexCursor(handle.map { rocksdb_create_iterator($0.database, options) }, handle, owner: self)
    }

    func makeCursor(within prefix: [UInt8]) -> IndexCursor {
        let options = IteratorOptions(snapshot: snapshot, inMemory: isInMemory, owner: self).keep(within: prefix)
        return IndexCursor(handle.map { rocksdb_create_iterator($0.database, options.options) }, handle, owner: options)
    }

    /// For a walk that seeks in rising order, mostly to keys nearby.
    func makeWalkCursor() -> IndexCursor {
        IndexCursor(handle.map { rocksdb_create_iterator($0.database, options) }, handle, owner: self, walks: true)
    }

    /// For a walk through all there is: what it reads drives nothing out of the cache.
    func makeScanCursor() -> IndexCursor {
        let options = IteratorOptions(snapshot: snapshot, owner: self).sparingCache()
        return IndexCursor(handle.map { rocksdb_create_iterator($0.database, options.options) }, handle, owner: options)
    }
}

/// The mutations of one group over the applied index: reads see both. It keeps them in our own encoding too, for the commit
/// record, so that the log does not depend on RocksDB's format.
// Safety: held by the shard's queue while it is built, then by its I/O queue.
final class IndexOverlay: IndexReading, @unchecked Sendable {
    fileprivate let batch: OpaquePointer
    private let handle: IndexHandle?
    /// op (0 delete, 1 put), key length u16, key, and of a put: value length u32, value; see FORMAT.md.
    private(set) var encoded: [UInt8] = []
    /// Those of its keys whose records may be kept decoded; what was rolled back may be among them.
    private(set) var hotKeys: [[UInt8]] = []
    private var savedCount = 0

    init(_ database: IndexDatabase) {
        handle = database.handle
        batch = rocksdb_writebatch_wi_create(0, 1)
    }

    deinit { rocksdb_writebatch_wi_destroy(batch) }

    var isEmpty: Bool { encoded.isEmpty }

    /// What it changes itself goes before.
    var hotRecords: HotRecords.Moment? { hotKeys.isEmpty ? handle?.hotRecords : nil }

    func get(_ key: [UInt8]) throws(StoreError) -> [UInt8]? {
        guard let handle else { throw IndexHandle.retired }
        try handle.check()
        var failure: UnsafeMutablePointer<CChar>?
        var count = 0
        let value = key.withUnsafeBytes {
            rocksdb_writebatch_wi_get_from_batch_and_db(
                batch,
                handle.database,
                handle.readOptions,
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
        if HotRecords.keeps(key) { hotKeys.append(key) }
        encoded.append(1)
        append(length: UInt16(key.count), key)
        append(length: UInt32(value.count), value)
    }

    func delete(_ key: [UInt8]) {
        key.withUnsafeBytes { rocksdb_writebatch_wi_delete(batch, $0.characters, $0.count) }
        if HotRecords.keeps(key) { hotKeys.append(key) }
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
        let iterator = handle.map { handle in
            let base = rocksdb_create_iterator(handle.database, handle.iterationOptions)
            return rocksdb_writebatch_wi_create_iterator_with_base(batch, base)!
        }
        return IndexCursor(iterator, handle, owner: self)
    }

    func makeCursor(within prefix: [UInt8]) -> IndexCursor {
        // What is in the batch alone is little.
        let options = IteratorOptions(owner: self).keep(within: prefix)
        let iterator = handle.map { handle in
            let base = rocksdb_create_iterator(handle.database, options.options)
            return rocksdb_writebatch_wi_create_iterator_with_base(batch, base)!
        }
        return IndexCursor(iterator, handle, owner: options)
    }
}

extension UnsafeRawBufferPointer {
    var characters: UnsafePointer<CChar>? { baseAddress?.assumingMemoryBound(to: CChar.self) }
}
