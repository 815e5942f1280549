public import CairnCore
internal import CairnWire

/// One block of an upload (SPEC U1).
public struct BlockUpload: Sendable {
    /// What the block is to hold.
    public enum Content: Sendable {
        /// The bytes themselves: `length` of them.
        case plain(BufferSlice)
        /// One LZ4 block that decodes to `length` bytes: exactly one whole chunk.
        case lz4(BufferSlice)
        /// A chunk that this account has on the server already: exactly one whole chunk.
        case token(Fingerprint)
        case zeros
        /// Reads as zeros, and hides what older versions hold there (SPEC V7).
        case hole
    }
    /// Bytes; a multiple of 512.
    public var offset: UInt64
    /// Bytes; a multiple of 512.
    public var length: UInt32
    public var content: Content
    /// Of the uncompressed bytes; nil with `plain`: computed when it is sent (``ClientOptions/checksum``). Of `lz4` it must be
    /// given, unless the server takes blocks without.
    public var checksum: Checksum?

    public init(offset: UInt64, length: UInt32, content: Content, checksum: Checksum? = nil) {
        self.offset = offset
        self.length = length
        self.content = content
        self.checksum = checksum
    }

    /// The block's bytes of the payload.
    var payload: BufferSlice? {
        switch content {
        case .plain(let bytes), .lz4(let bytes): bytes
        case .token, .zeros, .hole: nil
        }
    }

    /// - Parameter algorithm: of plain bytes without a checksum of their own.
    func wire(checkedBy algorithm: ChecksumAlgorithm) -> Wire.UploadBlock {
        var block = Wire.UploadBlock(offset: offset, length: length)
        switch content {
        case .plain(let bytes):
            block.codec = .plain
            block.source = .payloadLength(UInt32(bytes.count))
            block.checksum = (checksum ?? Checksum(algorithm, of: bytes.bytes)).wire
        case .lz4(let bytes):
            block.codec = .lz4
            block.source = .payloadLength(UInt32(bytes.count))
            block.checksum = checksum?.wire
        case .token(let token): block.source = .token(token.bytes)
        case .zeros: block.source = .zeros(Wire.Empty())
        case .hole: block.source = .hole(Wire.Empty())
        }
        return block
    }
}

/// What an upload did.
public struct UploadResult: Sendable, Hashable {
    /// The tokens of the whole chunks that were written, by their offsets, as the server computed them (SPEC U6).
    public let tokens: [UInt64: Fingerprint]
    /// Offsets of chunks that a higher data version had written already (SPEC U5).
    public let superseded: [UInt64]
    /// Eight opaque bytes: a change means that what was not flushed must be sent again (SPEC U8).
    public let writeVerifier: [UInt8]
    public let dataVersion: DataVersion

    init(_ wire: Wire.UploadBlockResponse) throws(ClientError) {
        var tokens: [UInt64: Fingerprint] = [:]
        for chunk in wire.chunks {
            tokens[chunk.offset] = try Contract.require(
                Fingerprint(bytes: chunk.token),
                "token",
                in: "the answer to UploadBlock"
            )
        }
        self.tokens = tokens
        superseded = wire.superseded
        writeVerifier = wire.writeVerifier
        dataVersion = DataVersion(wire.dataVersion)
    }

    /// Of an upload that completed this snapshot, and whose answer was lost or did not say so (SPEC C5).
    init(completing snapshot: Snapshot) {
        tokens = [:]
        superseded = []
        writeVerifier = []
        dataVersion = snapshot.dataVersion
    }
}

/// Which of some chunks the account has on the server (SPEC A1).
public struct ChunkPresence: Sendable, Hashable {
    /// In the order of the question: whether it need not be sent.
    public let isPresent: [Bool]
    /// Until when those that are there stay, whatever is deleted.
    public let leaseExpiresAt: Timestamp
}

/// Chunks that wait on the server for a place (SPEC U7).
public struct StagedChunks: Sendable, Hashable {
    /// In the chunks' order.
    public let tokens: [Fingerprint]
    /// Until when they stay, unless the lease is renewed.
    public let leaseExpiresAt: Timestamp
}

/// When a write is answered (SPEC U8).
public enum Durability: Sendable, Hashable {
    /// When it is on stable storage.
    case durable
    /// Earlier: a flush makes it durable.
    case onFlush

    var wire: Wire.Durability { self == .durable ? .durable : .onFlush }
}

/// One block of a download, checked against its checksum.
public struct DownloadedBlock: Sendable {
    public enum Content: Sendable {
        /// The uncompressed bytes.
        case data(BufferSlice)
        case zeros
        /// Never written, or discarded.
        case hole
        /// One of the known tokens that the request named (SPEC A4).
        case known
    }
    public let offset: UInt64
    public let length: UInt32
    public let content: Content
    /// Of a whole chunk.
    public let token: Fingerprint?
}

/// What a range of a volume or snapshot holds (SPEC R1).
public struct BlockDescription: Sendable, Hashable {
    public enum State: Sendable, Hashable { case data, zeros, hole }
    public let offset: UInt64
    public let length: UInt64
    public let state: State
    /// Of data: nil where a chunk holds partial writes that are not merged yet.
    public let token: Fingerprint?
    /// The account that owns the chunk (SPEC V8).
    public let owner: String

    public init(offset: UInt64, length: UInt64, state: State, token: Fingerprint? = nil, owner: String = "") {
        self.offset = offset
        self.length = length
        self.state = state
        self.token = token
        self.owner = owner
    }

    init(_ wire: Wire.BlockDescription) {
        let state: State = wire.state == .hole ? .hole : wire.state == .zeros ? .zeros : .data
        self.init(
            offset: wire.offset,
            length: UInt64(wire.length),
            state: state,
            token: Fingerprint(bytes: wire.token),
            owner: wire.owner
        )
    }
}
