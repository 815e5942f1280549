internal import CairnCore
internal import Collections

/// What a volume holds in one chunk.
enum Placement: Equatable {
    /// Nothing: it reads as zeros.
    case hole
    /// Written zeros.
    case zeros
    case chunk(Fingerprint)
    /// Data whose fingerprint is not known: partial writes.
    case unknown

    var readsAsZeros: Bool { self == .hole || self == .zeros }
}

/// The part of a ListBlocks listing that a transfer, which goes from front to back, has not passed yet. Pages come in at
/// one end and are used up at the other, so that memory is bounded whatever the volume's size.
struct PlacementMap {
    let chunkSize: ChunkSize
    /// The volume's, in bytes.
    let size: UInt64
    private var blocks: Deque<BlockDescription> = []
    /// Below this all is known.
    private(set) var known: UInt64 = 0

    init(chunkSize: ChunkSize, size: UInt64) {
        self.chunkSize = chunkSize
        self.size = size
    }

    /// Descriptions that wait to be used.
    var count: Int { blocks.count }

    /// The next page of the listing.
    /// - Throws: `protocolViolation` where blocks overlap, go back, or leave the volume.
    mutating func add(_ page: [BlockDescription], isLast: Bool) throws(ClientError) {
        for block in page {
            let (end, overflow) = block.offset.addingReportingOverflow(block.length)
            guard !overflow, end <= size, block.offset >= known, block.length > 0 else {
                throw ClientError(.protocolViolation, "a listing of blocks is out of order at offset \(block.offset)")
            }
            if block.state != .hole { blocks.append(block) }
            known = end
        }
        if isLast { known = size }
    }

    /// There is no more of the listing, though not all is listed: the rest may hold anything.
    mutating func end() {
        if known < size { blocks.append(BlockDescription(offset: known, length: size - known, state: .data)) }
        known = size
    }

    /// The first byte at or after `offset`, below ``known``, of which the listing says anything but hole.
    func firstAllocated(from offset: UInt64) -> UInt64? {
        // At most one block, the one that `offset` lies in, begins before it.
        blocks.first { $0.offset + $0.length > offset }.map { max($0.offset, offset) }
    }

    /// What the chunks of `range` hold: one for each, the range's ends being multiples of the chunk size or the
    /// volume's end. Forgets all that lies before the range's end. The range must be known.
    mutating func take(_ range: Range<UInt64>) -> [Placement] {
        precondition(range.upperBound <= known)
        let first = chunkSize.chunk(at: range.lowerBound).rawValue
        let count = Int(chunkSize.count(for: range.upperBound) - first)
        var placements = [Placement](repeating: .hole, count: count)
        for block in blocks {
            guard block.offset < range.upperBound else { break }
            guard block.offset + block.length > range.lowerBound else { continue }
            let from = max(chunkSize.chunk(at: block.offset).rawValue, first)
            let to = min(chunkSize.count(for: block.offset + block.length), first + UInt64(count))
            for chunk in from..<to { placements[Int(chunk - first)] = placement(of: chunk, in: block) }
        }
        skip(to: range.upperBound)
        return placements
    }

    /// Forgets all that lies before `offset`.
    mutating func skip(to offset: UInt64) {
        while let block = blocks.first, block.offset + block.length <= offset { blocks.removeFirst() }
    }

    private func placement(of chunk: UInt64, in block: BlockDescription) -> Placement {
        let start = chunkSize.offset(of: ChunkIndex(chunk))
        let end = min(start + UInt64(chunkSize.bytes), size)
        guard block.offset <= start, block.offset + block.length >= end else { return .unknown }
        switch block.state {
        case .hole: return .hole
        case .zeros: return .zeros
        case .data:
            // A token is one chunk's.
            guard let token = block.token, block.offset == start, block.offset + block.length == end else {
                return .unknown
            }
            return .chunk(token)
        }
    }
}
