import CairnCore
import CairnCrypto
import CairnTesting
import Dispatch
import Foundation
import Logging
import Synchronization

@testable import CairnStore

/// What a volume or snapshot must hold: a stamp for each sector, 0 for zeros. A sector's bytes follow from its stamp.
struct ModelContent {
    var sectors: [UInt32]
    let chunkSize: ChunkSize

    var size: UInt64 { UInt64(sectors.count) * 512 }
    var chunkCount: Int { Int(chunkSize.count(for: size)) }
    private var sectorsPerChunk: Int { chunkSize.bytes / 512 }
    func sectors(of chunk: Int) -> Range<Int> {
        chunk * sectorsPerChunk..<min((chunk + 1) * sectorsPerChunk, sectors.count)
    }

    static func write(_ stamp: UInt32, to target: UnsafeMutableRawBufferPointer) {
        var random = SeededRandom(seed: UInt64(stamp))
        for word in 0..<64 {
            // Half of it compresses.
            let value: UInt64 = stamp == 0 ? 0 : stamp & 1 == 0 || word & 1 == 0 ? random.next() : UInt64(stamp)
            target.storeBytes(of: value, toByteOffset: word * 8, as: UInt64.self)
        }
    }

    func bytes(_ range: Range<Int>) -> BufferSlice {
        let buffer = BufferPool.shared.buffer(capacity: max(range.count, 1) * 512)
        for (place, sector) in range.enumerated() {
            Self.write(
                sectors[sector],
                to: UnsafeMutableRawBufferPointer(rebasing: buffer.memory[place * 512..<place * 512 + 512])
            )
        }
        buffer.count = range.count * 512
        return buffer.slice
    }

    func fingerprint(of chunk: Int) -> Fingerprint {
        let slice = bytes(sectors(of: chunk))
        return withExtendedLifetime(slice) { SHA256.hash(slice.bytes, padding: chunkSize.bytes - slice.count) }
    }

    func isZero(_ chunk: Int) -> Bool { sectors[sectors(of: chunk)].allSatisfy { $0 == 0 } }

    /// As a service would prepare it: compressed where that saves something.
    func data(of chunk: Int) -> ChunkData {
        let slice = bytes(sectors(of: chunk))
        let packed = BufferPool.shared.buffer(capacity: slice.count)
        let window = UnsafeMutableRawBufferPointer(rebasing: packed.memory[0..<slice.count - slice.count / 16])
        let count = LZ4.compress(slice.bytes, into: window)
        packed.count = count ?? 0
        return withExtendedLifetime(slice) {
            ChunkData(
                fingerprint: fingerprint(of: chunk),
                rawLength: UInt32(slice.count),
                rawChecksum: CRC32C.extend(0, slice.bytes),
                codec: count == nil ? .raw : .lz4,
                bytes: count == nil ? slice : packed.slice
            )
        }
    }

    var seal: Fingerprint {
        var seal = SealBuilder(size: size, chunkSize: chunkSize)
        for chunk in 0..<chunkCount { seal.add(fingerprint(of: chunk)) }
        return seal.finish()
    }
}

/// The store under test, and calls that wait.
final class ModelStore {
    let folder: String
    private(set) var store: Store?
    private let options: StoreOptions
    private var crashes = 0
    private(set) var verifiers: Set<UInt64> = []

    var shard: Shard { store!.shards[0] }

    init(segmentBytes: UInt64, options: StoreOptions) throws {
        folder = Torture.scratchFolder("cairn-model")
        var quiet = options
        quiet.logger.logLevel = .error
        self.options = quiet
        var creation = StoreCreation()
        creation.shardCount = 1
        creation.segmentBytes = segmentBytes
        try Store.create(at: folder, creation)
        try open()
    }

    deinit {
        store?.close()
        store = nil
        remove(folder: folder)
    }

    private func open() throws {
        store = try Torture.reopening { try Store.open(at: folder, options) }
        let isNew = verifiers.insert(shard.verifier).inserted
        precondition(isNew, "the write verifier did not change with a recovery")
    }

