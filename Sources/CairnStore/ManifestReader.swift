public import CairnCore
import CairnCrypto
import CairnLog

/// What a shard's index says: the same questions for a ``ReadView`` (any thread) and for a ``Transaction`` (its own changes
/// included).
public class ManifestReader {
    private let source: any IndexReading
    private var ownCursor: IndexCursor?
    private var lineages: [LineageID: LineageRecord] = [:]
    /// Every look-up of a chunk begins with its account's number.
    private var accounts: [AccountID: AccountNumber] = [:]
    /// Of a lineage, chunks that no version has an entry for, as a search has shown: data is mostly read and written in order, and
    /// one search then does for all of them.
    private var gaps: [LineageID: Range<ChunkIndex>] = [:]
    /// What is known of which versions must stay readable.
    private var stretches: [LineageID: [Stretch]] = [:]

    /// Keys looked up in the index so far, and in another one for it: a test counts them, for what a caller may not see must cost what a
    /// missing thing costs (SPEC C2).
    package private(set) var lookups = 0

    /// Searches through manifests so far: a test counts them, for through a chain of clones they must not be chunks times clones.
    private(set) var searches = 0

    /// Whether the shard has, or may get, marks of damage: where not, nothing is looked up for them.
    let mayHaveDamage: Bool

    /// Whether what would have to be read from the disk is refused, `.notInMemory`.
    public let isInMemory: Bool

    init(_ source: any IndexReading, mayHaveDamage: Bool, isInMemory: Bool = false) {
        self.source = source
        self.isInMemory = isInMemory
        self.mayHaveDamage = mayHaveDamage
    }

    func look(up key: [UInt8]) throws(StoreError) -> [UInt8]? {
        lookups += 1
        return try index.get(key)
    }

    /// Another index was asked for what this one was.
    package func addLookups(of other: ManifestReader) { lookups += other.lookups }

    /// What is asked; changes that a transaction still gathers are in it.
    var index: any IndexReading {
        settle()
        return source
    }

    /// Called before the index is looked at.
    func settle() {}

    /// Changes of what an account has that are not in the index yet.
    func pendingUsage(of account: AccountNumber) -> UsageDelta { UsageDelta() }

    /// A cursor for short seeks; nothing else may have moved it between a seek and its use.
    var seeker: IndexCursor {
        settle()
        if let ownCursor { return ownCursor }
        let cursor = source.makeCursor()
        ownCursor = cursor
        return cursor
    }

    /// How many lineages on top of one another are walked at a time; those below are looked up entry by entry.
    static let walkedLevels = 8

    /// Of a walk through a lineage's manifest, where there is one: so it steps on from entry to entry, and need not seek each.
    /// - Parameter beginning: whether a walk begins, if none is under way.
    func walkCursor(_ lineage: LineageID, beginning: Bool) -> IndexCursor? { nil }

    /// - Parameter account: who asks, if a client does: of another's volume nothing is kept or found decoded, so that it is looked up
    ///   as one that is not there (SPEC C2).
    public func volume(_ id: VolumeID, for account: AccountID? = nil) throws(StoreError) -> VolumeRecord? {
        let hot = source.hotRecords
        func mayBeHot(_ record: VolumeRecord) -> Bool { account == nil || record.account == account }
        if let known = hot?.volume(id), mayBeHot(known) { return known }
        guard let bytes = try look(up: Key.volume(id)) else { return nil }
        let record = try VolumeRecord.decode(bytes)
        if mayBeHot(record) { hot?.keep(record, size: bytes.count) }
        return record
    }

    public func snapshot(_ id: SnapshotID) throws(StoreError) -> SnapshotRecord? {
        guard let bytes = try look(up: Key.snapshot(id)) else { return nil }
        return try SnapshotRecord.decode(bytes)
    }

    public func idempotencyRecord(account: AccountID, key: [UInt8]) throws(StoreError) -> IdempotencyRecord? {
        guard let bytes = try look(up: Key.idempotency(account, key)) else { return nil }
        return try IdempotencyRecord.decode(bytes)
    }

