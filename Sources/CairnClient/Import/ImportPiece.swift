internal import CairnCore
internal import CairnCrypto

/// A piece of an import on its way: a range of the volume, what the source holds there, and what is to be done.
// Safety: its steps follow one another, each handed on by the runner's or the claims' lock; `waits` and `parts` are only
// touched under the claims' lock.
final class ImportPiece: @unchecked Sendable {
    /// What is to be done about a chunk.
    enum Task: Equatable {
        case nothing
        /// The source has zeros where the volume holds something else.
        case zeros
        /// The source has a hole there.
        case hole
        /// Its bytes must get there: by this piece…
        case bring(Fingerprint)
        /// …or by another piece that brings the same chunk now: after that its token does.
        case await(Fingerprint)
    }

    let range: Range<UInt64>
    let chunks: [Range<UInt64>]
    let placements: [Placement]
    var tasks: [Task]
    /// The source's bytes; nil of a hole.
    var buffer: Buffer?
    /// Chunks that others bring.
    var waits = 0
    /// What is still to be answered: the piece's own upload, and that of the chunks it waited for.
    var parts = 0

    init(_ range: Range<UInt64>, placements: [Placement], layout: PieceLayout, buffer: Buffer?) {
        self.range = range
        self.placements = placements
        self.buffer = buffer
        chunks = layout.chunks(of: range)
        precondition(chunks.count == placements.count)
        tasks = placements.map { $0.readsAsZeros ? .nothing : .hole }
    }

    /// A chunk's bytes in the buffer.
    func slice(of chunk: Int) -> BufferSlice {
        let start = Int(chunks[chunk].lowerBound - range.lowerBound)
        return BufferSlice(buffer: buffer!, range: start..<start + chunks[chunk].count)
    }

    /// Decides on chunks whose bytes have been read.
    /// - Returns: their fingerprints; nil of zeros.
    func examine(_ chunks: Range<Int>, chunkSize: ChunkSize) -> [Fingerprint?] {
        let bytes = chunks.map { slice(of: $0).bytes }
        let isZero = bytes.map(\.isAllZero)
        let data = zip(bytes, isZero).filter { !$0.1 }.map(\.0)
        var fingerprints = SHA256.hash(each: data, paddedTo: chunkSize.bytes)[...]
        return zip(chunks, isZero).map { chunk, isZero in
            guard !isZero else {
                tasks[chunk] = placements[chunk].readsAsZeros ? .nothing : .zeros
                return nil
            }
            let fingerprint = fingerprints.removeFirst()
            tasks[chunk] = placements[chunk] == .chunk(fingerprint) ? .nothing : .bring(fingerprint)
            return fingerprint
        }
    }

    /// The fingerprints that this piece brings, in order.
    var brought: [Fingerprint] {
        tasks.compactMap { if case .bring(let fingerprint) = $0 { fingerprint } else { nil } }
    }

    /// Whether this piece has an upload of its own to make.
    var hasOwnUpload: Bool {
        tasks.contains { task in
            switch task {
            case .zeros, .hole, .bring: true
            case .nothing, .await: false
            }
        }
    }
}
