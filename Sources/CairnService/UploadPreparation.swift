import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// One change of a volume, its bytes checked, hashed and compressed: what the shard's queue only has to record.
enum Change: Sendable {
    /// Bytes of a whole chunk, ready to be stored.
    case data(ChunkIndex, ChunkData)
    /// A chunk that must be in the dictionary already; `block` is who named it.
    case token(ChunkIndex, Fingerprint, block: Int)
    /// Zeros of a whole chunk; `token`: whether they came as a chunk, and so are answered by a token (SPEC U6).
    case zeros(ChunkIndex, token: Bool)
    case hole(ChunkIndex)
    /// Part of a chunk, and its CRC32C.
    case patch(offset: UInt64, BufferSlice, checksum: UInt32)
    /// Part of a chunk that becomes zeros; bytes of the volume.
    case zeroPart(Range<UInt64>)
}

/// Turns a call's blocks into changes. Runs on a worker: this is where the server's CPU goes.
struct UploadPreparation {
    let chunkSize: ChunkSize
    let volumeSize: UInt64
    let payload: BufferSlice?
    /// Whether the shard holds a chunk already, so that compressing it would be in vain. A hint only.
    let holds: (Fingerprint) -> Bool

    /// Adds the changes of the blocks from `first` on, as far as one step goes.
    /// - Returns: where to go on; nil at the end.
    /// - Throws: CHECKSUM_ERROR or INVALID_ARGUMENT naming the block (SPEC U4, U9).
    func add(_ plan: UploadPlan, from first: Int, to changes: inout [Change]) throws(ServiceError) -> Int? {
        var room = Limits.payloadBytes
        for index in first..<plan.blocks.count {
            let block = plan.blocks[index]
            if room <= 0 { return index }
            room -= block.hashedBytes
            do throws(ServiceError) {
                switch block.content {
                case .plain(let range): try addPlain(block, payload!.part(range), to: &changes)
                case .lz4(let range): changes.append(try decoded(block, payload!.part(range)))
                case .token(let token):
                    let chunk = chunkSize.chunk(at: block.offset)
                    let isZero = token == ZeroChunk.fingerprint(chunkSize)
                    changes.append(isZero ? .zeros(chunk, token: true) : .token(chunk, token, block: index))
                case .zeros, .hole: addMark(block, to: &changes)
                }
            } catch { throw error.at(index) }
        }
        return nil
    }

    /// The bytes of `block`'s range that lie in one chunk, with whether they are all that the chunk can hold.
    private func pieces(of block: UploadPlan.Block, _ body: (ChunkIndex, Range<UInt64>, Bool) -> Void) {
        var offset = block.offset
        let end = block.offset + block.length
        while offset < end {
            let chunk = chunkSize.chunk(at: offset)
            let chunkStart = chunkSize.offset(of: chunk)
            let chunkEnd = min(chunkStart + UInt64(chunkSize.bytes), volumeSize)
            let pieceEnd = min(end, chunkEnd)
            body(chunk, offset..<pieceEnd, offset == chunkStart && pieceEnd == chunkEnd)
            offset = pieceEnd
        }
    }

    private func addPlain(_ block: UploadPlan.Block, _ bytes: BufferSlice, to changes: inout [Change])
        throws(ServiceError)
    {
        let claimed = Self.crc32c(in: block.checksum)
        if claimed == nil { try verify(block.checksum, over: bytes.bytes) }
        // Each piece is read from memory once for all that is computed of it; the block's checksum follows from theirs.
        var computed: UInt32 = 0
        pieces(of: block) { chunk, range, whole in
            let piece = bytes.part(Int(range.lowerBound - block.offset)..<Int(range.upperBound - block.offset))
            let checksum = CRC32C.extend(0, piece.bytes)
            computed = CRC32C.joined(computed, checksum, count: piece.count)
            changes.append(
                whole
                    ? wholeChunk(chunk, piece, checksum: checksum)
                    : .patch(offset: range.lowerBound, piece, checksum: checksum)
            )
        }
        guard claimed ?? computed == computed else { throw Self.wrongChecksum }
    }

    private func wholeChunk(_ chunk: ChunkIndex, _ bytes: BufferSlice, checksum: UInt32) -> Change {
        if bytes.bytes.isAllZero { return .zeros(chunk, token: true) }
        let fingerprint = SHA256.hash(bytes.bytes, padding: chunkSize.bytes - bytes.count)
        let packed = holds(fingerprint) ? nil : compressed(bytes)
        return .data(
            chunk,
            ChunkData(
                fingerprint: fingerprint,
                rawLength: UInt32(bytes.count),
                rawChecksum: checksum,
                codec: packed == nil ? .raw : .lz4,
                bytes: packed ?? bytes
            )
        )
    }

    /// LZ4, where it saves at least a sixteenth (SPEC A2).
    private func compressed(_ bytes: BufferSlice) -> BufferSlice? {
        let room = bytes.count - bytes.count / 16
        let target = BufferPool.shared.buffer(capacity: room)
        let window = UnsafeMutableRawBufferPointer(rebasing: target.memory[0..<room])
        guard let count = LZ4.compress(bytes.bytes, into: window) else { return nil }
        target.count = count
        return target.slice
    }

    /// Proves what a client compressed: decoded, hashed, and kept as it came (DESIGN §5).
    private func decoded(_ block: UploadPlan.Block, _ packed: BufferSlice) throws(ServiceError) -> Change {
        let raw = BufferPool.shared.buffer(capacity: Int(block.length))
        raw.count = Int(block.length)
        let window = UnsafeMutableRawBufferPointer(rebasing: raw.memory[0..<raw.count])
        guard LZ4.decompress(packed.bytes, into: window) else {
            throw ServiceError(.invalidArgument, "its LZ4 data does not decode to exactly \(block.length) bytes")
        }
        try verify(block.checksum, over: raw.bytes)
        let chunk = chunkSize.chunk(at: block.offset)
        if raw.bytes.isAllZero { return .zeros(chunk, token: true) }
        // A client's LZ4 that saves nothing is kept plain: reads are then cheaper, and the record never larger than the chunk.
        let keepsPacked = packed.count < raw.count
        return .data(
            chunk,
            ChunkData(
                fingerprint: SHA256.hash(raw.bytes, padding: chunkSize.bytes - raw.count),
                rawLength: UInt32(raw.count),
                rawChecksum: Self.crc32c(in: block.checksum) ?? CRC32C.extend(0, raw.bytes),
                codec: keepsPacked ? .lz4 : .raw,
                bytes: keepsPacked ? packed : raw.slice
            )
        )
    }

    private func addMark(_ block: UploadPlan.Block, to changes: inout [Change]) {
        pieces(of: block) { chunk, range, whole in
            if !whole {
                // Part of a chunk has no state of its own: a part of a hole is zeros as well.
                changes.append(.zeroPart(range))
            } else if block.content == .hole {
                changes.append(.hole(chunk))
            } else {
                changes.append(.zeros(chunk, token: false))
            }
        }
    }

    private static func crc32c(in checksum: Wire.Checksum?) -> UInt32? {
        guard let checksum, checksum.algorithm == .crc32c else { return nil }
        return checksum.value.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
    }

    private static let wrongChecksum = ServiceError(.checksumError, "its bytes do not match their checksum")

    private func verify(_ checksum: Wire.Checksum?, over bytes: UnsafeRawBufferPointer) throws(ServiceError) {
        guard let checksum, checksum.algorithm != .unspecified else { return }
        guard Checksum.value(checksum.algorithm, over: bytes) == checksum.value else {
            throw Self.wrongChecksum
        }
    }
}
