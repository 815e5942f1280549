public import CairnCore
import CairnCrypto
public import CairnLog

/// A whole chunk's bytes, hashed and perhaps compressed, ready to be stored.
public struct ChunkData: Sendable {
    /// SHA-256 over the uncompressed bytes, padded with zeros to the chunk size.
    public let fingerprint: Fingerprint
    /// Uncompressed bytes; fewer than the chunk size only at a volume's end.
    public let rawLength: UInt32
    /// CRC32C of the uncompressed bytes.
    public let rawChecksum: UInt32
    public let codec: Codec
    /// As stored.
    public let bytes: BufferSlice
    /// That there was none like it, where it was looked for.
    public internal(set) var absence: Absence?

    public init(
        fingerprint: Fingerprint,
        rawLength: UInt32,
        rawChecksum: UInt32,
        codec: Codec,
        bytes: BufferSlice,
        absence: Absence? = nil
    ) {
        self.fingerprint = fingerprint
        self.rawLength = rawLength
        self.rawChecksum = rawChecksum
        self.codec = codec
        self.bytes = bytes
        self.absence = absence
    }
}

/// The changes of one call, as a part of its shard's next group: all of them happen, or none.
///
/// Used on the shard's queue only, within the closure that it was given to. What it reads includes what earlier calls of the
/// same group changed. The methods are in files by theme: `Transaction+Volumes`, `Transaction+Chunks`.
public final class Transaction: ManifestReader {
    private let batch: IndexOverlay
    let group: LogGroup
    let shard: ShardIndex
    let execution: any ShardExecution
    /// Entries that one step of a release frees (``StoreOptions/releaseStep``).
    let entriesPerStep: Int
    private let expiredKeys: ExpiredKeys
    let arrivals: Arrivals
    let hints: RecordHints
    private var savedExpired: [UInt8]?
    /// What the group's calls changed in segments' live bytes; written when the group is finished.
    private(set) var liveDeltas: [SegmentID: Int64] = [:]
    private var savedDeltas: [SegmentID: Int64] = [:]
    /// By how much the group's calls changed what accounts have; written when the group is finished.
    private(set) var usageDeltas: [AccountNumber: UsageDelta] = [:]
    private var savedUsage: [AccountNumber: UsageDelta] = [:]
    private var savedGroup: LogGroup.Savepoint
    private(set) var isAborted = false
    /// Whether something waits now for the background: a purge, a release, a seal.
    private(set) var hasNewWork = false
    private var savedNewWork = false
    /// Entries that got so many parts that they should be merged.
    private(set) var mergeable: [PatchedPlace] = []
    private var savedMergeable = 0
    /// Entries that this call adds parts to, put into the overlay when something else looks there: a call may bring thousands
    /// of parts of one chunk, and each would repeat all those before it.
    private var gathered: [PatchedPlace: ManifestEntry] = [:]
    /// The written maps that the group's calls changed, as they are now; put into the overlay when the group is finished: a
    /// map would else be written again with each of its chunks.
    private var written: [WrittenPlace: WrittenMap] = [:]
    private var savedWritten: [WrittenPlace: WrittenMap] = [:]
    /// The map that was looked at last, while it is as the overlay has it: neighbours look at the same one.
    private var lastMap: (place: WrittenPlace, map: WrittenMap)?
    /// By how many the missing chunks of a snapshot changed with this call (see ``Expectations``).
    private var missingDeltas: [SnapshotID: Int64] = [:]

    /// Parts that the call dropped, where there is damage at all: of a damaged one the mark goes with it.
    private var droppedParts: [RecordLocation] = []

    init(
        overlay: IndexOverlay,
        group: LogGroup,
        shard: ShardIndex,
        mayHaveDamage: Bool,
        entriesPerStep: Int,
        expiredKeys: ExpiredKeys,
        arrivals: Arrivals,
        hints: RecordHints,
        _ execution: any ShardExecution
    ) {
        self.execution = execution
        self.entriesPerStep = entriesPerStep
        self.expiredKeys = expiredKeys
        (self.arrivals, self.hints) = (arrivals, hints)
        batch = overlay
        self.group = group
        self.shard = shard
        savedGroup = group.savepoint
        super.init(overlay, mayHaveDamage: mayHaveDamage)
    }

