internal import CairnCore
internal import Synchronization

/// Notes how a source differs from what is there, while nothing is sent. It stops when there is more than a list can hold.
final class SourceScan: Sendable {
    private struct State {
        var changes: [Change] = []
        var chunks = 0
    }
    /// Neighbouring chunks that differ; what they are to become, nil: zeros.
    struct Change: Sendable {
        var range: Range<UInt64>
        var fingerprints: [Fingerprint?]
    }
    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: chunks.
    init(limit: Int) { self.limit = limit }

    /// Whether more differs than fits: the scan is of no use then.
    var isFull: Bool { state.withLock { $0.chunks > limit } }

    /// A piece whose tasks are set.
    /// - Returns: how many bytes of data in it differ.
    func note(_ piece: ImportPiece) -> UInt64 {
        var changes: [Change] = []
        var changed: UInt64 = 0
        for (chunk, task) in piece.tasks.enumerated() {
            let fingerprint: Fingerprint?
            switch task {
            case .nothing: continue
            case .zeros, .hole: fingerprint = nil
            case .bring(let brought), .await(let brought): fingerprint = brought
            }
            let range = piece.chunks[chunk]
            if fingerprint != nil { changed += UInt64(range.count) }
            if let last = changes.last, last.range.upperBound == range.lowerBound {
                changes[changes.count - 1].range = last.range.lowerBound..<range.upperBound
                changes[changes.count - 1].fingerprints.append(fingerprint)
            } else {
                changes.append(Change(range: range, fingerprints: [fingerprint]))
            }
        }
        state.withLock { state in
            state.chunks += changes.reduce(0) { $0 + $1.fingerprints.count }
            if state.chunks <= limit { state.changes += changes } else { state.changes = [] }
        }
        return changed
    }

    /// After the scan; nil where it is full.
    func changes(chunkSize: ChunkSize) -> SourceChanges? {
        state.withLock { state in
            guard state.chunks <= limit else { return nil }
            let sorted = state.changes.sorted { $0.range.lowerBound < $1.range.lowerBound }
            return SourceChanges(sorted, chunkSize: chunkSize)
        }
    }
}

/// How a source differs from what is there, as a scan found it.
struct SourceChanges: Sendable {
    private let changes: [SourceScan.Change]
    private let chunkSize: ChunkSize

    init(_ changes: [SourceScan.Change], chunkSize: ChunkSize) {
        self.changes = changes
        self.chunkSize = chunkSize
    }

    /// Bytes of the source.
    var bytes: UInt64 { changes.reduce(0) { $0 + $1.range.upperBound - $1.range.lowerBound } }

    /// The chunks of data that will come.
    var placements: [ChunkPlacement] {
        changes.flatMap { change in
            change.fingerprints.enumerated().compactMap { index, fingerprint in
                fingerprint.map { ChunkPlacement(offset: offset(index, of: change), token: $0) }
            }
        }
    }

    /// The next part that differs, at or after `position`; nil: none does.
    func next(from position: UInt64) -> Range<UInt64>? {
        let index = firstIndex(after: position)
        guard index < changes.count else { return nil }
        return max(changes[index].range.lowerBound, position)..<changes[index].range.upperBound
    }

    /// Where a piece, that lies in one of the changes, is not any more what the scan saw.
    func surprise(_ piece: ImportPiece, _ fingerprints: [Fingerprint?]) -> UInt64? {
        let change = changes[firstIndex(after: piece.range.lowerBound)]
        let first = Int((piece.range.lowerBound - change.range.lowerBound) >> UInt64(chunkSize.exponent))
        for (index, fingerprint) in fingerprints.enumerated() where change.fingerprints[first + index] != fingerprint {
            return offset(first + index, of: change)
        }
        return nil
    }

    static func moved(_ name: String, at offset: UInt64) -> ClientError {
        ClientError(.source, "\(name) was written to while it was read: it is not what it was at offset \(offset)")
    }

    private func offset(_ index: Int, of change: SourceScan.Change) -> UInt64 {
        change.range.lowerBound + UInt64(index) << UInt64(chunkSize.exponent)
    }

    /// The first change that ends after `position`.
    private func firstIndex(after position: UInt64) -> Int {
        var (low, high) = (0, changes.count)
        while low < high {
            let middle = (low + high) / 2
            if changes[middle].range.upperBound > position { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
