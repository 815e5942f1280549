/// The size of a volume's chunks: a power of two, 4 KiB … 4 MiB, fixed for the volume's life (SPEC V6).
public struct ChunkSize: Hashable, Sendable, CustomStringConvertible {
    /// log2 of the size in bytes: 12 … 22.
    public let exponent: UInt8

    public static let minimum = ChunkSize(exponent: 12)
    public static let maximum = ChunkSize(exponent: 22)

    @usableFromInline internal init(exponent: UInt8) { self.exponent = exponent }

    /// Nil unless `bytes` is a power of two in range.
    @inlinable public init?(bytes: some BinaryInteger) {
        guard bytes >= 4096, bytes <= 4 << 20 else { return nil }
        let value = UInt32(bytes)
        guard value & (value - 1) == 0 else { return nil }
        self.init(exponent: UInt8(value.trailingZeroBitCount))
    }

    public var bytes: Int { 1 << Int(exponent) }
    public var description: String { ByteCount.text(UInt64(bytes)) }

    /// The chunk that holds the byte at `offset`.
    public func chunk(at offset: UInt64) -> ChunkIndex { ChunkIndex(offset >> UInt64(exponent)) }
    /// The offset of a chunk's first byte in the volume.
    public func offset(of chunk: ChunkIndex) -> UInt64 { chunk.rawValue << UInt64(exponent) }
    /// How far into its chunk the byte at `offset` lies.
    public func remainder(of offset: UInt64) -> Int { Int(offset & UInt64(bytes - 1)) }
    /// The number of chunks that hold `size` bytes.
    public func count(for size: UInt64) -> UInt64 { (size + UInt64(bytes) - 1) >> UInt64(exponent) }
}

/// The limits that the service holds its callers to, in one place, each with its reason.
public enum Limits {
    /// Offsets and lengths of blocks are multiples of this: the sector of the disks that users mirror (SPEC U3).
    public static let sector: UInt64 = 512
    /// SPEC V2.
    public static let volumeSizeMinimum: UInt64 = 1 << 20
    /// SPEC V2.
    public static let volumeSizeMaximum: UInt64 = 64 << 40
    /// A message beyond this is refused before it is read: 16 Ki blocks of 64 bytes each fit.
    public static let messageBytes = 1 << 20
    /// The raw payload of one frame: four of the largest chunks.
    public static let payloadBytes = 16 << 20
    /// Blocks in one UploadBlock, ranges in one DownloadBlock.
    public static let blocksPerCall = 4096
    /// Whole and partial chunks that one call may write: a full payload of the smallest chunks, twice.
    public static let recordsPerCall = 8192
    /// Tokens in one QueryChunks.
    public static let tokensPerCall = 16384
    /// Snapshots of one volume that may be in progress at a time: cancelling one marks all later ones (SPEC S4).
    public static let snapshotsInProgress = 192
    /// Volumes made from one another's snapshots in turn.
    public static let cloneDepth = 256
    /// Versions of one volume that were cancelled in progress and on which clones stand: they are kept in one record.
    public static let cancelledVersions = 1024
    /// Grants that one account may have made: they are counted anew with each.
    public static let grants = 4096
    /// Of these, to one other account: so nobody fills another's list.
    public static let grantsToOne = 256
    /// Volumes that one CreateSnapshots may name (SPEC R6): their shards stand still for it.
    public static let volumesPerCall = 64
    /// Volumes and snapshots that one GetUsage may name: each is walked through.
    public static let usageTargets = 256
    /// Chunks that one list of CreateSnapshot may name, inline or by pointer (SPEC S5): 64 MiB of list at the most.
    public static let placementsPerList = 1 << 20
    /// The longest lease of a staged chunk, in seconds: 30 days (SPEC U7).
    public static let leaseSeconds: UInt64 = 30 * 86400
    /// Items on one page of a listing.
    public static let pageItems = 1000
    /// Bytes of volumes or snapshots after which a page of them ends; the last one may go beyond.
    public static let pageBytes = 512 << 10
    /// Blocks on one page of ListBlocks: its answer fits the message limit.
    public static let blocksPerPage = 8192
    /// SPEC C5.
    public static let idempotencyKeyBytes = 64
    /// Tags of one volume or snapshot; key and value are at most 256 bytes each.
    public static let tags = 64
    public static let tagBytes = 256
    public static let descriptionBytes = 1024
    public static let affinityKeyBytes = 256
}
