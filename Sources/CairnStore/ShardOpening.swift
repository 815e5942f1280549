import CairnCore
import CairnLog
import Logging

/// Opens shards of one store: at its start, and each one again after it has failed.
struct ShardOpening: Sendable {
    let header: StoreHeader
    /// The store's.
    let folder: String
    let options: StoreOptions

    static func folder(of index: ShardIndex, in folder: String) -> String {
        let number = String(index.rawValue)
        return "\(folder)/shard-\(String(repeating: "0", count: 3 - number.count))\(number)"
    }

    static func openStorage(_ path: String) throws(StoreError) -> LocalSegmentStorage {
        do throws(StorageError) { return try LocalSegmentStorage(path: path) } catch {
            throw StoreError(.io, "\(path): \(error)")
        }
    }

    /// Index, then the log from where the index stands, then a new epoch (DESIGN §5). Killed anywhere, it can be run again.
    /// - Parameter fenced: called once where the shard fences itself.
    func open(_ index: ShardIndex, fenced: @escaping @Sendable () -> Void) throws(StoreError) -> Shard {
        let path = Self.folder(of: index, in: folder)
        let storage = options.storage(index, try Self.openStorage(path))
        var settings = IndexDatabase.Options()
        settings.cacheBytes = options.indexCacheBytes
        settings.flushBytes = options.indexFlushBytes
        settings.step = options.indexStep
        let database = try IndexDatabase(path: path + "/index", settings)
        var position = try database.get(Key.position).map { bytes throws(StoreError) in try LogPosition.decode(bytes) }
        var logOptions = LogOptions()
        // The largest payload, each of its pieces a record of its own.
        logOptions.groupBytes = Limits.payloadBytes + Limits.recordsPerCall * 128
        logOptions.leave = freeBytes
        logOptions.capacity = options.capacityBytes.map { $0 / UInt64(header.shardCount) }
        let from = position
        let recovery = try logCall { () throws(LogError) in
            try LogRecovery(
                storage,
                identity: LogIdentity(store: header.id, shard: index),
                options: logOptions,
                from: from
            )
        }
        var groups = 0
        while let group = try logCall({ () throws(LogError) in try recovery.next() }) {
            let overlay = IndexOverlay(database)
            guard overlay.replay(group.commit.bytes) else {
                throw StoreError(.damaged, "the commit at \(group.position) does not decode")
            }
            overlay.put(Key.position, group.position.encoded)
            try database.apply(overlay)
            position = group.position
            groups += 1
            // The write buffer must not fill by itself, though here nothing could run ahead of the log.
            if groups.isMultiple(of: 256) { try database.flush() }
        }
        if groups > 0 { try database.flush() }
        let live = try Self.liveSegments(database)
        let end = position
        let log = try logCall { () throws(LogError) in try recovery.begin(durable: end, live: live) }
        options.logger.info(
            "shard recovered",
            metadata: ["shard": "\(index)", "groups": "\(groups)", "epoch": "\(log.epoch)"]
        )
        return Shard(
            index: index,
            storeID: header.id,
            log: log,
            database: database,
            applied: position,
            options: options,
            fenced: fenced
        )
    }

    /// What is left to the indexes: a flush writes some 30 MiB, a compaction up to 256 MiB before it deletes what it read.
    private var freeBytes: UInt64 {
        if let bytes = options.freeBytes { return bytes }
        return min(1 << 30, (LocalSegmentStorage.space(folder)?.total ?? 0) / 16)
    }

    /// Drops what the page cache holds of the shard: after a failed sync the kernel calls pages clean that never reached the disk.
    func dropCaches(_ index: ShardIndex) { LocalSegmentStorage.dropCaches(Self.folder(of: index, in: folder)) }

    private static func liveSegments(_ database: IndexDatabase) throws(StoreError) -> Set<SegmentID> {
        var live: Set<SegmentID> = []
        let cursor = database.makeView().makeCursor()
        cursor.seek(Key(.segments).bytes)
        while try cursor.isValid(), var key = KeyReader(cursor.key, .segments), let segment = key.take(UInt32.self) {
            live.insert(SegmentID(segment))
            cursor.next()
        }
        return live
    }
}