    /// An account's volumes, oldest first.
    /// - Parameters:
    ///   - after: goes on behind this place of the order.
    ///   - bytes: with the first volume with which their ``VolumeRecord/listedBytes`` come to as many, it ends.
    public func volumes(
        of account: AccountID,
        after: (createdAt: UInt64, id: UUID128)? = nil,
        limit: Int,
        bytes: Int = .max
    ) throws(StoreError) -> [VolumeRecord] {
        guard let number = try accountNumber(account) else { return [] }
        let prefix = Key(.volumeListing).then(number.rawValue).bytes
        let start = after.map { Key.volumeListing(number, $0.createdAt, $0.id) }
        var (volumes, room) = ([VolumeRecord](), PageRoom(items: limit, bytes: bytes))
        for entry in try listing(prefix, after: start, limit: limit) where !room.isUsedUp {
            guard let volume = try volume(VolumeID(entry.id)) else { continue }
            volumes.append(volume)
            room.take(volume.listedBytes)
        }
        return volumes
    }

    /// An account's snapshots, or those of one of its volumes, oldest first.
    /// - Parameters: as of ``volumes(of:after:limit:bytes:)``.
    public func snapshots(
        of account: AccountID,
        volume: VolumeID? = nil,
        after: (createdAt: UInt64, id: UUID128)? = nil,
        limit: Int,
        bytes: Int = .max
    ) throws(StoreError) -> [SnapshotRecord] {
        guard let number = try accountNumber(account) else { return [] }
        let prefix: [UInt8]
        let start: [UInt8]?
        if let volume {
            prefix = Key(.volumeSnapshots).then(volume.uuid).bytes
            start = after.map { Key.volumeSnapshots(volume, $0.createdAt, $0.id) }
        } else {
            prefix = Key(.snapshotListing).then(number.rawValue).bytes
            start = after.map { Key.snapshotListing(number, $0.createdAt, $0.id) }
        }
        var (snapshots, room) = ([SnapshotRecord](), PageRoom(items: limit, bytes: bytes))
        var place = start
        // The first one alone: of another account's volume as much is looked up as of one that is not there (SPEC C2).
        var count = 1
        // Those that are being made are not shown, and must not make a page look like the last one.
        while !room.isUsedUp {
            let listed = try listing(prefix, after: place, limit: count)
            guard let last = listed.last else {
                if count == 1, let volume { _ = try snapshot(SnapshotID(volume.uuid)) }
                break
            }
            for entry in listed where !room.isUsedUp {
                guard let snapshot = try snapshot(SnapshotID(entry.id)), snapshot.account == account else {
                    return snapshots
                }
                if snapshot.state == .creating { continue }
                let settled = try settled(snapshot)
                snapshots.append(settled)
                room.take(settled.listedBytes)
            }
            place = last.key
            count = room.items
        }
        return snapshots
    }

    private func listing(_ prefix: [UInt8], after: [UInt8]?, limit: Int) throws(StoreError)
        -> [(key: [UInt8], id: UUID128)]
    {
        let cursor = seeker
        cursor.seek(after.map { $0 + [0] } ?? prefix)
        var entries: [(key: [UInt8], id: UUID128)] = []
        while entries.count < limit, try cursor.isValid(), cursor.key.starts(with: prefix) {
            guard let id = UUID128(bytes: cursor.key.suffix(16)) else { break }
            entries.append((Array(cursor.key), id))
            cursor.next()
        }
        return entries
    }

    /// Whether the account has the chunk on this shard, so that it need not be sent.
    public func holdsChunk(account: AccountID, _ fingerprint: Fingerprint) throws(StoreError) -> Bool {
        guard let number = try accountNumber(account) else { return false }
        return try soundChunk(ChunkKey(own: number, fingerprint)) != nil
    }

    /// The version that last wrote the chunk in the volume's own lineage; nil where none did.
    public func lastWrittenVersion(of chunk: ChunkIndex, in target: WriteTarget) throws(StoreError) -> DataVersion? {
        try entries(target.lineage, chunk, upTo: target.version, all: false).first?.version
    }

    /// Parts that chunks have at the target's version, so far as they are counted: 255 stands for more.
    public func partCount(of chunks: Set<ChunkIndex>, in target: WriteTarget) throws(StoreError) -> Int {
        var count = 0
        for chunk in chunks {
            let key = Key.patched(target.lineage, target.version, chunk)
            count += Int(try index.get(key)?.first ?? 0)
        }
        return count
    }

    // MARK: Within the store

