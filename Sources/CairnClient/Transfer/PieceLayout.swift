internal import CairnCore
internal import CairnCrypto

/// How a volume is cut into the pieces of a transfer: about 4 MiB each, so that a call's own cost is spread, and 256 chunks at
/// most, so that a message stays small.
struct PieceLayout: Sendable, Equatable {
    let chunkSize: ChunkSize
    /// The volume's, in bytes.
    let volumeSize: UInt64
    /// A multiple of the chunk size.
    let pieceBytes: Int

    /// - Parameter chunksPerCall: the most that the server takes.
    init(chunkSize: ChunkSize, volumeSize: UInt64, chunksPerCall: Int = 256) {
        self.chunkSize = chunkSize
        self.volumeSize = volumeSize
        let chunks = max(1, min((4 << 20) >> Int(chunkSize.exponent), min(chunksPerCall, 256)))
        pieceBytes = chunks << Int(chunkSize.exponent)
    }

    /// Pieces that may be under way in `bytes` of memory: some for each connection to be busy, no more than help.
    func pieces(in bytes: Int) -> Int { min(max(bytes / pieceBytes, 2), 32) }

    /// Chunks that are read and then hashed at once: few enough that they stay in a processor's cache until they are.
    var hashBatch: Int { max(1, min(SHA256.batch, (1 << 20) / chunkSize.bytes)) }

    /// The start of the chunk that `offset` lies in.
    func chunkStart(_ offset: UInt64) -> UInt64 { offset & ~UInt64(chunkSize.bytes - 1) }

    /// The first chunk boundary at or after `offset`, or the volume's end.
    func chunkEnd(_ offset: UInt64) -> UInt64 {
        min(chunkStart(offset + UInt64(chunkSize.bytes - 1)), volumeSize)
    }

    /// The chunks of a range that begins at a chunk's start, each as a range of bytes.
    func chunks(of range: Range<UInt64>) -> [Range<UInt64>] {
        stride(from: range.lowerBound, to: range.upperBound, by: chunkSize.bytes).map {
            $0..<min($0 + UInt64(chunkSize.bytes), range.upperBound)
        }
    }
}
