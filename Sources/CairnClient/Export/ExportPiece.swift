internal import CairnCore
internal import CairnCrypto

/// A piece of an export on its way: a span of the image, and the chunks in it that hold data. The rest of it is zeros.
// Safety: its steps follow one another, each handed on by the runner's lock.
final class ExportPiece: @unchecked Sendable {
    struct Chunk {
        let range: Range<UInt64>
        /// What the listing says; nil where it does not know (partial writes).
        let expected: Fingerprint?
        /// What is there now, once that is known.
        var fingerprint: Fingerprint?
        /// What the target holds there, of a chunk that the listing does not know: told to the server (SPEC A4).
        var held: Fingerprint?
        /// Whether it must be fetched.
        var isWanted = true
    }
    let span: Range<UInt64>
    var chunks: [Chunk]
    /// The wanted chunks' bytes, one after the other.
    var buffer: Buffer?

    init(span: Range<UInt64>, chunks: [Chunk]) {
        self.span = span
        self.chunks = chunks
    }

    var wantedBytes: Int { chunks.reduce(0) { $0 + ($1.isWanted ? $1.range.count : 0) } }

    /// The wanted chunks, neighbours joined.
    var wantedRanges: [BlockRange] {
        var ranges: [BlockRange] = []
        for chunk in chunks where chunk.isWanted {
            if let last = ranges.last, last.offset + last.length == chunk.range.lowerBound {
                ranges[ranges.count - 1].length += UInt64(chunk.range.count)
            } else {
                ranges.append(BlockRange(offset: chunk.range.lowerBound, length: UInt64(chunk.range.count)))
            }
        }
        return ranges
    }

    /// The parts of the span that read as zeros.
    var gaps: [Range<UInt64>] {
        var gaps: [Range<UInt64>] = []
        var position = span.lowerBound
        for chunk in chunks {
            if chunk.range.lowerBound > position { gaps.append(position..<chunk.range.lowerBound) }
            position = chunk.range.upperBound
        }
        if position < span.upperBound { gaps.append(position..<span.upperBound) }
        return gaps
    }

    /// What the target holds of the wanted chunks.
    var heldTokens: [Fingerprint] { chunks.compactMap { $0.isWanted ? $0.held : nil } }

    /// Fills the buffer from an answer, and proves each chunk by its fingerprint. Chunks that the target holds are not wanted
    /// any more.
    /// - Parameter isImmutable: of a snapshot, whose chunks are what the listing said; a volume's may have been written since.
    /// - Returns: false where the target holds a chunk, but in another place: the piece must be fetched without ``heldTokens``.
    func unpack(_ reader: consuming DownloadReader, chunkSize: ChunkSize, isImmutable: Bool) throws(ClientError) -> Bool
    {
        let buffer = BufferPool.shared.buffer(capacity: wantedBytes)
        var filled = 0
        var tokens: [UInt64: Fingerprint] = [:]
        while let part = try reader.next() {
            if case .known = part.content {
                guard try skip(part) else { return false }
                continue
            }
            try part.unpack(into: UnsafeMutableRawBufferPointer(rebasing: buffer.memory[filled..<filled + part.length]))
            filled += part.length
            tokens[part.offset] = part.token
        }
        buffer.count = filled
        self.buffer = buffer
        var start = 0
        let wanted = chunks.indices.filter { chunks[$0].isWanted }
        let bytes = wanted.map { index in
            defer { start += chunks[index].range.count }
            return UnsafeRawBufferPointer(rebasing: buffer.bytes[start..<start + chunks[index].range.count])
        }
        let fingerprints = SHA256.hash(each: bytes, paddedTo: chunkSize.bytes)
        for (index, fingerprint) in zip(wanted, fingerprints) {
            let range = chunks[index].range
            let told = (isImmutable ? chunks[index].expected : nil) ?? tokens[range.lowerBound]
            guard told == nil || told == fingerprint else {
                throw ClientError(.damaged, "the chunk at offset \(range.lowerBound) is not what its token says")
            }
            chunks[index].fingerprint = fingerprint
        }
        return true
    }

    /// A chunk that came without its bytes.
    /// - Returns: whether the target holds it in its place.
    private func skip(_ part: DownloadPart) throws(ClientError) -> Bool {
        guard let token = part.token, heldTokens.contains(token),
            let index = chunks.firstIndex(where: { $0.range.lowerBound == part.offset }),
            chunks[index].range.count == part.length, chunks[index].isWanted
        else { throw ClientError(.protocolViolation, "a download skips what was asked for") }
        guard chunks[index].held == token else { return false }
        chunks[index].fingerprint = token
        chunks[index].isWanted = false
        return true
    }

    /// Calls `body` for each run of neighbouring chunks that were fetched, with its offset and bytes.
    func forEachRun(_ body: (UInt64, UnsafeRawBufferPointer) throws(ClientError) -> Void) throws(ClientError) {
        guard let buffer else { return }
        var start = 0
        for range in wantedRanges {
            try body(range.offset, UnsafeRawBufferPointer(rebasing: buffer.bytes[start..<start + Int(range.length)]))
            start += Int(range.length)
        }
    }
}