    func accountNumber(_ account: AccountID) throws(StoreError) -> AccountNumber? {
        if let known = accounts[account] { return known }
        guard let bytes = try look(up: Key.account(account)) else { return nil }
        guard bytes.count == 4 else { throw StoreError(.damaged, "account \(account) has no number") }
        let number = AccountNumber(
            rawValue: bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
        )
        accounts[account] = number
        return number
    }

    func chunk(_ key: ChunkKey) throws(StoreError) -> ChunkRecord? {
        guard let bytes = try look(up: Key.chunk(key)) else { return nil }
        return try ChunkRecord.decode(bytes)
    }

    func lineage(_ id: LineageID) throws(StoreError) -> LineageRecord {
        if let known = lineages[id] { return known }
        let hot = source.hotRecords
        if let known = hot?.lineage(id) {
            lineages[id] = known
            return known
        }
        guard let bytes = try look(up: Key.lineage(id)) else {
            throw StoreError(.damaged, "lineage \(id) is missing")
        }
        let record = try LineageRecord.decode(bytes)
        hot?.keep(record, id, size: bytes.count)
        lineages[id] = record
        return record
    }

    func forgetLineage(_ id: LineageID) { lineages[id] = nil }

    /// After a rollback: what was read of changes that are gone.
    func forgetAll() {
        lineages = [:]
        accounts = [:]
        gaps = [:]
        stretches = [:]
        ownCursor = nil
    }

    // MARK: Gaps

    /// Where the known gap of the lineage around the chunk ends: there is an entry then, or nothing any more. Nil where none is known.
    func gapEnd(_ lineage: LineageID, _ chunk: ChunkIndex) -> ChunkIndex? {
        guard !gaps.isEmpty, let gap = gaps[lineage], gap.contains(chunk) else { return nil }
        return gap.upperBound
    }

    /// Where the lineage's first entry is, of any version, from a chunk on; ``noChunk`` where there is none.
    /// - Parameter walking: whether a walk begins, if none is under way.
    func ownEntry(_ lineage: LineageID, from chunk: ChunkIndex, walking: Bool) throws(StoreError) -> ChunkIndex {
        if let end = gapEnd(lineage, chunk) { return end }
        let cursor = walkCursor(lineage, beginning: walking) ?? seeker
        cursor.seek(Key(.manifests).then(lineage.rawValue).then(chunk.rawValue).bytes)
        searches += 1
        return try noteGap(lineage, from: chunk, cursor)
    }

    /// Called when a search in the lineage has come to the first key that is not below `chunk`, or nothing.
    /// - Returns: where the gap from there on ends, `chunk` itself where there is none.
    @discardableResult
    private func noteGap(_ lineage: LineageID, from chunk: ChunkIndex, _ cursor: IndexCursor) throws(StoreError)
        -> ChunkIndex
    {
        var end = Self.noChunk
        if try cursor.isValid(), var key = KeyReader(cursor.key, .manifests), key.take(UInt64.self) == lineage.rawValue,
            let next = key.take(UInt64.self)
        {
            end = ChunkIndex(next)
        }
        guard end > chunk else { return chunk }
        gaps[lineage] = chunk..<end
        return end
    }

    /// Behind the last chunk that there can be.
    static let noChunk = ChunkIndex(.max)

    /// Called where an entry is written. What is removed leaves the gap smaller than it is.
    func closeGap(_ lineage: LineageID, at chunk: ChunkIndex) {
        guard let end = gapEnd(lineage, chunk) else { return }
        gaps[lineage] = ChunkIndex(chunk.rawValue + 1)..<end
    }

    struct VersionedEntry {
        let version: DataVersion
        let entry: ManifestEntry
    }

    /// A chunk's entries of one lineage that `version` shows, newest first, from `version` down to the first that stands alone
    /// (or only the newest). Those of cancelled snapshots are shown to these alone (SPEC S4).
    /// - Parameter reader: the version that looks, where it is a later one: what is below its own entry.
    func entries(
        _ lineage: LineageID,
        _ chunk: ChunkIndex,
        upTo version: DataVersion,
        seenBy reader: DataVersion? = nil,
        all: Bool = true
    ) throws(StoreError) -> [VersionedEntry] {
        if gapEnd(lineage, chunk) != nil { return [] }
        let reader = reader ?? version
        let cancelled = try self.lineage(lineage).cancelled
        let cursor = walkCursor(lineage, beginning: false) ?? seeker
        let sought = Key.manifest(lineage, chunk, version)
        cursor.seek(sought)
        searches += 1
        // All but the version.
        let prefix = sought.count - 8
        var found: [VersionedEntry] = []
        while try cursor.isValid(), cursor.key.begins(as: sought, prefix), cursor.key.count == sought.count {
            let inverted = UInt64(bigEndian: cursor.key.loadUnaligned(fromByteOffset: prefix, as: UInt64.self))
            if !cancelled.isEmpty, ~inverted != reader.rawValue, cancelled.contains(DataVersion(~inverted)) {
                cursor.next()
                continue
            }
            let entry = try ManifestEntry.decode(cursor.value)
            found.append(VersionedEntry(version: DataVersion(~inverted), entry: entry))
            if entry.isFull || !all { break }
            cursor.next()
        }
        // The search came past all of the chunk's entries.
        if found.isEmpty { try noteGap(lineage, from: ChunkIndex(chunk.rawValue + 1), cursor) }
        return found
    }

