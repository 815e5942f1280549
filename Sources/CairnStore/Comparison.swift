public import CairnCore
import CairnCrypto

/// What differs between two volumes or snapshots (SPEC R1), found in time proportional to what was written in between where they
/// have a common ancestor, and by a walk through both where they have none.
///
/// Not Sendable: it looks at views of its own. Make one for each page.
public struct Comparison {
    /// What is compared, and where it lives.
    public struct Side {
        public let shard: Shard
        public let source: ReadSource
        /// Which of its data the asker may know of (SPEC D5); nil: all.
        public let rule: ExportRule?
        let view: ReadView

        public init(_ shard: Shard, _ source: ReadSource, rule: ExportRule? = nil) {
            (self.shard, self.source, self.rule) = (shard, source, rule)
            view = shard.makeView()
        }
    }

    /// Why a comparison cannot be made, and of which side: who asks may know more of one than of the other.
    public struct Failure: Error {
        public let isOlder: Bool
        public let error: StoreError
    }

    /// Bytes of chunks that one page reads, where fingerprints do not tell whether they differ.
    private static let readBytes = 16 << 20

    let older: Side
    let newer: Side

    public init(older: Side, newer: Side) {
        self.older = older
        self.newer = newer
    }

    /// Chunks of either side, as the newer one is cut: beyond its end the older one may hold something.
    public var chunkCount: UInt64 { newer.source.chunkSize.count(for: max(older.source.size, newer.source.size)) }

    /// The chunks whose content differs, in order, each once, as they are in the newer side.
    /// - Parameters:
    ///   - start: the first chunk to look at.
    ///   - limit: the most entries to give; ten times as many are looked at.
    /// - Returns: the entries, and where to go on; nil at the end.
    /// - Throws: `.damaged`, `.io`: where parts of chunks must be read to be compared; `.forbidden`.
    public func changes(from start: ChunkIndex, limit: Int) throws(Failure) -> (
        entries: [BlockEntry], next: ChunkIndex?
    ) {
        // What cannot be found out of the two together is told as the newer one's.
        var candidates = try ofNewer { () throws(StoreError) in try Candidates(self) }
        let names = try ofNewer { () throws(StoreError) in
            try newer.view.accountNames(along: newer.source.lineage)
        }
        var found: [BlockEntry] = []
        var position = start
        var (looked, read) = (0, 0)
        while true {
            let next = try ofNewer { () throws(StoreError) in try candidates.next(from: position) }
            guard let chunk = next, chunk.rawValue < chunkCount else { return (found, nil) }
            guard found.count < limit, looked < limit * 10, read < Self.readBytes else { return (found, chunk) }
            looked += 1
            let present = try ofNewer { () throws(StoreError) in
                let present = try newer.resolve(chunk)
                try newer.rule?.check(present)
                return present
            }
            if try !isSame(chunk, present, candidates.areRelated, &read) {
                found.append(BlockEntry(chunk, present, names))
            }
            position = ChunkIndex(chunk.rawValue + 1)
        }
    }

    private func ofOlder<Value>(_ body: () throws(StoreError) -> Value) throws(Failure) -> Value {
        do throws(StoreError) { return try body() } catch { throw Failure(isOlder: true, error: error) }
    }

    private func ofNewer<Value>(_ body: () throws(StoreError) -> Value) throws(Failure) -> Value {
        do throws(StoreError) { return try body() } catch { throw Failure(isOlder: false, error: error) }
    }

    /// - Parameter isWritten: that the chunk was written since says nothing of what the older side holds.
    private func isSame(_ chunk: ChunkIndex, _ present: ResolvedChunk, _ isWritten: Bool, _ read: inout Int)
        throws(Failure) -> Bool
    {
        let chunkSize = newer.source.chunkSize
        guard older.source.chunkSize == chunkSize else {
            read += max(chunkSize.bytes, older.source.chunkSize.bytes)
            return try readsSame(chunk)
        }
        let past = try ofOlder { () throws(StoreError) in try older.resolve(chunk) }
        if let rule = older.rule, !rule.missing(for: past).isEmpty {
            // Never compared with what the asker may not know: whether the two are the same would tell it.
            if isWritten { return false }
            try ofOlder { () throws(StoreError) in try rule.check(past) }
        }
        if present.patches.isEmpty, past.patches.isEmpty {
            return present.fingerprint(chunkSize) == past.fingerprint(chunkSize)
        }
        if older.shard === newer.shard, present.patches == past.patches, present.isBase(of: past) { return true }
        read += chunkSize.bytes
        return try readsSame(chunk)
    }

    /// Whether both sides have the same bytes where the newer one has the chunk.
    private func readsSame(_ chunk: ChunkIndex) throws(Failure) -> Bool {
        let chunkSize = newer.source.chunkSize
        let start = chunkSize.offset(of: chunk)
        let range = start..<start + UInt64(chunkSize.bytes)
        let past = try ofOlder { () throws(StoreError) in try older.bytes(range) }
        let present = try ofNewer { () throws(StoreError) in try newer.bytes(range) }
        return past == present
    }
}

extension Comparison.Side {
    fileprivate func resolve(_ chunk: ChunkIndex) throws(StoreError) -> ResolvedChunk {
        guard source.chunkSize.offset(of: chunk) < source.size else { return ResolvedChunk(base: .hole, patches: []) }
        return try view.resolve(source.lineage, source.version, chunk)
    }

