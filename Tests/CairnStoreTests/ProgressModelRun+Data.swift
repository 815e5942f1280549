import CairnCore
import CairnCrypto
import Foundation

@testable import CairnStore

/// Writing and reading.
extension ProgressModelRun {
    mutating func stamp() -> UInt32 {
        nextStamp += 1
        return nextStamp
    }

    /// With a chunk that is one of few kinds, so that the dictionary finds it again.
    func common(_ content: ModelContent, _ chunk: Int, kind: UInt32) -> ModelContent {
        var content = content
        for (place, sector) in content.sectors(of: chunk).enumerated() {
            content.sectors[sector] = kind << 20 + UInt32(place)
        }
        return content
    }

    /// Whole chunks and zeros, some by their tokens, into a snapshot that is just made (SPEC S5).
    mutating func placements(in layer: ModelLayer) -> [ModelPiece] {
        var content = layer.content
        var pieces: [ModelPiece] = []
        for _ in 0..<1 + random.below(6) {
            let chunk = random.below(content.chunkCount)
            let index = ChunkIndex(UInt64(chunk))
            let sectors = content.sectors(of: chunk)
            if random.chance(30) {
                for sector in sectors { content.sectors[sector] = 0 }
                layer.write(content.sectors[sectors], chunk: chunk, .zeros)
                pieces.append(.whole(index, .zeros))
                continue
            }
            content = common(content, chunk, kind: UInt32(1 + random.below(5)))
            let data = content.data(of: chunk)
            layer.write(content.sectors[sectors], chunk: chunk, .data)
            pieces.append(.whole(index, .data(data)))
            let other = random.below(content.chunkCount)
            guard content.sectors(of: other).count == sectors.count, other != chunk else { continue }
            content.sectors.replaceSubrange(content.sectors(of: other), with: content.sectors[sectors])
            layer.write(content.sectors[sectors], chunk: other, .data)
            // A token of what another piece of the same transaction brings would be lost with it: only as a part of that one.
            pieces.append(.whole(ChunkIndex(UInt64(other)), .data(data)))
        }
        return pieces
    }

    /// Changes the layer, and tells by which pieces the store does the same.
    private mutating func change(_ layer: ModelLayer) -> [ModelPiece] {
        var content = layer.content
        // Neighbours of the first few chunks more often: there the layers meet.
        let chunk = random.below(random.chance(70) ? min(6, content.chunkCount) : content.chunkCount)
        let sectors = content.sectors(of: chunk)
        let index = ChunkIndex(UInt64(chunk))
        func whole(_ content: ModelContent, _ kind: ModelLayer.Kind) {
            layer.write(content.sectors[sectors], chunk: chunk, kind)
        }
        switch random.below(10) {
        case 0..<2:
            for sector in sectors { content.sectors[sector] = stamp() }
            whole(content, .data)
            return [.whole(index, .data(content.data(of: chunk)))]
        case 2:
            content = common(content, chunk, kind: UInt32(1 + random.below(5)))
            whole(content, .data)
            return [.whole(index, .data(content.data(of: chunk)))]
        case 3, 4:
            let isHole = random.chance(50)
            for sector in sectors { content.sectors[sector] = 0 }
            whole(content, isHole ? .hole : .zeros)
            return [.whole(index, isHole ? .hole : .zeros)]
        case 5:
            for sector in sectors { content.sectors[sector] = stamp() }
            let data = content.data(of: chunk)
            whole(content, .data)
            let other = random.below(content.chunkCount)
            guard content.sectors(of: other).count == sectors.count else { return [.whole(index, .data(data))] }
            content.sectors.replaceSubrange(content.sectors(of: other), with: content.sectors[sectors])
            layer.write(content.sectors[sectors], chunk: other, .data)
            return [.whole(index, .data(data)), .whole(ChunkIndex(UInt64(other)), .token(data.fingerprint))]
        default:
            let count = 1 + random.below(min(sectors.count, 4))
            let first = sectors.lowerBound + random.below(sectors.count - count + 1)
            let isZero = random.chance(10)
            for sector in first..<first + count { content.sectors[sector] = isZero ? 0 : stamp() }
            layer.write(content.sectors[first..<first + count], at: first..<first + count)
            return [.part(UInt64(first) * 512, content.bytes(first..<first + count))]
        }
    }

