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
    /// Of a chunk that is held already, that compressing it would be in vain; of one that is not, that it need not be looked for again.
    let find: (Fingerprint) -> ChunkFinder.Answer

    /// Adds the changes of the blocks from `first` on, as far as one step goes.
    /// - Returns: where to go on; nil at the end.
    /// - Throws: CHECKSUM_ERROR or INVALID_ARGUMENT naming the block (SPEC U4, U9).
    func add(_ plan: UploadPlan, from first: Int, to changes: inout [Change]) throws(ServiceError) -> Int? {
        var room = Limits.payloadBytes
        var gathered = Gathered()
        defer { hash(&gathered, to: &changes) }
        for index in first..<plan.blocks.count {
            let block = plan.blocks[index]
            if room <= 0 { return index }
            room -= block.hashedBytes
            do throws(ServiceError) {
                switch block.content {
                case .plain(let range): try addPlain(block, payload!.part(range), to: &gathered, &changes)
                case .lz4(let range): gathered.add(try decoded(block, payload!.part(range)))
                case .token(let token):
                    let chunk = chunkSize.chunk(at: block.offset)
                    let isZero = token == ZeroChunk.fingerprint(chunkSize)
                    gathered.add(.ready(isZero ? .zeros(chunk, token: true) : .token(chunk, token, block: index)))
                case .zeros, .hole: addMark(block, to: &gathered)
                }
            } catch { throw error.at(index) }
            if gathered.isFull { hash(&gathered, to: &changes) }
        }
        return nil
    }

    /// A change on its way.
    private enum Item {
        case ready(Change)
        /// A whole chunk without its fingerprint.
        case whole(Whole)
    }

    private struct Whole {
        let chunk: ChunkIndex
        let raw: BufferSlice
        /// CRC32C of `raw`.
        let checksum: UInt32
        /// As the client compressed it, where it is kept so.
        let packed: BufferSlice?
        /// Whether the server may compress it.
        let isPlain: Bool
    }

    /// Changes in their order, until there are as many whole chunks as are best hashed at once.
    private struct Gathered {
        /// Bytes of chunks, beyond which no more are kept uncompressed for one another's sake.
        private static let mostBytes = 4 << 20
        var items: [Item] = []
        var wholes = 0
        var bytes = 0

        var isFull: Bool { wholes >= SHA256.batch || bytes >= Self.mostBytes }

        mutating func add(_ item: Item) {
            items.append(item)
            guard case .whole(let whole) = item else { return }
            wholes += 1
            bytes += whole.raw.count
        }
    }

    /// Hashes what was gathered, and compresses what came plain and is not there yet.
    private func hash(_ gathered: inout Gathered, to changes: inout [Change]) {
        let wholes = gathered.items.compactMap { if case .whole(let whole) = $0 { whole } else { nil } }
        var fingerprints = SHA256.hash(each: wholes.map(\.raw.bytes), paddedTo: chunkSize.bytes)[...]
        for item in gathered.items {
            switch item {
            case .ready(let change): changes.append(change)
            case .whole(let whole): changes.append(.data(whole.chunk, data(of: whole, fingerprints.removeFirst())))
            }
        }
        gathered = Gathered()
    }

    private func data(of whole: Whole, _ fingerprint: Fingerprint) -> ChunkData {
        let found = find(fingerprint)
        let isHeld = if case .held = found { true } else { false }
        let packed = whole.isPlain && !isHeld ? compressed(whole.raw) : whole.packed
        return ChunkData(
            fingerprint: fingerprint,
            rawLength: UInt32(whole.raw.count),
            rawChecksum: whole.checksum,
            codec: packed == nil ? .raw : .lz4,
            bytes: packed ?? whole.raw,
            absence: found.absence
        )
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

    private func addPlain(
        _ block: UploadPlan.Block,
        _ bytes: BufferSlice,
        to gathered: inout Gathered,
        _ changes: inout [Change]
    ) throws(ServiceError) {
        let claimed = Self.crc32c(in: block.checksum)
        if claimed == nil { try verify(block.checksum, over: bytes.bytes) }
        // Each piece is read from memory once for all that is computed of it; the block's checksum follows from theirs.
        var computed: UInt32 = 0
        pieces(of: block) { chunk, range, whole in
            let piece = bytes.part(Int(range.lowerBound - block.offset)..<Int(range.upperBound - block.offset))
            let checksum = CRC32C.extend(0, piece.bytes)
            computed = CRC32C.joined(computed, checksum, count: piece.count)
            gathered.add(
                whole
                    ? wholeChunk(chunk, piece, checksum: checksum)
                    : .ready(.patch(offset: range.lowerBound, piece, checksum: checksum))
            )
            if gathered.isFull { hash(&gathered, to: &changes) }
        }
        guard claimed ?? computed == computed else { throw Self.wrongChecksum }
    }

    private func wholeChunk(_ chunk: ChunkIndex, _ bytes: BufferSlice, checksum: UInt32) -> Item {
        if bytes.bytes.isAllZero { return .ready(.zeros(chunk, token: true)) }
        return .whole(Whole(chunk: chunk, raw: bytes, checksum: checksum, packed: nil, isPlain: true))
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
    private func decoded(_ block: UploadPlan.Block, _ packed: BufferSlice) throws(ServiceError) -> Item {
        let raw = BufferPool.shared.buffer(capacity: Int(block.length))
        raw.count = Int(block.length)
        let window = UnsafeMutableRawBufferPointer(rebasing: raw.memory[0..<raw.count])
        guard LZ4.decompress(packed.bytes, into: window) else {
            throw ServiceError(.invalidArgument, "its LZ4 data does not decode to exactly \(block.length) bytes")
        }
        try verify(block.checksum, over: raw.bytes)
        let chunk = chunkSize.chunk(at: block.offset)
        if raw.bytes.isAllZero { return .ready(.zeros(chunk, token: true)) }
        return .whole(
            Whole(
                chunk: chunk,
                raw: raw.slice,
                checksum: Self.crc32c(in: block.checksum) ?? CRC32C.extend(0, raw.bytes),
                // A client's LZ4 that saves nothing is kept plain: reads are then cheaper, and the record never larger than the chunk.
                packed: packed.count < raw.count ? packed : nil,
                isPlain: false
            )
        )
    }

    private func addMark(_ block: UploadPlan.Block, to gathered: inout Gathered) {
        pieces(of: block) { chunk, range, whole in
            if !whole {
                // Part of a chunk has no state of its own: a part of a hole is zeros as well.
                gathered.add(.ready(.zeroPart(range)))
            } else if block.content == .hole {
                gathered.add(.ready(.hole(chunk)))
            } else {
                gathered.add(.ready(.zeros(chunk, token: false)))
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
