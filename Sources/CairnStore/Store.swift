public import CairnCore
import CairnLog
import Foundation
import Logging

#if canImport(Glibc)
    import Glibc
#endif

/// A folder of shards, open in one process at a time.
///
///     FOLDER/cairn.store            format version, the store's ID, shards, segment size (StoreHeader)
///     FOLDER/lock                   held while it is open
///     FOLDER/shard-000/superblock   ┐ the log: CairnLog/FORMAT.md
///     FOLDER/shard-000/segments/    ┘
///     FOLDER/shard-000/index/       RocksDB: CairnStore/FORMAT.md
public final class Store: Sendable {
    /// Names this installation.
    public let id: UUID128
    public let shards: [Shard]
    private let lock: FolderLock

    public var shardCount: Int { shards.count }
    /// Traps where there is no such shard.
    public func shard(_ index: ShardIndex) -> Shard { shards[Int(index.rawValue)] }

    private init(id: UUID128, shards: [Shard], lock: FolderLock) {
        self.id = id
        self.shards = shards
        self.lock = lock
    }

    /// Makes an empty store. The folder may be there if it is empty.
    /// - Throws: `.exists`, `.io`, `.full`.
    public static func create(at folder: String, _ creation: StoreCreation = StoreCreation()) throws(StoreError) {
        precondition((1...256).contains(creation.shardCount))
        do {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            guard try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty else {
                throw StoreError(.exists, "\(folder) is not empty")
            }
        } catch let error as StoreError { throw error } catch {
            throw StoreError(.io, "cannot make \(folder): \(error)")
        }
        chmod(folder, 0o700)
        let header = StoreHeader(
            id: .random(shard: ShardIndex(0)),
            shardCount: UInt16(creation.shardCount),
            segmentBytes: creation.segmentBytes
        )
        for index in 0..<creation.shardCount {
            let shard = ShardIndex(UInt16(index))
            let storage = try openStorage(shardFolder(folder, shard))
            try logCall { () throws(LogError) in
                try LogRecovery.format(
                    storage,
                    identity: LogIdentity(store: header.id, shard: shard),
                    segmentSize: Int(header.segmentBytes)
                )
            }
        }
        // Last: a store whose making was interrupted is none.
        try header.write(to: folder)
    }

    /// Locks the store, and recovers every shard.
    /// - Throws: `.notAStore`, `.locked`, `.newerFormat`, `.damaged`, `.io`, `.full`.
    public static func open(at folder: String, _ options: StoreOptions = StoreOptions()) throws(StoreError) -> Store {
        let header = try StoreHeader.read(from: folder)
        // The log keeps segments back for recovery and for freeing space: less would be full from the start.
        let least = UInt64(header.shardCount) * leastSegments * header.segmentBytes
        if let capacity = options.capacityBytes, capacity < least {
            throw StoreError(
                .invalid,
                "a capacity of \(ByteCount.text(capacity)) is too little for \(header.shardCount) shards: at least \(ByteCount.text(least))"
            )
        }
        let lock = try FolderLock(folder)
        var shards: [Shard] = []
        do throws(StoreError) {
            for index in 0..<header.shardCount {
                shards.append(try openShard(ShardIndex(index), of: header, in: folder, options))
            }
        } catch {
            for shard in shards { shard.close() }
            throw error
        }
        do throws(StoreError) {
            for shard in shards { try shard.undoCreations() }
            try undoIntents(shards)
        } catch {
            for shard in shards { shard.close() }
            throw error
        }
        for shard in shards { shard.background.start() }
        return Store(id: header.id, shards: shards, lock: lock)
    }

    /// Ends calls that wait, makes everything durable, and lets go of the folder.
    public func close() {
        for shard in shards { shard.close() }
        lock.release()
    }

    /// Segments that a shard needs to work with a capacity: its reserve, the open one and the next, and some for data.
    private static let leastSegments: UInt64 = 8

    private static func shardFolder(_ folder: String, _ index: ShardIndex) -> String {
        let number = String(index.rawValue)
        return "\(folder)/shard-\(String(repeating: "0", count: 3 - number.count))\(number)"
    }

    private static func openStorage(_ path: String) throws(StoreError) -> LocalSegmentStorage {
        do throws(StorageError) { return try LocalSegmentStorage(path: path) } catch {
            throw StoreError(.io, "\(path): \(error)")
        }
    }

    /// Index, then the log from where the index stands, then a new epoch (DESIGN §5). Killed anywhere, it can be run again.
    private static func openShard(
        _ index: ShardIndex,
        of header: StoreHeader,
        in folder: String,
        _ options: StoreOptions
    ) throws(StoreError) -> Shard {
        let path = shardFolder(folder, index)
        let storage = try openStorage(path)
        var settings = IndexDatabase.Options()
        settings.cacheBytes = options.indexCacheBytes
        settings.flushBytes = options.indexFlushBytes
        let database = try IndexDatabase(path: path + "/index", settings)
        var position = try database.get(Key.position).map { bytes throws(StoreError) in try LogPosition.decode(bytes) }
        var logOptions = LogOptions()
        // The largest payload, each of its pieces a record of its own.
        logOptions.groupBytes = Limits.payloadBytes + Limits.recordsPerCall * 128
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
        let live = try liveSegments(database)
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
            options: options
        )
    }

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

/// Holds `FOLDER/lock` by flock: gone with the process, however it ends.
final class FolderLock: Sendable {
    private let descriptor: Int32

    init(_ folder: String) throws(StoreError) {
        descriptor = Glibc.open(folder + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw StoreError(.io, "cannot open \(folder)/lock: errno \(errno)") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            Glibc.close(descriptor)
            throw StoreError(.locked, "the store \(folder) is open in another server")
        }
    }

    func release() { flock(descriptor, LOCK_UN) }
    deinit { Glibc.close(descriptor) }
}
