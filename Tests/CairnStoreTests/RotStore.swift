import CairnCore
import CairnCrypto
import CairnLog
import CairnTesting
import Foundation

@testable import CairnLog
@testable import CairnStore

/// A store with known contents in several segments: whole chunks, raw and compressed, parts of chunks, a snapshot, and a clone.
final class RotStore {
    struct Source {
        let name: String
        let source: ReadSource
        let content: [UInt8]
    }

    static let chunk = 64 << 10
    private static let chunks = 32

    let scratch: ScratchStore
    private(set) var sources: [Source] = []
    /// What is on the disk where no fault is, by path.
    private(set) var healthy: [String: Data] = [:]
    /// The same files as they were earlier.
    private(set) var stale: [String: Data] = [:]
    /// The last commit's.
    private(set) var lastLSN: UInt64 = 0

    /// - Parameter hasCopies: whether there are two copies of the index, and only these, with commits before and after each; then the
    ///   log goes back to its beginning, whole.
    init(hasCopies: Bool = false) throws {
        scratch = try ScratchStore(segmentBytes: 1 << 20) { options in
            options.spareSegments = 64
            guard hasCopies else { return }
            options.indexBackupBytes = 1 << 40
            // What is kept free for the index would be larger than all of the store.
            options.freeBytes = 16 << 20
        }
        var volume = try scratch.volume(UInt64(Self.chunks * Self.chunk))
        var content = [UInt8](repeating: 0, count: Self.chunks * Self.chunk)
        try fill(volume, 0..<8, seed: 1, &content)
        keepStale()
        // In the log's first segment: from there on all of it is kept.
        if hasCopies { try copyIndex() }
        try fill(volume, 8..<15, seed: 2, &content)
        let base = volume
        let snapshot = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: base, description: "", tags: [:])
        }
        sources.append(Source(name: "snapshot", source: ReadSource(snapshot), content: content))
        guard let later = try scratch.shard.makeView().volume(volume.id) else { throw ScratchStore.NoAnswer() }
        volume = later
        try scratch.reopen()
        var cloned = content
        try fill(volume, 10..<24, seed: 3, &content)
        try patch(volume, [1, 2, 12], seed: 4, &content)
        sources.append(Source(name: "volume", source: ReadSource(volume), content: content))
        if hasCopies { try copyIndex() }
        try scratch.reopen()
        let clone = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ScratchStore.account,
                kind: .remote,
                size: snapshot.size,
                chunkSize: snapshot.chunkSize,
                source: snapshot,
                affinity: [],
                tags: [:]
            )
        }
        try fill(clone, 14..<28, seed: 5, &cloned)
        try patch(clone, [3, 15, 30], seed: 6, &cloned)
        sources.append(Source(name: "clone", source: ReadSource(clone), content: cloned))
        // The open segment is not to be touched: from now on only marks are written.
        try scratch.reopen()
        let isQuiet = try scratch.eventually(30) { try scratch.isEmpty(.work) && scratch.isEmpty(.unreferenced) }
        guard isQuiet else { throw ScratchStore.NoAnswer() }
        lastLSN = scratch.shard.log.position?.lsn.rawValue ?? 0
        for path in try segmentFiles() { healthy[path] = try Data(contentsOf: URL(fileURLWithPath: path)) }
    }

    private func copyIndex() throws {
        let background = scratch.shard.background!
        try background.queue.sync { () throws(StoreError) in try background.flushIndex() }
        try RepairImage.copyIndex(of: scratch)
    }

    private func fill(_ volume: VolumeRecord, _ chunks: Range<Int>, seed: UInt64, _ content: inout [UInt8]) throws {
        for chunk in chunks {
            // Every fourth compresses well.
            let bytes = noise(Self.chunk, seed << 32 | UInt64(chunk))
            if chunk.isMultiple(of: 4) {
                let half = UnsafeMutableRawBufferPointer(rebasing: bytes.buffer.memory[Self.chunk / 4..<Self.chunk])
                half.initializeMemory(as: UInt8.self, repeating: UInt8(chunk))
            }
            let data = Self.data(bytes)
            try scratch.change(records: 1, bytes: Self.chunk) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data))
            }
            withExtendedLifetime(bytes) {
                content.replaceSubrange(chunk * Self.chunk..<(chunk + 1) * Self.chunk, with: bytes.bytes)
            }
        }
    }

    private static func data(_ bytes: BufferSlice) -> ChunkData {
        let plain = chunkData(bytes)
        let packed = BufferPool.shared.buffer(capacity: bytes.count)
        let room = UnsafeMutableRawBufferPointer(rebasing: packed.memory[0..<bytes.count / 2])
        guard let count = withExtendedLifetime(bytes, { LZ4.compress(bytes.bytes, into: room) }) else { return plain }
        packed.count = count
        return ChunkData(
            fingerprint: plain.fingerprint,
            rawLength: plain.rawLength,
            rawChecksum: plain.rawChecksum,
            codec: .lz4,
            bytes: packed.slice
        )
    }

    private func patch(_ volume: VolumeRecord, _ chunks: [Int], seed: UInt64, _ content: inout [UInt8]) throws {
        for chunk in chunks {
            let bytes = noise(4096, seed << 32 | UInt64(chunk))
            let offset = chunk * Self.chunk + 8192
            try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
                try transaction.writePatch(at: UInt64(offset), bytes, of: volume)
            }
            withExtendedLifetime(bytes) { content.replaceSubrange(offset..<offset + 4096, with: bytes.bytes) }
        }
    }

    // MARK: Files

    private func keepStale() {
        let folder = scratch.folder + "/shard-000"
        let names = (try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? []
        for name in names { stale[folder + "/" + name] = FileManager.default.contents(atPath: folder + "/" + name) }
    }

    /// The files of the segments that are written no more and hold something.
    private func segmentFiles() throws -> [String] {
        let view = scratch.shard.makeView()
        return try scratch.shard.log.segments.filter { $0.use == .closed }.filter {
            try view.index.get(Key.segment($0.id)) != nil
        }.map { segment in
            let number = String(segment.id.rawValue)
            return "\(scratch.folder)/shard-000/segments/"
                + String(repeating: "0", count: 8 - number.count) + number + ".seg"
        }
    }

    /// Segment files as an earlier life of the same segments would have begun them.
    func olderHeader(of path: String) throws -> [UInt8]? {
        guard let number = UInt32((path as NSString).lastPathComponent.dropLast(4)) else { return nil }
        let log = scratch.shard.log
        guard let header = try SegmentHeader.read(SegmentID(number), identity: log.identity, from: log.storage),
            header.epoch.rawValue > 0
        else { return nil }
        return SegmentHeader(
            identity: header.identity,
            life: header.life,
            epoch: Epoch(header.epoch.rawValue - 1),
            next: header.next,
            firstLSN: header.firstLSN
        ).bytes
    }

    func close() { scratch.closeStore() }
    func open(at folder: String) throws { try scratch.openStore(at: folder) }

    // MARK: The oracle

    /// Reads every chunk of every source.
    /// - Returns: those that could not be had, as `source/chunk`; problems: wrong bytes, and errors that are no typed damage.
    func readAll() -> (lost: Set<String>, problems: [String]) {
        var (lost, problems) = (Set<String>(), [String]())
        for source in sources {
            for chunk in 0..<Self.chunks {
                let range = chunk * Self.chunk..<(chunk + 1) * Self.chunk
                do throws(StoreError) {
                    let pieces = try scratch.shard.read(
                        source.source,
                        [UInt64(range.lowerBound)..<UInt64(range.upperBound)],
                        acceptsLZ4: chunk.isMultiple(of: 8)
                    )
                    if !Self.isRight(pieces, source.content[range]) {
                        problems.append("\(source.name)/\(chunk) is wrong")
                    }
                } catch {
                    if error.code != .damaged { problems.append("\(source.name)/\(chunk): \(error.code) \(error)") }
                    lost.insert("\(source.name)/\(chunk)")
                }
            }
        }
        return (lost, problems)
    }

    private static func isRight(_ pieces: [ReadPiece], _ content: ArraySlice<UInt8>) -> Bool {
        content.withUnsafeBytes { content in
            var at = 0
            for piece in pieces {
                guard at + piece.length <= content.count else { return false }
                let expected = UnsafeRawBufferPointer(rebasing: content[at..<at + piece.length])
                at += piece.length
                switch piece.content {
                case .hole, .zeros: if !expected.isAllZero { return false }
                case .known: return false
                case .plain(let bytes, _):
                    guard bytes.count == piece.length, isSame(bytes, expected) else { return false }
                case .lz4(let bytes, _):
                    let buffer = BufferPool.shared.buffer(capacity: piece.length)
                    let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[0..<piece.length])
                    guard withExtendedLifetime(bytes, { LZ4.decompress(bytes.bytes, into: target) }) else {
                        return false
                    }
                    buffer.count = piece.length
                    guard isSame(buffer.slice, expected) else { return false }
                }
            }
            return at == content.count
        }
    }

    private static func isSame(_ bytes: BufferSlice, _ expected: UnsafeRawBufferPointer) -> Bool {
        withExtendedLifetime(bytes) { memcmp(bytes.bytes.baseAddress!, expected.baseAddress!, expected.count) == 0 }
    }

    /// What ListDamage would tell.
    func named() throws -> Set<String> {
        let view = scratch.shard.makeView()
        var named = Set<String>()
        for source in sources {
            let found = try view.damage(
                of: source.source,
                in: ChunkIndex(0)..<ChunkIndex(UInt64(Self.chunks)),
                limit: 1000,
                looking: 1000,
                rule: nil
            ).found
            named.formUnion(found.map { "\(source.name)/\($0.chunk)" })
        }
        return named
    }
}
