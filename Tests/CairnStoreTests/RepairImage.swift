import CairnCore
import CairnTesting
import Foundation

@testable import CairnLog
@testable import CairnStore

/// A store that has lived: three epochs, two copies of its index, commits in the log that are in
/// neither copy, and some that the index has not flushed. Taken as a crash would leave it.
// Safety: changed by its making alone; copies of the one that tests share are each one test's own.
final class RepairImage: @unchecked Sendable {
    let folder: String
    let volume: VolumeRecord
    /// The seed of each chunk's content.
    private(set) var content: [UInt64: UInt64] = [:]
    /// After each commit of the last epoch, what the chunks held; rising.
    private(set) var history: [(position: LogPosition, content: [UInt64: UInt64])] = []
    static let chunk = 64 << 10

    var shard: String { folder + "/shard-000" }
    var index: String { shard + "/index" }

    /// One that tests copy.
    static let shared: Result<RepairImage, any Error> = Result {
        let image = try RepairImage()
        // What is shared is never let go of: it goes with the process.
        atexit { if case .success(let image) = RepairImage.shared { remove(folder: image.folder) } }
        return image
    }

    init() throws {
        folder = NSTemporaryDirectory() + "cairn-repair-" + UUID().uuidString
        let scratch = try ScratchStore(segmentBytes: 1 << 20, Self.configure)
        volume = try scratch.volume(8 << 20)
        for epoch in 0..<3 {
            if epoch > 0 { try scratch.reopen(Self.configure) }
            try write(scratch, 24, keep: epoch == 2)
            if epoch == 2 { break }
            try scratch.shard.background.flushIndex()
            try Self.copyIndex(of: scratch)
            try write(scratch, 20, keep: false)
        }
        scratch.shard.background.stop()
        try FileManager.default.copyItem(atPath: scratch.folder, toPath: folder)
    }

    /// Another of the same.
    init(copy image: RepairImage) throws {
        (volume, content, history) = (image.volume, image.content, image.history)
        folder = NSTemporaryDirectory() + "cairn-repair-" + UUID().uuidString
        try FileManager.default.copyItem(atPath: image.folder, toPath: folder)
    }

    deinit { remove(folder: folder) }

    /// Copies are made when the test says so.
    private static func configure(_ options: inout StoreOptions) {
        options.indexBackupBytes = 1 << 40
        options.checkpointBytes = 1 << 20
        // Nothing is purged: no commits but the test's.
        options.leaseTime = .seconds(3600)
    }

    static func copyIndex(of scratch: ScratchStore) throws {
        _ = try scratch.shard.checkpoints.folder.make(
            of: scratch.shard.database,
            in: scratch.folder + "/shard-000/index"
        ) { (_) throws(StoreError) in }
    }

    private func write(_ scratch: ScratchStore, _ count: Int, keep: Bool) throws {
        for _ in 0..<count {
            let number = UInt64(content.count + history.count + writes)
            writes += 1
            let chunk = number * 7 % 40
            let data = chunkData(noise(Self.chunk, number + 1))
            let volume = volume
            try scratch.change(records: 1, bytes: Self.chunk) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(chunk), of: volume, .data(data))
            }
            content[chunk] = number + 1
            if keep { history.append((scratch.shard.log.position!, content)) }
        }
    }
    private var writes = 0

    // MARK: Damage

    func files(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).filter {
            $0.hasSuffix(".sst") || $0.hasPrefix("MANIFEST") || $0 == "CURRENT"
        }.sorted().map { folder + "/" + $0 }
    }

    /// Of the copies, oldest first.
    func checkpoints() throws -> [String] {
        let folder = shard + "/checkpoints"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { UInt32($0) != nil }.sorted().map { folder + "/" + $0 }
    }

    static func flip(_ path: String, at offset: Int) throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try file.seek(toOffset: UInt64(offset))
        let byte = try file.read(upToCount: 1)?.first ?? 0
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: Data([byte ^ 0x20]))
        try file.close()
    }

    func segment(_ segment: SegmentID) -> String {
        let number = String(segment.rawValue)
        return shard + "/segments/" + String(repeating: "0", count: 8 - number.count) + number + ".seg"
    }

    // MARK: What is there

    func repair(_ configure: (inout RepairOptions) -> Void = { _ in }) throws -> ShardRepair {
        try Self.repair(at: folder, configure)
    }

    /// Of a store of one shard.
    static func repair(
        at folder: String,
        _ configure: (inout RepairOptions) -> Void = { _ in }
    ) throws -> ShardRepair {
        var options = RepairOptions()
        configure(&options)
        var found: ShardRepair?
        try Store.repair(at: folder, options) { found = $0 }
        return found!
    }

    /// What is wrong with the store's content, opened; empty where each chunk holds what it should.
    func problems(_ expected: [UInt64: UInt64]? = nil, damaged: Set<UInt64> = []) throws -> [String] {
        var options = StoreOptions()
        Self.configure(&options)
        let store = try Store.open(at: folder, options)
        let shard = store.shards[0]
        defer {
            store.close()
            _ = shard.database.close(within: .seconds(20))
        }
        var problems = try shard.audit().problems
        for (chunk, seed) in expected ?? content {
            let range = chunk * UInt64(Self.chunk)..<(chunk + 1) * UInt64(Self.chunk)
            do throws(StoreError) {
                let pieces = try shard.read(ReadSource(volume), [range], acceptsLZ4: false)
                let wanted = noise(Self.chunk, seed)
                guard case .plain(let bytes, _) = pieces.first?.content, pieces.count == 1,
                    withExtendedLifetime((bytes, wanted), { bytes.bytes.elementsEqual(wanted.bytes) })
                else {
                    problems.append("chunk \(chunk) holds something else")
                    continue
                }
                if damaged.contains(chunk) { problems.append("chunk \(chunk) is not damaged") }
            } catch {
                if error.code != .damaged || !damaged.contains(chunk) { problems.append("chunk \(chunk): \(error)") }
            }
        }
        return problems
    }
}
