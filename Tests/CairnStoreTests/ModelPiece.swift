import CairnCore

@testable import CairnStore

/// One change of one chunk, or of a part of it, prepared as a service would.
enum ModelPiece: Sendable {
    case whole(ChunkIndex, Transaction.ChunkContent)
    case part(UInt64, BufferSlice)

    var bytes: Int {
        switch self {
        case .whole(_, .data(let data)): data.bytes.count
        case .whole: 0
        case .part(_, let bytes): bytes.count
        }
    }
    var placement: (ChunkIndex, Transaction.ChunkContent)? {
        if case .whole(let chunk, let content) = self { (chunk, content) } else { nil }
    }

    /// As a service sends it: with what it found of the chunk before.
    func looked(for finder: ChunkFinder) -> ModelPiece {
        guard case .whole(let chunk, .data(let data)) = self else { return self }
        return .whole(chunk, .data(data.looked(for: finder)))
    }

    func write(to target: WriteTarget, in transaction: Transaction) throws(StoreError) {
        switch self {
        case .whole(let chunk, let content): try transaction.writeChunk(chunk, of: target, content)
        case .part(let offset, let bytes): try transaction.writePart(at: offset, bytes, of: target)
        }
    }
}

extension ChunkData {
    func looked(for finder: ChunkFinder) -> ChunkData {
        var data = self
        data.absence = finder.find(fingerprint).absence
        return data
    }
}