    private(set) var repairs = 0

    func reopen() throws {
        store?.close()
        store = nil
        try open()
    }

    /// Goes on with what a process that was killed leaves.
    /// - Parameter losing: whether the index is lost with it, and made anew; every third time the newest copy of it is lost as well.
    func crash(losing: Bool = false) throws {
        crashes += 1
        store?.kill()
        store = nil
        if losing { try loseIndex() }
        try open()
    }

    private func loseIndex() throws {
        let shard = folder + "/shard-000"
        let copies =
            try FileManager.default.contentsOfDirectory(atPath: shard).contains("checkpoints")
            ? FileManager.default.contentsOfDirectory(atPath: shard + "/checkpoints").filter { UInt32($0) != nil }
                .sorted() : []
        // Never the only one: the log need not go back to its beginning then.
        if crashes.isMultiple(of: 3), copies.count > 1, let newest = copies.last {
            try FileManager.default.removeItem(atPath: "\(shard)/checkpoints/\(newest)/CURRENT")
        }
        if crashes.isMultiple(of: 2) {
            try FileManager.default.removeItem(atPath: shard + "/index")
        } else {
            try FileManager.default.removeItem(atPath: shard + "/index/CURRENT")
        }
        var outcome: ShardRepair?
        try Store.repair(at: folder) { outcome = $0 }
        guard outcome?.outcome == .repaired, outcome?.audit == [] else {
            throw StoreError(.damaged, "the repair says \(String(describing: outcome))")
        }
        repairs += 1
    }

    /// Whether nothing is left to do in the background within the limit.
    func settle() throws -> Bool {
        let end = Date() + 30
        while Date() < end {
            shard.background.wake(newWork: true, isFull: false)
            usleep(3_000)
            let cursor = shard.makeView().index.makeCursor()
            var isIdle = true
            for table in [Table.work, Table.unreferenced] {
                cursor.seek(Key(table).bytes)
                if try cursor.isValid(), cursor.key.first == table.rawValue { isIdle = false }
            }
            if isIdle { return true }
        }
        return false
    }

    /// Calls that are sent together, and so may share groups.
    final class Batch: Sendable {
        private let group = DispatchGroup()
        private let failures = Mutex<[String]>([])

        func submit(
            to shard: Shard,
            durability: CommitDurability,
            records: Int,
            bytes: Int,
            reclaims: Bool = false,
            fails code: StoreError.Code? = nil,
            _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Void
        ) {
            group.enter()
            shard.submit(durability: durability, records: records, bytes: bytes, entries: 64, reclaims: reclaims, body)
            { result in
                switch (result, code) {
                case (.success, nil): break
                case (.failure(let error), let code?) where error.code == code: break
                case (.success, _?): self.failures.withLock { $0.append("a call that must fail did not") }
                case (.failure(let error), _): self.failures.withLock { $0.append("\(error.code): \(error)") }
                }
                self.group.leave()
            }
        }

        /// What was answered otherwise than expected.
        func wait() -> [String] {
            guard group.wait(timeout: .now() + 30) == .success else { return ["no answer within 30 s"] }
            return failures.withLock { $0 }
        }
    }

    func change<Value: Sendable>(
        _ durability: CommitDurability = .durable,
        records: Int = 0,
        bytes: Int = 0,
        reclaims: Bool = false,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value
    ) throws -> Value {
        let answer = Mutex<Result<Value, StoreError>?>(nil)
        let done = DispatchSemaphore(value: 0)
        shard.submit(durability: durability, records: records, bytes: bytes, entries: 64, reclaims: reclaims, body) {
            result in
            answer.withLock { $0 = result }
            done.signal()
        }
        guard done.wait(timeout: .now() + 30) == .success else { throw StoreError(.io, "no answer within 30 s") }
        return try answer.withLock { $0! }.get()
    }
}
