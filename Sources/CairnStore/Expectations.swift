public import CairnCore
import CairnCrypto

/// Chunks that a snapshot in progress is to hold before it may be complete (SPEC S5).
///
/// Each is a row of the index; the snapshot counts those that are missing. A row is *there* when the snapshot's own entry holds the
/// chunk: writes keep that exact. What is there in another way — by inheritance, or in parts — is found when completion is asked for:
/// ``Shard/expected(of:from:limit:)`` looks, off the shard's queue, and ``Transaction/count(_:in:)`` writes down what is still so.
extension Transaction {
    /// Adds rows. Of two for one chunk the later counts.
    public func expect(_ chunks: [(ChunkIndex, Fingerprint)], in snapshot: SnapshotRecord) throws(StoreError) {
        guard var record = try self.snapshot(snapshot.id) else {
            throw StoreError(.invalid, "\(snapshot.id) is not there")
        }
        for (chunk, token) in chunks {
            let key = Key.expected(record.id, chunk)
            let old = try overlay.get(key).flatMap(ExpectedRow.init)
            let row = ExpectedRow(token: token, presence: try holds(token, record, chunk) ? .own : .missing)
            overlay.put(key, row.encoded)
            if old?.presence == .missing { record.missing -= 1 }
            if row.presence == .missing { record.missing += 1 }
        }
        record.isExpecting = true
        put(record)
    }

    /// After a write of the chunk at the target: whether what was expected is there now.
    func checkExpected(_ chunk: ChunkIndex, of target: WriteTarget) throws(StoreError) {
        guard target.isExpecting, let id = target.snapshot, let row = try expectedRow(id, chunk) else { return }
        try set(row, to: try holds(row.token, target, chunk) ? .own : .missing, id, chunk)
    }

    /// After a write of a part: whether the chunk is what was expected is seen when completion is asked for.
    func missExpected(_ chunk: ChunkIndex, of target: WriteTarget) throws(StoreError) {
        guard target.isExpecting, let id = target.snapshot, let row = try expectedRow(id, chunk) else { return }
        try set(row, to: .missing, id, chunk)
    }

    /// Looked up without putting the gathered parts into the overlay: a call that writes many would do so for each.
    private func expectedRow(_ id: SnapshotID, _ chunk: ChunkIndex) throws(StoreError) -> ExpectedRow? {
        try unsettled(Key.expected(id, chunk)).flatMap(ExpectedRow.init)
    }

    private func set(_ row: ExpectedRow, to presence: ExpectedRow.Presence, _ id: SnapshotID, _ chunk: ChunkIndex)
        throws(StoreError)
    {
        guard row.presence != presence else { return }
        overlay.put(Key.expected(id, chunk), ExpectedRow(token: row.token, presence: presence).encoded)
        if row.presence == .missing { countMissing(id, -1) }
        if presence == .missing { countMissing(id, 1) }
    }

    private func holds(_ token: Fingerprint, _ snapshot: SnapshotRecord, _ chunk: ChunkIndex) throws(StoreError)
        -> Bool
    { try holds(token, WriteTarget(snapshot), chunk) }

    private func holds(_ token: Fingerprint, _ target: WriteTarget, _ chunk: ChunkIndex) throws(StoreError) -> Bool {
        guard let entry = try entry(target.lineage, chunk, target.version), entry.patches.isEmpty else { return false }
        switch entry.base {
        case .data(let fingerprint, _): return fingerprint == token
        case .zeros, .hole: return token == ZeroChunk.fingerprint(target.chunkSize)
        case .inherit: return false
        }
    }

    /// Counts what ``Shard/expected(of:from:limit:)`` found of a snapshot in progress.
    /// - Returns: whether all of it is still as it was found; what changed meanwhile is left as it is, to be looked at again.
    public func count(_ page: ExpectedPage, in snapshot: SnapshotRecord) throws(StoreError) -> Bool {
        var isAsFound = true
        for found in page.rows {
            guard let row = try expectedRow(snapshot.id, found.chunk), row == found.row,
                try resolve(snapshot.lineage, snapshot.version, found.chunk) == found.resolved
            else {
                isAsFound = false
                continue
            }
            let presence: ExpectedRow.Presence = found.isShown ? (page.isFinal ? .settled : .shown) : .missing
            try set(row, to: presence, snapshot.id, found.chunk)
        }
        return isAsFound
    }

    /// A step of removing the rows of a snapshot; true when none is left.
    func forgetExpectedStep(_ id: SnapshotID, _ place: inout [UInt8]?) throws(StoreError) -> Bool {
        try deleteSome(Key(.expected).then(id.uuid).bytes, from: &place)
    }
}

/// What is expected of a snapshot, and what it shows there.
public struct ExpectedPage: Sendable {
    struct Row: Sendable {
        let chunk: ChunkIndex
        let row: ExpectedRow
        let resolved: ResolvedChunk
        /// Whether the snapshot shows what is expected.
        let isShown: Bool
    }
    var rows: [Row] = []
    /// Whether nothing below the snapshot changes any more.
    fileprivate let isFinal: Bool
    /// Where to go on; nil at the end.
    public fileprivate(set) var next: ChunkIndex?