    /// The group's changes so far.
    var overlay: IndexOverlay {
        settle()
        return batch
    }

    /// What the overlay holds without the entries that are gathered.
    func unsettled(_ key: [UInt8]) throws(StoreError) -> [UInt8]? { try batch.get(key) }

    /// What the call left to be put into the overlay.
    func endCall() throws(StoreError) {
        try settleMissing()
        settle()
        let dropped = droppedParts
        droppedParts = []
        for location in dropped { try forgetDamage(ofPart: location) }
    }

    /// Gives up: what this call changed is undone; what its closure returns is still answered.
    public func abort() { isAborted = true }

    /// Begins the next call of the group.
    func begin() {
        overlay.setSavepoint()
        savedGroup = group.savepoint
        savedDeltas = liveDeltas
        savedUsage = usageDeltas
        savedWritten = written
        savedNewWork = hasNewWork
        savedMergeable = mergeable.count
        savedExpired = expiredKeys.end
        isAborted = false
    }

    /// Undoes what has changed since ``begin()``.
    func rollback() {
        gathered = [:]
        batch.rollback()
        group.rollback(to: savedGroup)
        liveDeltas = savedDeltas
        usageDeltas = savedUsage
        written = savedWritten
        lastMap = nil
        missingDeltas = [:]
        droppedParts = []
        hasNewWork = savedNewWork
        expiredKeys.end = savedExpired
        mergeable.removeLast(mergeable.count - savedMergeable)
        forgetAll()
    }

    // MARK: Entries with parts

    /// The entry as this call has changed it so far, or as it was.
    func entryForParts(_ place: PatchedPlace) throws(StoreError) -> ManifestEntry {
        if let entry = gathered[place] { return entry }
        guard try isWritten(place.lineage, place.chunk, place.version) else { return ManifestEntry(.inherit) }
        let bytes = try batch.get(Key.manifest(place.lineage, place.chunk, place.version))
        let entry =
            try bytes.map { bytes throws(StoreError) in try ManifestEntry.decode(bytes) } ?? ManifestEntry(.inherit)
        // Where they cannot be merged, or not yet, each keeps a sector of its own at the least.
        if entry.patches.count >= Transaction.maximumPatches, try isSettled(place.lineage), try isOfOneOwner(place) {
            throw StoreError(
                .full,
                "chunk \(place.chunk) has too many partial writes that wait to be merged: try again"
            )
        }
        return entry
    }

    private func isOfOneOwner(_ place: PatchedPlace) throws(StoreError) -> Bool {
        let account = try lineage(place.lineage).account
        return try resolve(place.lineage, place.version, place.chunk).mergedOwner(in: account) != nil
    }

    /// Keeps the entry until ``settle()``.
    func gather(_ entry: ManifestEntry, _ place: PatchedPlace) throws(StoreError) {
        try markWritten(place.lineage, place.chunk, place.version, true)
        gathered[place] = entry
    }

    /// Puts what was gathered into the overlay, in the order of the keys: the same calls give the same commit.
    override func settle() {
        if gathered.isEmpty { return }
        let settled = gathered.sorted {
            ($0.key.lineage, $0.key.version, $0.key.chunk) < ($1.key.lineage, $1.key.version, $1.key.chunk)
        }
        gathered = [:]
        for (place, entry) in settled {
            let count = entry.patches.count
            batch.put(Key.manifest(place.lineage, place.chunk, place.version), entry.encoded)
            batch.put(Key.patched(place.lineage, place.version, place.chunk), [UInt8(min(count, 255))])
            if count >= Int(Transaction.mergePatches) { mergeSoon(place) }
        }
    }

    func noteNewWork() { hasNewWork = true }

    /// Has an entry's parts merged at the next occasion.
    func mergeSoon(_ place: PatchedPlace) {
        mergeable.append(place)
        noteNewWork()
    }

    // MARK: Expected chunks

    /// Of a snapshot, one more or fewer of the expected chunks is missing.
    func countMissing(_ snapshot: SnapshotID, _ delta: Int64) { missingDeltas[snapshot, default: 0] += delta }

