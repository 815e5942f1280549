/// Which groups an older copy of the index would want again: segments that hold such are not recycled, though nothing in them is
/// alive.
public enum LogRetention: Hashable, Sendable {
    /// None: the index alone counts.
    case none
    /// All that came after a position.
    case after(LogPosition)
    /// All there have ever been: there is no copy yet.
    case all

    /// Whether a segment must stay. LSNs rise through a shard's life, so one whose first group is no later than the position ends
    /// before it, unless the position lies in it.
    /// - Parameters:
    ///   - first: the LSN of its first group; nil where it has never had one.
    ///   - last: the LSN of its last group, where that is known.
    func needs(_ segment: SegmentID, first: LSN?, last: LSN?) -> Bool {
        switch self {
        case .none: false
        case .all: first != nil
        case .after(let position):
            segment == position.segment || (last ?? first).map { $0 > position.lsn } ?? false
        }
    }
}

extension SegmentLog {
    /// Whether a closed segment must stay for the sake of `retention`. Reads its header where what it begins with is not known:
    /// for the I/O or a background queue.
    /// - Throws: `.io`.
    public func isNeeded(_ segment: SegmentID, by retention: LogRetention) throws(LogError) -> Bool {
        guard retention != .none else { return false }
        let (known, began) = state.withLock { ($0.segments[segment], $0.began) }
        guard let known, !known.isMissing else { return false }
        var first = known.firstLSN
        if first == nil, known.lastLSN == nil {
            let header = try SegmentHeader.read(segment, identity: identity, from: storage)
            // Damaged: then all that is known is that it was written before the log was opened.
            first = header?.firstLSN ?? began
            let found = first
            state.withLock { $0.note(segment, firstLSN: found) }
        }
        return retention.needs(segment, first: first, last: known.lastLSN)
    }
}