    private mutating func changes(_ layer: ModelLayer) -> [ModelPiece] {
        var pieces: [ModelPiece] = []
        for _ in 0..<1 + random.below(4) { pieces += change(layer) }
        return pieces
    }

    mutating func upload(to snapshot: Snapshot) throws {
        last = "upload to a snapshot"
        let (id, pieces) = (snapshot.id, changes(snapshot.layer))
        try write(pieces) { (transaction) throws(StoreError) in
            try transaction.target(of: try transaction.snapshot(id)!)
        }
    }

    mutating func write(to volume: Volume) throws {
        last = "write"
        let (id, pieces) = (volume.id, changes(volume.head))
        try write(pieces) { (transaction) throws(StoreError) in WriteTarget(try transaction.volume(id)!) }
    }

    private mutating func write(
        _ pieces: [ModelPiece],
        _ target: @escaping @Sendable (Transaction) throws(StoreError) -> WriteTarget
    ) throws {
        let bytes = pieces.reduce(0) { $0 + $1.bytes }
        let durability: CommitDurability = random.chance(70) ? .onFlush : .durable
        let isRepeated = random.chance(20)
        let finder = ChunkFinder(store.shard, of: ModelRun.account)
        let looked = pieces.map { $0.looked(for: finder) }
        let write: @Sendable (Transaction) throws(StoreError) -> Void = { (transaction) throws(StoreError) in
            let target = try target(transaction)
            for piece in looked { try piece.write(to: target, in: transaction) }
        }
        // Now and then one that fails in the end, and must leave no trace.
        if random.chance(10) {
            do {
                try store.change(records: pieces.count, bytes: bytes) { (transaction) throws(StoreError) in
                    try write(transaction)
                    throw StoreError(.aborted, "on purpose")
                }
            } catch let error as StoreError where error.code == .aborted {}
        }
        for _ in 0..<(isRepeated ? 2 : 1) {
            try store.change(durability, records: pieces.count, bytes: bytes, write)
        }
    }

    // MARK: Reading

    mutating func readSomething() throws {
        let sources = remote.count + snapshots.count
        if sources == 0 { return }
        let number = random.below(sources)
        if number < remote.count { try check(remote[number]) } else { try check(snapshots[number - remote.count]) }
    }

    mutating func checkAll() throws {
        for volume in remote { try check(volume) }
        for snapshot in snapshots { try check(snapshot) }
    }

    private func check(_ volume: Volume) throws {
        guard let record = try store.shard.makeView().volume(volume.id) else {
            throw ModelFailure("\(volume.id) is missing")
        }
        try check(ReadSource(record), volume.head, "\(volume.id)")
    }

    private func check(_ snapshot: Snapshot) throws {
        let view = store.shard.makeView()
        guard let stored = try view.snapshot(snapshot.id) else {
            throw ModelFailure("\(snapshot.id) is missing, and should be \(snapshot.state)")
        }
        let record = try view.settled(stored)
        guard record.state == snapshot.state, record.needsRebase == snapshot.needsRebase || snapshot.isError else {
            throw ModelFailure("\(record) should be \(snapshot.state), needs rebase \(snapshot.needsRebase)")
        }
        let outstanding = try view.outstanding(of: snapshot.volume.id).map(\.id)
        guard outstanding == snapshot.volume.outstanding.map(\.id) else {
            throw ModelFailure("in progress: \(outstanding)")
        }
        if snapshot.isError { return }
        snapshot.layer.finish()
        try check(ReadSource(record), snapshot.layer, "\(snapshot.id) (\(snapshot.state))")
    }

    private func check(_ stored: ReadSource, _ layer: ModelLayer, _ name: String) throws {
        let content = layer.content
        try store.check(stored, content, name)
        for (chunk, state) in try store.blocks(stored, chunks: layer.chunks).enumerated() {
            let allowed = layer.states(of: chunk, content)
            guard allowed.contains(state) else {
                throw ModelFailure("\(name): chunk \(chunk) is \(state) instead of \(allowed)")
            }
        }
    }
}
