public import CairnCore

/// How a record's bytes are stored.
public enum Codec: UInt8, Hashable, Sendable {
    case raw = 0
    case lz4 = 1
}

/// What a chunk record says of its bytes.
public struct ChunkHeader: Hashable, Sendable {
    /// The shard's number for the account in whose dictionary the chunk is.
    public let account: UInt32
    /// The number of the account whose data it is: another one where parts were merged over its data (SPEC V8).
    public let owner: UInt32
    public let fingerprint: Fingerprint
    public let codec: Codec
    /// Bytes before compression.
    public let rawLength: UInt32
    /// CRC32C of the bytes before compression.
    public let rawChecksum: UInt32
    public init(
        account: UInt32,
        owner: UInt32,
        fingerprint: Fingerprint,
        codec: Codec,
        rawLength: UInt32,
        rawChecksum: UInt32
    ) {
        self.account = account
        self.owner = owner
        self.fingerprint = fingerprint
        self.codec = codec
        self.rawLength = rawLength
        self.rawChecksum = rawChecksum
    }
}

/// What a patch record (a part of a chunk, stored raw) says of its bytes.
public struct PatchHeader: Hashable, Sendable {
    public let lineage: UInt64
    public let chunk: ChunkIndex
    public let version: DataVersion
    /// Bytes from the chunk's start.
    public let start: UInt32
    /// CRC32C of the bytes.
    public let rawChecksum: UInt32
    public init(lineage: UInt64, chunk: ChunkIndex, version: DataVersion, start: UInt32, rawChecksum: UInt32) {
        self.lineage = lineage
        self.chunk = chunk
        self.version = version
        self.start = start
        self.rawChecksum = rawChecksum
    }
}

/// The kinds of record that hold data, and what they say of it.
public enum RecordHeader: Hashable, Sendable {
    case chunk(ChunkHeader)
    case patch(PatchHeader)
}

/// A record read back: its checksum fits.
public struct Record: Sendable {
    public let location: RecordLocation
    public let header: RecordHeader
    /// As stored: LZ4 where the header says so.
    public let bytes: BufferSlice
}
