public import CairnCore
import CairnCrypto

/// Chunks that a snapshot in progress is to hold before it may be complete (SPEC S5).
///
/// Each is a row of the index; the snapshot counts those that are missing. A row is *there* when the snapshot's own entry holds the
/// chunk; writes keep that exact. One that holds it by inheritance is found when completion is asked for: the snapshot is then
/// the earliest outstanding one, so that nothing below it changes any more.
extension Transaction {
    /// Adds rows. Of two for one chunk the later counts.
    public func expect(_ chunks: [(ChunkIndex, Fingerprint)], in snapshot: SnapshotRecord) throws(StoreError) {
        guard var record = try self.snapshot(snapshot.id) else {
            throw StoreError(.invalid, "\(snapshot.id) is not there")
        }
        for (chunk, token) in chunks {
            let key = Key.expected(record.id, chunk)
            let old = try overlay.get(key).flatMap(ExpectedRow.init)
            let row = ExpectedRow(token: token, isThere: try holds(token, record, chunk))
            overlay.put(key, row.encoded)
            if old?.isThere == false { record.missing -= 1 }
            if !row.isThere { record.missing += 1 }
        }
        record.isExpecting = true
        put(record)
    }

    /// After a write of the chunk at the target: whether what was expected is there now.
    func checkExpected(_ chunk: ChunkIndex, of target: WriteTarget) throws(StoreError) {
        guard target.isExpecting, let id = target.snapshot else { return }
        let key = Key.expected(id, chunk)
        guard var row = try overlay.get(key).flatMap(ExpectedRow.init) else { return }
        let isThere = try holds(row.token, target, chunk)
        guard isThere != row.isThere else { return }
        row.isThere = isThere
        overlay.put(key, row.encoded)
        countMissing(id, isThere ? -1 : 1)
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

    /// A step of looking for what is there by inheritance.
    /// - Parameter from: the first chunk to look at.
    /// - Returns: where to go on, nil at the end; and whether parts of a chunk wait to be merged first.
    public func countInherited(
        in snapshot: SnapshotRecord,
        from: ChunkIndex,
        limit: Int
    ) throws(StoreError) -> (next: ChunkIndex?, isMerging: Bool) {
        let page = try expectedRows(of: snapshot.id, from: from, limit: limit)
        var isMerging = false
        for (chunk, row) in page.rows where !row.isThere {
            switch try shown(row.token, snapshot, chunk) {
            case .same:
                var row = row
                row.isThere = true
                overlay.put(Key.expected(snapshot.id, chunk), row.encoded)
                countMissing(snapshot.id, -1)
            case .parts:
                isMerging = true
                if let entry = try entry(snapshot.lineage, chunk, snapshot.version), !entry.patches.isEmpty {
                    mergeSoon(PatchedPlace(lineage: snapshot.lineage, version: snapshot.version, chunk: chunk))
                }
            case .other: break
            }
        }
        return (page.next, isMerging)
    }

    /// A step of removing the rows of a snapshot; true when none is left.
    func forgetExpectedStep(_ id: SnapshotID) throws(StoreError) -> Bool {
        try deleteSome(Key(.expected).then(id.uuid).bytes)
    }
}

extension ManifestReader {
    enum Shown { case same, parts, other }

    /// What the snapshot shows at a chunk, against what was expected.
    func shown(_ token: Fingerprint, _ snapshot: SnapshotRecord, _ chunk: ChunkIndex) throws(StoreError) -> Shown {
        let resolved = try resolve(snapshot.lineage, snapshot.version, chunk)
        guard resolved.patches.isEmpty else { return .parts }
        switch resolved.base {
        case .data(let key, _): return key.fingerprint == token ? .same : .other
        case .zeros, .hole: return token == ZeroChunk.fingerprint(snapshot.chunkSize) ? .same : .other
        }
    }

    struct ExpectedPage {
        var rows: [(ChunkIndex, ExpectedRow)] = []
        /// Where to go on; nil at the end.
        var next: ChunkIndex?
    }

    func expectedRows(of id: SnapshotID, from: ChunkIndex, limit: Int) throws(StoreError) -> ExpectedPage {
        let prefix = Key(.expected).then(id.uuid).bytes
        let cursor = index.makeCursor()
        cursor.seek(Key.expected(id, from))
        var page = ExpectedPage()
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .expected),
            key.takeID() != nil, let chunk = key.take(UInt64.self).map({ ChunkIndex($0) })
        {
            guard page.rows.count < limit else {
                page.next = chunk
                break
            }
            guard let row = ExpectedRow(Array(cursor.value)) else {
                throw StoreError(.damaged, "what is expected of \(id) does not decode")
            }
            page.rows.append((chunk, row))
            cursor.next()
        }
        return page
    }

    /// What is expected of a snapshot and missing, in order (SPEC R1).
    /// - Parameters:
    ///   - from: the first chunk to look at.
    ///   - limit: rows to look at; those that are there are left out of the answer.
    /// - Returns: where to go on, nil at the end.
    public func missing(
        of snapshot: SnapshotRecord,
        from: ChunkIndex,
        limit: Int
    ) throws(StoreError) -> (chunks: [(ChunkIndex, Fingerprint)], next: ChunkIndex?) {
        let page = try expectedRows(of: snapshot.id, from: from, limit: limit)
        var chunks: [(ChunkIndex, Fingerprint)] = []
        for (chunk, row) in page.rows where !row.isThere {
            if try shown(row.token, snapshot, chunk) != .same { chunks.append((chunk, row.token)) }
        }
        return (chunks, page.next)
    }
}

/// A row of what is expected.
struct ExpectedRow: Hashable {
    let token: Fingerprint
    /// Whether the snapshot's own entry holds it.
    var isThere: Bool

    init(token: Fingerprint, isThere: Bool) { (self.token, self.isThere) = (token, isThere) }

    init?(_ value: [UInt8]) {
        guard value.count == 33, let token = Fingerprint(bytes: Array(value.prefix(32))) else { return nil }
        self.init(token: token, isThere: value[32] == 1)
    }

    var encoded: [UInt8] { token.bytes + [isThere ? 1 : 0] }
}