    /// Whether a version from `birth` up to, but not including, `death` must stay readable.
    func isRetained(_ lineage: LineageID, from birth: DataVersion, before death: DataVersion) throws(StoreError) -> Bool
    {
        try nextRetained(lineage, from: birth).map { $0 < death } ?? false
    }

    /// The first version from `version` on that must stay readable.
    func nextRetained(_ lineage: LineageID, from version: DataVersion) throws(StoreError) -> DataVersion? {
        if let stretch = stretches[lineage]?.first(where: { $0.contains(version) }) { return stretch.next }
        // In both directions: where many were deleted, they are passed once for all that lies between the same two.
        let cursor = index.makeCursor(within: Key(.retained).then(lineage.rawValue).bytes)
        cursor.seek(Key.retained(lineage, version))
        let next = try Self.retainedVersion(cursor, lineage)
        var first = DataVersion(0)
        if version > first {
            cursor.seekBack(Key.retained(lineage, DataVersion(version.rawValue - 1)))
            if let before = try Self.retainedVersion(cursor, lineage) { first = before.next }
        }
        stretches[lineage, default: []].append(Stretch(first: first, next: next))
        if stretches[lineage]!.count > Self.mostStretches { stretches[lineage]!.removeFirst() }
        return next
    }

    /// The last version that must stay readable.
    func newestRetained(_ lineage: LineageID) throws(StoreError) -> DataVersion? {
        let cursor = index.makeCursor(within: Key(.retained).then(lineage.rawValue).bytes)
        cursor.seekBack(Key.retained(lineage, DataVersion(.max)))
        return try Self.retainedVersion(cursor, lineage)
    }

    private static func retainedVersion(_ cursor: IndexCursor, _ lineage: LineageID) throws(StoreError) -> DataVersion?
    {
        guard try cursor.isValid(), var key = KeyReader(cursor.key, .retained),
            key.take(UInt64.self) == lineage.rawValue
        else { return nil }
        return key.take(UInt64.self).map { DataVersion($0) }
    }

    /// Who holds a version has changed.
    func forgetRetained(_ lineage: LineageID) { stretches[lineage] = nil }

    /// Versions from `first` up to the next that is retained, of which none is but that one.
    struct Stretch {
        let first: DataVersion
        /// Nil: there is none.
        let next: DataVersion?

        func contains(_ version: DataVersion) -> Bool { first <= version && next.map { version <= $0 } ?? true }
    }

    /// Of one lineage.
    private static let mostStretches = 16
}

/// A shard's index as it was at one moment: what was answered before it was made is in it. Not Sendable: each thread makes its own.
public final class ReadView: ManifestReader {
    private let view: IndexView
    private var walks: [LineageID: IndexCursor] = [:]
    /// Each takes an iterator of RocksDB.
    private static let mostWalks = 2 * ManifestReader.walkedLevels

    init(_ view: IndexView, mayHaveDamage: Bool, isInMemory: Bool = false) {
        self.view = view
        super.init(view, mayHaveDamage: mayHaveDamage, isInMemory: isInMemory)
    }

    override func walkCursor(_ lineage: LineageID, beginning: Bool) -> IndexCursor? {
        if let known = walks[lineage] { return known }
        guard beginning else { return nil }
        if walks.count == Self.mostWalks { walks = [:] }
        let cursor = view.makeWalkCursor()
        walks[lineage] = cursor
        return cursor
    }

    /// For a walk through all there is.
    func scanCursor() -> IndexCursor { view.makeScanCursor() }
}