    /// Zeros beyond the end, as fingerprints have it (SPEC V6).
    fileprivate func bytes(_ range: Range<UInt64>) throws(StoreError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: range.count)
        let end = min(range.upperBound, source.size)
        guard range.lowerBound < end else { return bytes }
        for piece in try shard.read(source, [range.lowerBound..<end], acceptsLZ4: false, rule: rule) {
            guard case .plain(let slice, _) = piece.content else { continue }
            let place = Int(piece.offset - range.lowerBound)
            bytes.replaceSubrange(place..<place + piece.length, with: slice.bytes)
        }
        return bytes
    }
}

extension ResolvedChunk {
    /// Of a chunk without parts.
    func fingerprint(_ chunkSize: ChunkSize) -> Fingerprint {
        switch base {
        case .data(let key, _): key.fingerprint
        case .zeros, .hole: ZeroChunk.fingerprint(chunkSize)
        }
    }

    fileprivate func isBase(of other: ResolvedChunk) -> Bool {
        switch (base, other.base) {
        case (.data(let key, _), .data(let otherKey, _)): key.fingerprint == otherKey.fingerprint
        case (.data, _), (_, .data): false
        default: true
        }
    }
}

/// The chunks that two sides may differ in, in order.
private struct Candidates {
    private let comparison: Comparison
    /// What was written on the way from the common ancestor to either side; nil where there is none.
    private var written: WrittenSince?
    /// Chunks of the common ancestor that only one of the sides lets show through, for it is larger.
    private var beyond: (lineage: LineageID, chunks: Range<UInt64>)?

    /// Whether only what was written since the common ancestor is looked at.
    var areRelated: Bool { written != nil }

    init(_ comparison: Comparison) throws(StoreError) {
        self.comparison = comparison
        let (older, newer) = (comparison.older, comparison.newer)
        guard older.shard === newer.shard, older.source.chunkSize == newer.source.chunkSize else { return }
        let past = try older.view.levels(of: older.source)
        let present = try newer.view.levels(of: newer.source)
        guard let index = past.firstIndex(where: { level in present.contains { $0.lineage == level.lineage } }),
            let other = present.firstIndex(where: { $0.lineage == past[index].lineage })
        else { return }
        var since = WrittenSince(newer.view)
        for level in past[..<index] + present[..<other] {
            since.add(level.lineage, DataVersion(0)...level.version)
        }
        let (common, low) = (past[index].lineage, min(past[index].version, present[other].version))
        let high = max(past[index].version, present[other].version)
        if low < high {
            // What a cancelled version wrote is seen by it alone: by the lower one, if it is that.
            let isCancelled = try newer.view.lineage(common).cancelled.contains(low)
            since.add(common, (isCancelled ? low : low.next)...high)
        }
        written = since
        let ends = [past[index].end, present[other].end].map(newer.source.chunkSize.count)
        if ends[0] != ends[1] { beyond = (common, ends.min()!..<ends.max()!) }
    }

    mutating func next(from chunk: ChunkIndex) throws(StoreError) -> ChunkIndex? {
        let (older, newer) = (comparison.older, comparison.newer)
        guard written != nil else {
            let present = try newer.view.nextEntry(newer.source.lineage, from: chunk)
            // The older side may be cut otherwise: a chunk of its own that begins before may reach in here.
            let start = newer.source.chunkSize.offset(of: chunk)
            let past = try older.view.nextEntry(older.source.lineage, from: older.source.chunkSize.chunk(at: start))
            let place = past.map { newer.source.chunkSize.chunk(at: max(start, older.source.chunkSize.offset(of: $0))) }
            return [present, place].compactMap(\.self).min()
        }
        let change = try written!.next(from: chunk)
        guard let beyond, chunk.rawValue < beyond.chunks.upperBound else { return change }
        let from = ChunkIndex(max(chunk.rawValue, beyond.chunks.lowerBound))
        let shown = try newer.view.nextEntry(beyond.lineage, from: from)
        guard let shown, shown.rawValue < beyond.chunks.upperBound else { return change }
        return min(change ?? shown, shown)
    }
}

extension ManifestReader {
    /// A version of a lineage as something that stands on it sees it.
    struct Level {
        let lineage: LineageID
        let version: DataVersion
        /// Bytes that show through from here.
        let end: UInt64
    }

    /// What a source reads: its own lineage, then its ancestors'.
    func levels(of source: ReadSource) throws(StoreError) -> [Level] {
        var levels = [Level(lineage: source.lineage, version: source.version, end: source.size)]
        while let parent = try lineage(levels[levels.count - 1].lineage).parent {
            let end = min(levels[levels.count - 1].end, parent.size)
            levels.append(Level(lineage: parent.lineage, version: parent.version, end: end))
        }
        return levels
    }

    /// The names of the accounts whose data the lineage, or one that it stands on, may hold.
    func accountNames(along lineage: LineageID) throws(StoreError) -> [AccountNumber: AccountID] {
        var names: [AccountNumber: AccountID] = [:]
        var next: LineageID? = lineage
        while let lineage = next {
            let record = try self.lineage(lineage)
            names[record.account] = record.owner
            next = record.parent?.lineage
        }
        return names
    }
}
