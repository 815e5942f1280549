internal import CairnCore
internal import CairnCrypto

/// Brings the fingerprints of a transfer's pieces, which come in any order, into theirs, and computes the seal of the whole.
/// What waits for an earlier piece is bounded by the pieces that are under way.
struct SealCollector: Sendable {
    private enum Run {
        case zeros(UInt64)
        /// Nil: zeros.
        case leaves([Fingerprint?])
    }
    private let chunkSize: ChunkSize
    private var builder: SealBuilder
    /// By their first chunk.
    private var waiting: [UInt64: Run] = [:]

    init(size: UInt64, chunkSize: ChunkSize) {
        self.chunkSize = chunkSize
        builder = SealBuilder(size: size, chunkSize: chunkSize)
    }

    /// The chunks of a range that begins at a chunk's start; nil: zeros.
    mutating func add(_ leaves: [Fingerprint?], at range: Range<UInt64>) { add(.leaves(leaves), at: range) }

    /// A range that reads as zeros.
    mutating func add(zeros range: Range<UInt64>) {
        let first = chunkSize.chunk(at: range.lowerBound).rawValue
        add(.zeros(chunkSize.count(for: range.upperBound) - first), at: range)
    }

    private mutating func add(_ run: Run, at range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        waiting[chunkSize.chunk(at: range.lowerBound).rawValue] = run
        while let run = waiting.removeValue(forKey: builder.leaves) {
            switch run {
            case .zeros(let count): builder.add(zeros: count)
            case .leaves(let leaves):
                for leaf in leaves {
                    if let leaf { builder.add(leaf) } else { builder.add(zeros: 1) }
                }
            }
        }
    }

    /// The seal; everything must have come.
    func seal() -> Fingerprint { builder.finish() }
}