    /// Before the record is read, and at the end of a call.
    func settleMissing() throws(StoreError) {
        let deltas = missingDeltas
        missingDeltas = [:]
        for (id, delta) in deltas.sorted(by: { $0.key.uuid < $1.key.uuid }) where delta != 0 {
            guard var record = try super.snapshot(id) else { continue }
            guard let missing = UInt64(exactly: Int64(record.missing) + delta) else {
                throw StoreError(.damaged, "\(id) counts too few missing chunks")
            }
            record.missing = missing
            put(record)
        }
    }

    public override func snapshot(_ id: SnapshotID) throws(StoreError) -> SnapshotRecord? {
        if !missingDeltas.isEmpty { try settleMissing() }
        return try super.snapshot(id)
    }

    // MARK: Written maps

    /// Sets a chunk's mark in the map of its version (see ``WrittenMap``).
    func markWritten(_ lineage: LineageID, _ chunk: ChunkIndex, _ version: DataVersion, _ mark: Bool)
        throws(StoreError)
    {
        let place = WrittenPlace(lineage, version, chunk)
        if mark { closeGap(lineage, at: chunk) }
        var map = try writtenMap(place)
        guard map[chunk] != mark else { return }
        map[chunk] = mark
        written[place] = map
    }

    /// Whether a version has an entry for the chunk.
    func isWritten(_ lineage: LineageID, _ chunk: ChunkIndex, _ version: DataVersion) throws(StoreError) -> Bool {
        try writtenMap(WrittenPlace(lineage, version, chunk))[chunk]
    }

    private func writtenMap(_ place: WrittenPlace) throws(StoreError) -> WrittenMap {
        if let map = written[place] { return map }
        if let lastMap, lastMap.place == place { return lastMap.map }
        var map = WrittenMap()
        if let bytes = try batch.get(Key.written(place)) {
            map = try bytes.withUnsafeBytes { bytes in Result { () throws(StoreError) in try WrittenMap(bytes) } }.get()
        }
        lastMap = (place, map)
        return map
    }

    /// Puts the maps into the overlay: when the group is finished, and before a call looks for them there.
    func settleWritten() {
        for (place, map) in written.sorted(by: { $0.key < $1.key }) {
            if map.isEmpty { batch.delete(Key.written(place)) } else { batch.put(Key.written(place), map.encoded) }
        }
        written = [:]
        lastMap = nil
    }

    /// What ``finish()`` adds to the commit for the maps.
    var writtenBytes: Int { written.count * (1 + 2 + 25 + 4 + WrittenMap.bytes) }

    // MARK: Usage

    override func pendingUsage(of account: AccountNumber) -> UsageDelta { usageDeltas[account] ?? UsageDelta() }

    func countUsage(of account: AccountNumber, _ change: (inout UsageDelta) -> Void) {
        change(&usageDeltas[account, default: UsageDelta()])
    }

    /// The most bytes that ``finish()`` adds to the commit for one segment: op, key and its length, value and its length.
    static let segmentChangeBytes = 1 + 2 + 5 + 4 + 9

    /// Writes the written maps, what accounts have, and the segments' live bytes: once, before the group is finished.
    func finish() throws(StoreError) {
        settleWritten()
        try settleUsage()
        // In order: the same calls give the same commit.
        for (segment, delta) in liveDeltas.sorted(by: { $0.key < $1.key }) where delta != 0 {
            var record = SegmentRecord()
            if let bytes = try overlay.get(Key.segment(segment)) { record = try SegmentRecord.decode(bytes) }
            let live = Int64(record.liveBytes) + delta
            guard live >= 0 else { throw StoreError(.damaged, "segment \(segment) would hold \(live) live bytes") }
            record.liveBytes = UInt64(live)
            if live == 0 {
                overlay.delete(Key.segment(segment))
            } else {
                overlay.put(Key.segment(segment), record.encoded)
            }
        }
        liveDeltas = [:]
    }

