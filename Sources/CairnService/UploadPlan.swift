import CairnCore
import CairnWire

/// What an upload's blocks mean, all legality settled before anything is hashed or written (SPEC U1–U3).
///
/// Pure: it sees lengths and offsets only, no bytes, no store.
struct UploadPlan: Sendable {
    /// What a block brings.
    enum Content: Sendable, Equatable {
        /// Bytes of the call's payload, as they are.
        case plain(payload: Range<Int>)
        /// Bytes of the call's payload: one LZ4 block that decodes to the whole chunk.
        case lz4(payload: Range<Int>)
        /// A chunk that the account has here.
        case token(Fingerprint)
        case zeros
        case hole
    }

    struct Block: Sendable {
        let offset: UInt64
        let length: UInt64
        let checksum: Wire.Checksum?
        let content: Content

        /// What its preparation hashes: of LZ4 what it decodes to, up to 255 times what came.
        var hashedBytes: Int {
            switch content {
            case .plain, .lz4: Int(length)
            case .token, .zeros, .hole: 0
            }
        }
    }

    /// Whole chunks that one call may name by zeros, holes and tokens: bounds the size of its commit.
    static let chunksPerCall: UInt64 = 8192

    let blocks: [Block]

    /// What its preparation hashes.
    var hashedBytes: Int { blocks.reduce(0) { $0 + $1.hashedBytes } }

    /// Throws INVALID_ARGUMENT naming the block.
    init(
        _ blocks: [Wire.UploadBlock],
        payloadCount: Int,
        volumeSize: UInt64,
        chunkSize: ChunkSize,
        checksumOptional: Bool
    ) throws(ServiceError) {
        guard !blocks.isEmpty else { throw ServiceError(.invalidArgument, "the call holds no block") }
        guard blocks.count <= Limits.blocksPerCall else {
            throw ServiceError(
                .invalidArgument,
                "\(blocks.count) blocks; at most \(Limits.blocksPerCall) go in one call"
            )
        }
        var plan: [Block] = []
        plan.reserveCapacity(blocks.count)
        var payloadStart = 0
        var chunks: UInt64 = 0
        for (index, block) in blocks.enumerated() {
            do throws(ServiceError) {
                try Self.check(offset: block.offset, length: UInt64(block.length), within: volumeSize)
                let planned = try Self.plan(
                    block,
                    payloadStart: payloadStart,
                    payloadCount: payloadCount,
                    volumeSize: volumeSize,
                    chunkSize: chunkSize
                )
                if case .plain(let range) = planned.content { payloadStart = range.upperBound }
                if case .lz4(let range) = planned.content { payloadStart = range.upperBound }
                try Self.checkChecksum(of: planned, optional: checksumOptional)
                plan.append(planned)
            } catch { throw error.at(index) }
            chunks += chunkSize.count(for: UInt64(block.length)) + 1
            guard chunks <= Self.chunksPerCall else {
                throw ServiceError(
                    .invalidArgument,
                    "the call touches more than \(Self.chunksPerCall) chunks",
                    blockIndex: index
                )
            }
        }
        guard payloadStart == payloadCount else {
            throw ServiceError(
                .invalidArgument,
                "the blocks own \(payloadStart) of the payload's \(payloadCount) bytes"
            )
        }
        self.blocks = plan
    }

    /// SPEC U3.
    static func check(offset: UInt64, length: UInt64, within size: UInt64) throws(ServiceError) {
        guard length > 0, offset.isMultiple(of: Limits.sector), length.isMultiple(of: Limits.sector) else {
            throw ServiceError(
                .invalidArgument,
                "offset \(offset) and length \(length) must be multiples of 512, the length not 0"
            )
        }
        guard offset <= size, length <= size - offset else {
            throw ServiceError(
                .invalidArgument,
                "offset \(offset) and length \(length) reach beyond the volume's \(size) bytes"
            )
        }
    }

    private static func plan(
        _ block: Wire.UploadBlock,
        payloadStart: Int,
        payloadCount: Int,
        volumeSize: UInt64,
        chunkSize: ChunkSize
    ) throws(ServiceError) -> Block {
        let wholeChunk =
            chunkSize.remainder(of: block.offset) == 0
            && UInt64(block.length) == min(UInt64(chunkSize.bytes), volumeSize - block.offset)
        let content: Content
        switch block.source {
        case .payloadLength(let count):
            guard Int(count) <= payloadCount - payloadStart else {
                throw ServiceError(.invalidArgument, "its \(count) bytes reach beyond the payload's \(payloadCount)")
            }
            let range = payloadStart..<payloadStart + Int(count)
            switch block.codec {
            case .unspecified, .plain:
                guard count == block.length else {
                    throw ServiceError(.invalidArgument, "a plain block of \(block.length) bytes brings \(count)")
                }
                content = .plain(payload: range)
            case .lz4:
                // Also because a call with no payload at all has nothing to cut from.
                guard count > 0 else { throw ServiceError(.invalidArgument, "an LZ4 block brings no bytes") }
                guard wholeChunk else {
                    throw ServiceError(
                        .invalidArgument,
                        "an LZ4 block must be exactly one whole chunk of \(chunkSize.bytes) bytes"
                    )
                }
                content = .lz4(payload: range)
            default: throw ServiceError(.invalidArgument, "codec \(block.codec.rawValue) is unknown")
            }
        case .token(let bytes):
            guard let token = Fingerprint(bytes: bytes) else {
                throw ServiceError(.invalidChunkToken, "a token has 32 bytes, not \(bytes.count)")
            }
            guard wholeChunk else {
                throw ServiceError(
                    .invalidArgument,
                    "a token stands for exactly one whole chunk of \(chunkSize.bytes) bytes"
                )
            }
            content = .token(token)
        case .zeros: content = .zeros
        case .hole: content = .hole
        case nil: throw ServiceError(.invalidArgument, "it brings neither bytes nor a token nor a mark")
        }
        return Block(offset: block.offset, length: UInt64(block.length), checksum: block.checksum, content: content)
    }

    private static func checkChecksum(of block: Block, optional: Bool) throws(ServiceError) {
        switch block.content {
        case .plain, .lz4: break
        case .token, .zeros, .hole: return
        }
        guard let checksum = block.checksum, checksum.algorithm != .unspecified else {
            if optional { return }
            throw ServiceError(.invalidArgument, "it has no checksum, and this server asks for one")
        }
        let expected: Int
        switch checksum.algorithm {
        case .crc32c, .crc32: expected = 4
        case .md5: expected = 16
        case .sha256: expected = 32
        default: throw ServiceError(.invalidArgument, "checksum algorithm \(checksum.algorithm.rawValue) is unknown")
        }
        guard checksum.value.count == expected else {
            throw ServiceError(
                .invalidArgument,
                "its checksum has \(checksum.value.count) bytes instead of \(expected)"
            )
        }
    }
}
