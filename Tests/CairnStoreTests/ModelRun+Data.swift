import CairnCore
import CairnCrypto
import Foundation

@testable import CairnStore

/// Writing and reading.
extension ModelRun {
    enum Source {
        case volume(VolumeID)
        case snapshot(SnapshotID)
    }

    /// Some calls at once, each of some pieces; now and then one that fails in the end, and must leave no trace.
    mutating func write() throws {
        last = "write"
        let batch = ModelStore.Batch()
        let finder = ChunkFinder(store.shard, of: Self.account)
        for _ in 0..<1 + random.below(5) {
            let id = volumeOrder[random.below(volumeOrder.count)]
            let before = volumes[id]!.content
            var pieces: [ModelPiece] = []
            var content = before
            for _ in 0..<1 + random.below(4) { pieces += change(&content) }
            volumes[id]!.content = content
            let isRefused = random.chance(10)
            if isRefused { volumes[id]!.content = before }
            let isUnknownToken = isRefused && random.chance(50)
            let all = pieces.map { $0.looked(for: finder) }
            batch.submit(
                to: store.shard,
                durability: random.chance(30) ? .onFlush : .durable,
                records: all.count,
                bytes: all.reduce(0) { $0 + $1.bytes },
                fails: isRefused ? (isUnknownToken ? .invalid : .aborted) : nil
            ) { (transaction) throws(StoreError) in
                let volume = try transaction.volume(id)!
                for piece in all { try piece.write(to: WriteTarget(volume), in: transaction) }
                if isUnknownToken {
                    try transaction.writeChunk(
                        ChunkIndex(0),
                        of: volume,
                        .token(Fingerprint(bytes: Array(repeating: 3, count: 32))!)
                    )
                }
                if isRefused { throw StoreError(.aborted, "on purpose") }
            }
        }
        let failures = batch.wait()
        guard failures.isEmpty else { throw ModelFailure("\(failures)") }
    }

    /// Changes the content, and tells by which pieces the store does the same.
    private mutating func change(_ content: inout ModelContent) -> [ModelPiece] {
        let chunk = random.below(content.chunkCount)
        let sectors = content.sectors(of: chunk)
        let index = ChunkIndex(UInt64(chunk))
        switch random.below(10) {
        case 0..<3:
            for sector in sectors { content.sectors[sector] = stamp() }
            return [.whole(index, wholeChunk(content, chunk))]
        case 3:
            // Few kinds of chunk, so that the dictionary finds them again.
            let kind = UInt32(1 + random.below(5)) << 20
            for (place, sector) in sectors.enumerated() { content.sectors[sector] = kind + UInt32(place) }
            return [.whole(index, wholeChunk(content, chunk))]
        case 4:
            for sector in sectors { content.sectors[sector] = 0 }
            return [.whole(index, .zeros)]
        case 5:
            for sector in sectors { content.sectors[sector] = 0 }
            return [.whole(index, .hole)]
        case 6:
            // By token: of a chunk that was written just before, in the same call.
            for sector in sectors { content.sectors[sector] = stamp() }
            let data = content.data(of: chunk)
            let other = random.below(content.chunkCount)
            guard content.sectors(of: other).count == sectors.count else { return [.whole(index, .data(data))] }
            content.sectors.replaceSubrange(content.sectors(of: other), with: content.sectors[sectors])
            return [.whole(index, .data(data)), .whole(ChunkIndex(UInt64(other)), .token(data.fingerprint))]
        default:
            let count = 1 + random.below(min(sectors.count, 4))
            let first = sectors.lowerBound + random.below(sectors.count - count + 1)
            let isZero = random.chance(10)
            for sector in first..<first + count { content.sectors[sector] = isZero ? 0 : stamp() }
            return [.part(UInt64(first) * 512, content.bytes(first..<first + count))]
        }
    }

    private mutating func stamp() -> UInt32 {
        nextStamp += 1
        return nextStamp
    }

    private func wholeChunk(_ content: ModelContent, _ chunk: Int) -> Transaction.ChunkContent {
        content.isZero(chunk) ? .zeros : .data(content.data(of: chunk))
    }

    // MARK: Reading

    mutating func readSomething() throws {
        last = "read"
        let number = random.below(volumeOrder.count + snapshotOrder.count)
        let source: Source =
            number < volumeOrder.count
            ? .volume(volumeOrder[number]) : .snapshot(snapshotOrder[number - volumeOrder.count])
        let count = content(of: source).sectors.count
        let first = random.below(count)
        try check(source, first..<first + 1 + random.below(count - first), acceptsLZ4: random.chance(50))
    }

    private func content(of source: Source) -> ModelContent {
        switch source {
        case .volume(let id): volumes[id]!.content
        case .snapshot(let id): snapshots[id]!.content
        }
    }

    private func readSource(_ source: Source) throws -> ReadSource {
        let view = store.shard.makeView()
        switch source {
        case .volume(let id): if let volume = try view.volume(id) { return ReadSource(volume) }
        case .snapshot(let id): if let snapshot = try view.snapshot(id) { return ReadSource(snapshot) }
        }
        throw ModelFailure("\(source) is missing")
    }

    func check(_ source: Source, _ range: Range<Int>? = nil, acceptsLZ4: Bool = false) throws {
        let content = content(of: source)
        let stored = try readSource(source)
        try store.check(stored, content, "\(source)", range, acceptsLZ4: acceptsLZ4)
        try store.checkBlocks(stored, content, "\(source)")
    }
}
