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

    /// What a shard's log may take.
    var logOptions: LogOptions {
        var logOptions = LogOptions()
        // The largest payload, each of its pieces a record of its own.
        logOptions.groupBytes = Limits.payloadBytes + Limits.recordsPerCall * 128
        logOptions.leave = freeBytes
        logOptions.capacity = options.capacityBytes.map { $0 / UInt64(header.shardCount) }
        return logOptions
    }

    /// How a shard's index is opened to be changed.
    func indexOptions(_ index: ShardIndex) -> IndexDatabase.Options {
        var settings = IndexDatabase.Options()
        settings.cacheBytes = options.indexCacheBytes
        settings.flushBytes = options.indexFlushBytes
        settings.step = options.indexStep
        settings.room = IndexRoom(
            folder: Self.folder(of: index, in: folder),
            leave: freeBytes,
            shards: Int(header.shardCount)
        )
        let logger = options.logger
        settings.log = { text in logger.error("the index failed", metadata: ["shard": "\(index)", "reason": "\(text)"])
        }
        return settings
    }

    /// Index, then the log from where the index stands, then a new epoch (DESIGN §5). Killed anywhere, it can be run again.
    /// - Parameter fenced: called once where the shard fences itself.
    /// - Throws: `.damaged` naming the shard and `cairnd repair`; `.io`, `.full`.
    func open(_ index: ShardIndex, fenced: @escaping @Sendable () -> Void) throws(StoreError) -> Shard {
        do throws(StoreError) { return try openWhole(index, fenced: fenced) } catch {
            // RocksDB calls it an I/O error where one of its files is missing.
            let isMissing = error.code == .io && error.text.contains("No such file or directory")
            guard error.code == .damaged || isMissing else { throw error }
            throw StoreError(
                .damaged,
                "shard \(index) cannot be opened: \(error.text); see what `cairnd repair --data \(folder) --shard \(index) --dry-run` says"
            )
        }
    }

    private func openWhole(_ index: ShardIndex, fenced: @escaping @Sendable () -> Void) throws(StoreError) -> Shard {
        let path = Self.folder(of: index, in: folder)
        let storage = options.storage(index, try Self.openStorage(path))
        let identity = LogIdentity(store: header.id, shard: index)
        // An index that was there and is not must not come back empty.
        let isNew = try logCall { () throws(LogError) in try LogRecovery.isNew(storage, identity: identity) }
        let database = try IndexDatabase(path: path + "/index", indexOptions(index), isNew ? .create : .existing)
        // From the first epoch on the index must be there: its name has to be as durable as the superblock.
        if isNew { try Files.sync(path) }
        let from = try database.position()
        let recovery = try logCall { () throws(LogError) in
            try LogRecovery(storage, identity: identity, options: logOptions, from: from)
        }
        var applied = (position: from, logBytes: try database.logBytes())
        var replay = IndexReplay(database, applied.logBytes, flushBytes: options.indexFlushBytes)
        while let group = try logCall({ () throws(LogError) in try recovery.next() }) {
            try replay.apply(group.commit, at: group.position, bytes: group.bytes)
            applied = (group.position, replay.logBytes)
        }
        try replay.finish()
        let checkpoints = try CheckpointFolder(shard: path, identity: identity)
        let log = try begin(recovery, applied.position, database, checkpoints, storage, identity)
        options.logger.info(
            "shard recovered",
            metadata: [
                "shard": "\(index)", "groups": "\(replay.groups)", "bytes": "\(replay.bytes)", "epoch": "\(log.epoch)",
            ]
        )
        return Shard(
            index: index,
            storeID: header.id,
            log: log,
            database: database,
            applied: applied,
            checkpoints: CheckpointMaker(checkpoints, of: database, in: path + "/index", options),
            options: options,
            fenced: fenced
        )
    }

    /// Begins the epoch. Where there is no space for that, copies of the index are given up, for what they hold back of the log.
    private func begin(
        _ recovery: LogRecovery,
        _ end: LogPosition?,
        _ database: IndexDatabase,
        _ checkpoints: CheckpointFolder,
        _ storage: any SegmentStorage,
        _ identity: LogIdentity
    ) throws(StoreError) -> SegmentLog {
        let live = try Self.liveSegments(database)
        try checkpoints.tidy()
        if checkpoints.retention == .all, end != nil {
            let survey = try logCall { () throws(LogError) in try LogSurvey(storage, identity: identity) }
            // A log that does not go back to its beginning gives no index: it need not be kept for that.
            if !survey.reachesBeginning { try checkpoints.setGivenUp(true) }
        }
        while true {
            let retention = checkpoints.retention
            do throws(LogError) {
                return try recovery.begin(durable: end, live: live, retention: retention)
            } catch {
                guard error == .full, retention != .none else { throw StoreError(error) }
            }
            try checkpoints.giveUpOldest()
            options.logger.warning(
                "a copy of the index is given up: there is no space to begin the log anew",
                metadata: ["shard": "\(identity.shard)", "left": "\(checkpoints.checkpoints.count)"]
            )
        }
    }

    /// What is left to the indexes: a flush writes some 30 MiB, a compaction up to 256 MiB before it deletes what it read.
    private var freeBytes: UInt64 {
        if let bytes = options.freeBytes { return bytes }
        return min(1 << 30, (LocalSegmentStorage.space(folder)?.total ?? 0) / 16)
    }

    /// Drops what the page cache holds of the shard: after a failed sync the kernel calls pages clean that never reached the disk.
    func dropCaches(_ index: ShardIndex) { LocalSegmentStorage.dropCaches(Self.folder(of: index, in: folder)) }

    static func liveSegments(_ database: IndexDatabase) throws(StoreError) -> Set<SegmentID> {
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
