public import CairnCore
import CairnLog
import Foundation
import Logging
import Synchronization

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
///     FOLDER/shard-000/index.reserve  room for it on a full disk
public final class Store: Sendable {
    /// Names this installation.
    public let id: UUID128
    private let slots: [ShardSlot]
    private let places: [ShardPlace]
    private let lock: FolderLock
    private let execution: any ShardExecution
    let recovery: StoreRecovery
    /// Whether merging may make an account's data larger.
    public let growth: GrowthRule

    /// The present ones: to be asked for anew by each call, for a shard that fails is replaced by another object.
    public var shards: [Shard] { places.map(\.shard) }
    public var shardCount: Int { slots.count }
    /// The present one. Traps where there is no such shard.
    public func shard(_ index: ShardIndex) -> Shard { places[Int(index.rawValue)].shard }

    /// By what is written down in it: leases end, for one, by this clock. Milliseconds since 1970.
    public var milliseconds: UInt64 { execution.milliseconds }
    /// For something new that belongs with nothing that is there: any shard, each as likely as the others.
    public func pickShard() -> Shard { places[execution.pick(places.count)].shard }

    /// How often a shard was opened anew after a failure since the store was opened, and how often that failed.
    public func recoveries(of index: ShardIndex) -> (done: Int, failed: Int) {
        let counts = slots[Int(index.rawValue)].counts
        return (counts.recoveries, counts.failures)
    }

    private init(id: UUID128, slots: [ShardSlot], lock: FolderLock, options: StoreOptions) {
        growth = options.growth
        execution = options.execution
        self.id = id
        self.slots = slots
        places = slots.map(\.place)
        recovery = StoreRecovery(places)
        self.lock = lock
        for slot in slots { slot.start { [weak recovery] shard in recovery?.recovered(shard) } }
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
            let storage = try ShardOpening.openStorage(ShardOpening.folder(of: shard, in: folder))
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
        var options = options
        options.growth = GrowthRule()
        let opening = ShardOpening(header: header, folder: folder, options: options)
        var slots: [ShardSlot] = []
        do throws(StoreError) {
            for index in 0..<header.shardCount { slots.append(try ShardSlot(ShardIndex(index), opening)) }
            for slot in slots { try slot.shard.undoCreations() }
            try undoIntents(slots.map(\.shard))
        } catch {
            for slot in slots { slot.close() }
            throw error
        }
        return Store(id: header.id, slots: slots, lock: lock, options: options)
    }

    /// Ends calls that wait, makes everything durable, and lets go of the folder.
    public func close() {
        for slot in slots { slot.close() }
        lock.release()
    }

    /// Ends as with a process that is killed. For tests, which can then open what such a one leaves.
    func kill() {
        for slot in slots { slot.close(killing: true) }
        lock.release()
    }

    /// Segments that a shard needs to work with a capacity: its reserve, the open one and the next, and some for data.
    private static let leastSegments: UInt64 = 8
}

/// Holds `FOLDER/lock` by flock: gone with the process, however it ends.
final class FolderLock: Sendable {
    private let descriptor: Int32

    init(_ folder: String) throws(StoreError) {
        descriptor = uninterrupted { Glibc.open(folder + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600) }
        guard descriptor >= 0 else { throw StoreError(.io, "cannot open \(folder)/lock: errno \(errno)") }
        guard uninterrupted({ flock(descriptor, LOCK_EX | LOCK_NB) }) == 0 else {
            let isHeld = errno == EWOULDBLOCK
            let reason = String(cString: strerror(errno))
            Glibc.close(descriptor)
            guard isHeld else { throw StoreError(.io, "cannot lock \(folder)/lock: \(reason)") }
            throw StoreError(.locked, "the store \(folder) is open in another server")
        }
    }

    func release() { flock(descriptor, LOCK_UN) }
    deinit { Glibc.close(descriptor) }
}
