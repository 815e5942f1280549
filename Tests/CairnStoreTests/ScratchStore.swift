import CairnCore
import CairnCrypto
import CairnTesting
import Dispatch
import Foundation
import Synchronization

@testable import CairnStore

/// A store in a folder of its own, driven from one thread; gone when the test ends.
final class ScratchStore {
    let folder: String
    private(set) var store: Store!
    private var configure: (inout StoreOptions) -> Void
    static let account = AccountID("tester")!

    var shard: Shard { store.shards[0] }

    init(
        shards: Int = 1,
        segmentBytes: UInt64 = 4 << 20,
        _ configure: @escaping (inout StoreOptions) -> Void = { _ in }
    ) throws {
        folder = NSTemporaryDirectory() + "cairn-scratch-" + UUID().uuidString
        var creation = StoreCreation()
        creation.shardCount = shards
        creation.segmentBytes = segmentBytes
        try Store.create(at: folder, creation)
        self.configure = configure
        store = try Store.open(at: folder, Self.options(configure))
    }

    private static func options(_ configure: (inout StoreOptions) -> Void) -> StoreOptions {
        var options = StoreOptions()
        options.leaseTime = .milliseconds(1)
        // What holds nothing is given back at once.
        options.indexBackupBytes = 1 << 20
        configure(&options)
        return options
    }

    /// Closed in order, and opened again.
    /// - Parameter configure: nil: as it was.
    func reopen(_ configure: ((inout StoreOptions) -> Void)? = nil) throws {
        if let configure { self.configure = configure }
        closeStore()
        try openStore(at: folder)
    }

    func closeStore() {
        store?.close()
        store = nil
    }

    /// A copy of the folder may be opened instead; the folder itself is what is removed at the end.
    func openStore(at folder: String) throws {
        store = try Torture.reopening { try Store.open(at: folder, Self.options(configure)) }
    }

    deinit {
        store?.close()
        remove(folder: folder)
    }

    /// What went wrong is thrown; so is an answer that does not come in time.
    func change<Value: Sendable>(
        durability: CommitDurability = .durable,
        records: Int = 0,
        bytes: Int = 0,
        entries: Int = 8,
        reclaims: Bool = false,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value
    ) throws -> Value {
        let answer = Mutex<Result<Value, StoreError>?>(nil)
        let done = DispatchSemaphore(value: 0)
        shard.submit(
            durability: durability,
            records: records,
            bytes: bytes,
            entries: entries,
            reclaims: reclaims,
            body
        ) { result in
            answer.withLock { $0 = result }
            done.signal()
        }
        guard done.wait(timeout: .now() + 30) == .success else { throw NoAnswer() }
        return try answer.withLock { $0! }.get()
    }

    struct NoAnswer: Error {}

    /// Does what makes work while the background is busy, then `body` on the background's queue, which goes on after it.
    func beforeTheBackground<Value: Sendable>(
        _ make: () throws -> Void,
        _ body: @escaping @Sendable (Background) throws(StoreError) -> Value
    ) throws -> Value {
        let background = shard.background!
        let isThere = DispatchSemaphore(value: 0)
        let isMade = DispatchSemaphore(value: 0)
        let done = DispatchSemaphore(value: 0)
        let result = Mutex<Result<Value, StoreError>?>(nil)
        background.queue.async {
            isThere.signal()
            _ = isMade.wait(timeout: .now() + 60)
            let value = Result { () throws(StoreError) in try body(background) }
            result.withLock { $0 = value }
            done.signal()
        }
        guard isThere.wait(timeout: .now() + 60) == .success else { throw NoAnswer() }
        do { try make() } catch {
            isMade.signal()
            throw error
        }
        isMade.signal()
        guard done.wait(timeout: .now() + 60) == .success else { throw NoAnswer() }
        return try result.withLock { $0! }.get()
    }

    func volume(
        _ size: UInt64 = 16 << 20,
        chunk: Int = 64 << 10,
        from source: SnapshotRecord? = nil,
        for account: AccountID = ScratchStore.account
    ) throws -> VolumeRecord {
        try change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: account,
                kind: .remote,
                size: size,
                chunkSize: ChunkSize(bytes: chunk)!,
                source: source,
                affinity: [],
                tags: [:]
            )
        }
    }

    /// Waits until `condition` holds; false when it does not within the limit.
    func eventually(_ seconds: Double = 15, _ condition: () throws -> Bool) rethrows -> Bool {
        let end = Date() + seconds
        while Date() < end {
            if try condition() { return true }
            usleep(20_000)
        }
        return try condition()
    }

    /// Whether the table holds no key.
    func isEmpty(_ table: Table) throws -> Bool {
        let cursor = shard.makeView().index.makeCursor()
        cursor.seek(Key(table).bytes)
        return try !cursor.isValid() || cursor.key.first != table.rawValue
    }

    /// Spoils the bytes of a record on the disk, while the store is open.
    func spoil(_ patch: Patch) throws {
        guard let location = patch.location else { throw StoreError(.invalid, "zeros have no record") }
        let number = String(location.segment.rawValue)
        let name = String(repeating: "0", count: 8 - number.count) + number + ".seg"
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: "\(folder)/shard-000/segments/\(name)"))
        try file.seek(toOffset: UInt64(location.offset) + 80)
        try file.write(contentsOf: Data(repeating: 0xa5, count: 16))
        try file.synchronize()
        try file.close()
    }
}

/// Bytes that do not compress, the same for the same seed.
func noise(_ count: Int, _ seed: UInt64) -> BufferSlice {
    let buffer = BufferPool.shared.buffer(capacity: count)
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    for word in 0..<count / 8 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        buffer.memory.storeBytes(of: state, toByteOffset: word * 8, as: UInt64.self)
    }
    buffer.count = count
    return buffer.slice
}

func chunkData(_ bytes: BufferSlice) -> ChunkData {
    withExtendedLifetime(bytes) {
        ChunkData(
            fingerprint: SHA256.hash(bytes.bytes),
            rawLength: UInt32(bytes.count),
            rawChecksum: CRC32C.extend(0, bytes.bytes),
            codec: .raw,
            bytes: bytes
        )
    }
}

/// RocksDB is let go of a moment after its store, and may still write a file: tried again until the folder is gone.
func remove(folder: String) {
    for _ in 0..<100 {
        try? FileManager.default.removeItem(atPath: folder)
        if !FileManager.default.fileExists(atPath: folder) { return }
        usleep(10_000)
    }
}

extension Transaction {
    /// A part, as a call writes it: one of zeros, at every other sector, by its mark and without bytes.
    func writePart(at offset: UInt64, _ bytes: BufferSlice, of target: WriteTarget) throws(StoreError) {
        if bytes.bytes.isAllZero, offset % 1024 == 0 {
            try writeZeros(offset..<offset + UInt64(bytes.count), of: target)
        } else {
            try writePatch(at: offset, bytes, of: target)
        }
    }
}
