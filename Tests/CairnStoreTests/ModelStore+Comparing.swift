import CairnCore
import CairnCrypto

@testable import CairnStore

/// What ListChangedBlocks must tell (SPEC R1), against contents compared sector by sector.
extension ModelStore {
    func checkChanges(
        from older: (source: ReadSource, content: ModelContent),
        to newer: (source: ReadSource, content: ModelContent),
        limit: Int
    ) throws {
        let chunks = max(older.content.chunkCount, newer.content.chunkCount)
        let expected = (0..<chunks).filter { older.content.padded($0) != newer.content.padded($0) }
        var found: [BlockEntry] = []
        var position: ChunkIndex? = ChunkIndex(0)
        var pages = 0
        while let start = position, start.rawValue < UInt64(chunks) {
            let comparison = Comparison(older: .init(shard, older.source), newer: .init(shard, newer.source))
            let page = try comparison.changes(from: start, limit: limit)
            guard page.entries.count <= limit, page.next.map({ $0 > start }) ?? true else {
                throw ModelFailure("a page of changes goes on at \(page.next!) after \(start)")
            }
            found += page.entries
            position = page.next
            pages += 1
        }
        guard found.map({ Int($0.chunk.rawValue) }) == expected else {
            throw ModelFailure("changes: \(found.map(\.chunk)) instead of \(expected)")
        }
        for entry in found {
            let chunk = Int(entry.chunk.rawValue)
            switch entry.state {
            case .data(let fingerprint):
                guard chunk < newer.content.chunkCount,
                    fingerprint == nil || fingerprint == newer.content.fingerprint(of: chunk),
                    entry.owner == ModelRun.account
                else { throw ModelFailure("chunk \(chunk) changed to something else: \(entry)") }
            case .zeros, .hole:
                guard chunk >= newer.content.chunkCount || newer.content.isZero(chunk) else {
                    throw ModelFailure("chunk \(chunk) changed to data, and is listed as \(entry.state)")
                }
            }
        }
    }
}

extension ModelContent {
    /// The chunk's sectors, with zeros where the content is too short for them.
    fileprivate func padded(_ chunk: Int) -> [UInt32] {
        let count = chunkSize.bytes / 512
        let own = chunk < chunkCount ? Array(sectors[sectors(of: chunk)]) : []
        return own + [UInt32](repeating: 0, count: count - own.count)
    }
}

extension ModelRun {
    /// Two volumes or snapshots, related or not, in either order.
    mutating func compareSomething() throws {
        last = "compare"
        let sides = try [pickSide(), pickSide()]
        try store.checkChanges(from: sides[0], to: sides[1], limit: 1 + random.below(9))
    }

    private mutating func pickSide() throws -> (source: ReadSource, content: ModelContent) {
        let view = store.shard.makeView()
        let place = random.below(volumeOrder.count + snapshotOrder.count)
        if place < volumeOrder.count {
            let id = volumeOrder[place]
            return (ReadSource(try view.volume(id)!), volumes[id]!.content)
        }
        let id = snapshotOrder[place - volumeOrder.count]
        return (ReadSource(try view.snapshot(id)!), snapshots[id]!.content)
    }
}

extension ProgressModelRun {
    mutating func compareSomething() throws {
        let readable = snapshots.filter { !$0.isError }
        if readable.isEmpty, remote.isEmpty { return }
        let sides = try [pickSide(readable), pickSide(readable)]
        try store.checkChanges(from: sides[0], to: sides[1], limit: 1 + random.below(9))
    }

    private mutating func pickSide(_ readable: [Snapshot]) throws -> (source: ReadSource, content: ModelContent) {
        let view = store.shard.makeView()
        let place = random.below(remote.count + readable.count)
        if place < remote.count {
            return (ReadSource(try view.volume(remote[place].id)!), remote[place].head.content)
        }
        let snapshot = readable[place - remote.count]
        return (ReadSource(try view.snapshot(snapshot.id)!), snapshot.layer.content)
    }
}