    private func settleUsage() throws(StoreError) {
        for (account, delta) in usageDeltas.sorted(by: { $0.key.rawValue < $1.key.rawValue }) where !delta.isZero {
            let key = Key.usage(account)
            let present = try batch.get(key).map { bytes throws(StoreError) in try AccountUsage.decode(bytes) }
            guard let usage = (present ?? AccountUsage()).changed(by: delta) else {
                throw StoreError(.damaged, "account \(account.rawValue) would have less than nothing")
            }
            if usage == AccountUsage() { batch.delete(key) } else { batch.put(key, usage.encoded) }
        }
        usageDeltas = [:]
    }

    func addLive(_ location: RecordLocation) { liveDeltas[location.segment, default: 0] += Int64(location.length) }
    func dropLive(_ location: RecordLocation) { liveDeltas[location.segment, default: 0] -= Int64(location.length) }

    /// A part of a chunk, and with it what the account stores.
    func addPart(_ part: Patch, _ account: AccountNumber) {
        guard let location = part.location else { return }
        addLive(location)
        countUsage(of: account) { $0.storedBytes += Int64(location.length) }
    }

    func dropPart(_ part: Patch, _ account: AccountNumber) {
        guard let location = part.location else { return }
        dropLive(location)
        if mayHaveDamage { droppedParts.append(location) }
        countUsage(of: account) { $0.storedBytes -= Int64(location.length) }
    }

    /// Counters that never repeat a number: lineages (1), accounts (2), work items (3).
    func nextNumber(_ counter: UInt8) throws(StoreError) -> UInt64 {
        let key = Key.counter(counter)
        let last = try overlay.get(key).map { bytes in
            bytes.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
        }
        let next = (last ?? 0) + 1
        overlay.put(key, withUnsafeBytes(of: next.littleEndian, Array.init))
        return next
    }

    func put(_ volume: VolumeRecord) { overlay.put(Key.volume(volume.id), volume.encoded) }
    func put(_ snapshot: SnapshotRecord) { overlay.put(Key.snapshot(snapshot.id), snapshot.encoded) }

    func put(_ lineage: LineageRecord, _ id: LineageID) {
        overlay.put(Key.lineage(id), lineage.encoded)
        forgetLineage(id)
    }

    func addWork(_ item: WorkItem) throws(StoreError) {
        overlay.put(Key.work(try nextNumber(3)), item.encoded)
        noteNewWork()
    }

    /// The account's number on this shard, given at its first use.
    func numberAccount(_ account: AccountID) throws(StoreError) -> AccountNumber {
        if let known = try accountNumber(account) { return known }
        let number = UInt32(truncatingIfNeeded: try nextNumber(2))
        overlay.put(Key.account(account), withUnsafeBytes(of: number.littleEndian, Array.init))
        return AccountNumber(rawValue: number)
    }

    /// Keeps the answer of an idempotent call, and forgets those that are older than ``idempotencyMilliseconds``.
    public func putIdempotencyRecord(_ record: IdempotencyRecord, account: AccountID, key: [UInt8]) throws(StoreError) {
        let stored = Key.idempotency(account, key)
        overlay.put(stored, record.encoded)
        overlay.put(Key.idempotencyAge(record.createdAt, stored), [])
        // Two for each one that comes: the table cannot grow without end, and no call pays for a long clean-up.
        let prefix = Key(.idempotencyAges).bytes
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(expiredKeys.end ?? prefix)
        for _ in 0..<2 {
            guard try cursor.isValid(), var age = KeyReader(cursor.key, .idempotencyAges),
                let created = age.take(UInt64.self),
                created + Transaction.idempotencyMilliseconds < record.createdAt
            else { break }
            let expired = Array(cursor.key)
            overlay.delete(age.takeRest())
            overlay.delete(expired)
            expiredKeys.end = expired
            cursor.next()
        }
    }

    /// SPEC C5: 24 h or longer.
    static let idempotencyMilliseconds: UInt64 = 48 * 3600 * 1000
}

/// Where the ages of idempotent calls begin that are not forgotten yet: what was deleted before is not passed with each call. In memory: a
/// shard that is opened begins at the first there is.
final class ExpiredKeys {
    var end: [UInt8]?
}