    /// What is not there, in order.
    public var missing: [(chunk: ChunkIndex, token: Fingerprint)] {
        rows.filter { !$0.isShown }.map { ($0.chunk, $0.row.token) }
    }
}

extension Shard {
    /// Looks at what is expected of a snapshot, apart from what its own entries are known to hold. Any thread; blocks on the disk, for
    /// chunks that came in parts are read and hashed.
    /// - Parameters:
    ///   - from: the first chunk to look at.
    ///   - limit: rows to look at.
    ///   - bytes: to read and hash, about: the page ends there.
    ///   - rule: which data the asker may have; nil: all. What it may not have is missing, whatever it is: the answer would tell
    ///     whether a guess at it is right (SPEC C3, D5).
    /// - Throws: `.damaged`, `.io`.
    public func expected(
        of snapshot: SnapshotRecord,
        from: ChunkIndex,
        limit: Int,
        bytes: Int = .max,
        rule: ExportRule? = nil
    ) throws(StoreError) -> ExpectedPage {
        let view = makeView()
        // None that takes data is below it, neither in its own volume nor in what that stands on: it stays so.
        let takesData = try view.earliestOutstandingVersion(of: snapshot.volume)
        let isFinal = try view.isSettled(snapshot.lineage) ? takesData == snapshot.version : false
        let listed = try view.expectedRows(of: snapshot.id, from: from, limit: limit)
        var page = ExpectedPage(isFinal: isFinal, next: listed.next)
        var hashed = 0
        for (chunk, row) in listed.rows where row.presence == .missing || row.presence == .shown {
            let resolved = try view.resolve(snapshot.lineage, snapshot.version, chunk)
            if hashed >= bytes {
                page.next = chunk
                break
            }
            let isShown =
                if let rule, !rule.missing(for: resolved).isEmpty {
                    false
                } else if resolved.patches.isEmpty {
                    resolved.fingerprint(snapshot.chunkSize) == row.token
                } else {
                    try fingerprint(of: chunk, in: snapshot) == row.token
                }
            if !resolved.patches.isEmpty { hashed += snapshot.chunkSize.bytes }
            page.rows.append(.init(chunk: chunk, row: row, resolved: resolved, isShown: isShown))
        }
        return page
    }

    /// Of a chunk as the snapshot shows it: read and hashed.
    func fingerprint(of chunk: ChunkIndex, in snapshot: SnapshotRecord) throws(StoreError) -> Fingerprint {
        let start = snapshot.chunkSize.offset(of: chunk)
        let end = min(start + UInt64(snapshot.chunkSize.bytes), snapshot.size)
        let pieces = try read(ReadSource(snapshot), [start..<end], acceptsLZ4: false)
        guard let piece = pieces.first, case .plain(let bytes, _) = piece.content else {
            return ZeroChunk.fingerprint(snapshot.chunkSize)
        }
        return SHA256.hash(bytes.bytes, padding: snapshot.chunkSize.bytes - bytes.count)
    }
}

extension ManifestReader {
    func expectedRows(of id: SnapshotID, from: ChunkIndex, limit: Int) throws(StoreError)
        -> (rows: [(ChunkIndex, ExpectedRow)], next: ChunkIndex?)
    {
        let prefix = Key(.expected).then(id.uuid).bytes
        let cursor = index.makeCursor(within: prefix)
        cursor.seek(Key.expected(id, from))
        var rows: [(ChunkIndex, ExpectedRow)] = []
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .expected),
            key.takeID() != nil, let chunk = key.take(UInt64.self).map({ ChunkIndex($0) })
        {
            guard rows.count < limit else { return (rows, chunk) }
            guard let row = ExpectedRow(Array(cursor.value)) else {
                throw StoreError(.damaged, "what is expected of \(id) does not decode")
            }
            rows.append((chunk, row))
            cursor.next()
        }
        return (rows, nil)
    }
}

/// A row of what is expected.
struct ExpectedRow: Hashable {
    enum Presence: UInt8 {
        case missing = 0
        /// The snapshot's own entry holds it.
        case own = 1
        /// The snapshot showed it when it was last looked at: by inheritance, or in parts. What is below it may have changed since.
        case shown = 2
        /// The same, and nothing below it changes any more.
        case settled = 3
    }
    let token: Fingerprint
    let presence: Presence

    init(token: Fingerprint, presence: Presence) { (self.token, self.presence) = (token, presence) }

    init?(_ value: [UInt8]) {
        guard value.count == 33, let token = Fingerprint(bytes: Array(value.prefix(32))),
            let presence = Presence(rawValue: value[32])
        else { return nil }
        self.init(token: token, presence: presence)
    }

    var encoded: [UInt8] { token.bytes + [presence.rawValue] }
}
