import CairnCore
import CairnCrypto
import Foundation

@testable import CairnStore

/// Comparing what is stored with what must be.
extension ModelStore {
    /// Reads a range of sectors; nil: all of them.
    func check(
        _ stored: ReadSource,
        _ content: ModelContent,
        _ name: String,
        _ range: Range<Int>? = nil,
        acceptsLZ4: Bool = false
    ) throws {
        guard stored.size == content.size else {
            throw ModelFailure("\(name) has \(stored.size) bytes instead of \(content.size)")
        }
        let range = range ?? 0..<content.sectors.count
        let bytes = UInt64(range.lowerBound) * 512..<UInt64(range.upperBound) * 512
        try content.check(try shard.read(stored, [bytes], acceptsLZ4: acceptsLZ4), range, name)
    }

    /// What ListBlocks tells of each chunk; what is left out is a hole.
    func blocks(_ stored: ReadSource, chunks: Int, limit: Int = 7) throws -> [BlockEntry.State] {
        var listed = [BlockEntry.State](repeating: .hole, count: chunks)
        var position = ChunkIndex(0)
        while true {
            let (entries, next) = try shard.makeView().blocks(
                of: stored.lineage,
                at: stored.version,
                in: position..<ChunkIndex(UInt64(chunks)),
                limit: limit
            )
            for entry in entries { listed[Int(entry.chunk.rawValue)] = entry.state }
            guard let next else { break }
            position = next
        }
        return listed
    }

    /// Nothing that is not zero is left out of the list, and every fingerprint is right.
    func checkBlocks(_ stored: ReadSource, _ content: ModelContent, _ name: String) throws {
        for (chunk, state) in try blocks(stored, chunks: content.chunkCount).enumerated() {
            switch state {
            case .hole, .zeros:
                guard content.isZero(chunk) else { throw ModelFailure("\(name): chunk \(chunk) is not listed as data") }
            case .data(let fingerprint):
                guard fingerprint == nil || fingerprint == content.fingerprint(of: chunk) else {
                    throw ModelFailure("\(name): chunk \(chunk) is listed with another fingerprint")
                }
            }
        }
    }
}

extension ModelContent {
    /// What was read of a range of sectors.
    func check(_ pieces: [ReadPiece], _ range: Range<Int>, _ name: String) throws {
        var position = UInt64(range.lowerBound) * 512
        for piece in pieces {
            guard piece.offset == position else { throw ModelFailure("\(name): a gap at \(position)") }
            try check(piece, name)
            position += UInt64(piece.length)
        }
        guard position == UInt64(range.upperBound) * 512 else { throw ModelFailure("\(name): short at \(position)") }
    }

    private func check(_ piece: ReadPiece, _ name: String) throws {
        let range = Int(piece.offset / 512)..<(Int(piece.offset) + piece.length) / 512
        let expected = self.bytes(range)
        let found: BufferSlice
        switch piece.content {
        case .hole, .zeros:
            guard sectors[range].allSatisfy({ $0 == 0 }) else {
                throw ModelFailure("\(name): \(piece.content) instead of data at \(piece.offset)")
            }
            return
        case .known: throw ModelFailure("nothing was said to be known")
        case .plain(let bytes, _): found = bytes
        case .lz4(let bytes, _):
            let target = BufferPool.shared.buffer(capacity: piece.length)
            target.count = piece.length
            guard
                LZ4.decompress(
                    bytes.bytes,
                    into: UnsafeMutableRawBufferPointer(rebasing: target.memory[0..<piece.length])
                )
            else {
                throw ModelFailure("\(name): LZ4 that does not decode at \(piece.offset)")
            }
            found = target.slice
        }
        let isSame = withExtendedLifetime((found, expected)) {
            found.count == expected.count
                && memcmp(found.bytes.baseAddress!, expected.bytes.baseAddress!, found.count) == 0
        }
        guard isSame else { throw ModelFailure("\(name): other bytes at \(piece.offset), \(piece.length) long") }
        var checksum: UInt32?
        if case .plain(_, let sum) = piece.content { checksum = sum }
        if case .lz4(_, let sum) = piece.content { checksum = sum }
        guard withExtendedLifetime(expected, { checksum.map { $0 == CRC32C.extend(0, expected.bytes) } ?? true }) else {
            throw ModelFailure("\(name): another checksum at \(piece.offset)")
        }
    }
}
