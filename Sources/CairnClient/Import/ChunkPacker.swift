internal import CairnCore
internal import CairnWire

/// Puts chunks into uploads, compressed where that saves at least a sixteenth. The compressed bytes take the place of the
/// chunk's own in its piece's buffer, so that compression needs no memory of its own beyond one chunk.
struct ChunkPacker {
    private let chunkSize: ChunkSize
    private let algorithm: ChecksumAlgorithm
    private let scratch: Buffer

    init(chunkSize: ChunkSize, checkedBy algorithm: ChecksumAlgorithm) {
        self.chunkSize = chunkSize
        self.algorithm = algorithm
        scratch = BufferPool.shared.buffer(capacity: chunkSize.bytes)
    }

    /// Adds the chunk with its bytes. They are spent afterwards.
    func pack(_ chunk: Int, of piece: ImportPiece, _ fingerprint: Fingerprint, into draft: inout UploadDraft) {
        let slice = piece.slice(of: chunk)
        let checksum = Checksum(algorithm, of: slice.bytes)
        let range = piece.chunks[chunk]
        // LZ4 must decode to a whole chunk: a volume's last, shorter one goes as it is.
        guard slice.count == chunkSize.bytes, let count = compress(slice) else {
            return draft.data(range, fingerprint, codec: .plain, bytes: slice, checksum: checksum)
        }
        let place = UnsafeMutableRawBufferPointer(rebasing: slice.buffer.memory[slice.range])
        place.copyMemory(from: UnsafeRawBufferPointer(rebasing: scratch.memory[0..<count]))
        draft.data(range, fingerprint, codec: .lz4, bytes: slice.part(0..<count), checksum: checksum)
    }

    private func compress(_ slice: BufferSlice) -> Int? {
        let worthwhile = slice.count - slice.count / 16
        return LZ4.compress(slice.bytes, into: UnsafeMutableRawBufferPointer(rebasing: scratch.memory[0..<worthwhile]))
    }
}
