public import CairnCore
import CairnCrypto
import CairnLog

/// Writing chunks and parts of chunks.
extension Transaction {
    /// What a whole chunk becomes.
    public enum ChunkContent: Sendable {
        /// New bytes, stored unless the dictionary has them.
        case data(ChunkData)
        /// A chunk that the dictionary must have, of a volume with the same chunk size: `.invalid` where it has not.
        case token(Fingerprint)
        case zeros
        case hole
    }

    /// A chunk with so many parts takes no further call's before they are merged: each would write all of them again. The
    /// background merges from ``mergePatches`` on.
    static let maximumPatches = 1024
    static let mergePatches: UInt8 = 16

    /// Writes a whole chunk at the volume's present version.
    public func writeChunk(_ chunk: ChunkIndex, of volume: VolumeRecord, _ content: ChunkContent) throws(StoreError) {
        try writeChunk(chunk, of: WriteTarget(volume), content)
    }

    /// Writes a part of one chunk at the volume's present version.
    public func writePatch(at offset: UInt64, _ bytes: BufferSlice, of volume: VolumeRecord) throws(StoreError) {
        try writePatch(at: offset, bytes, of: WriteTarget(volume))
    }

    /// Writes a whole chunk at the target's version.
    public func writeChunk(_ chunk: ChunkIndex, of target: WriteTarget, _ content: ChunkContent) throws(StoreError) {
        let lineage = try self.lineage(target.lineage)
        let isThere = try isWritten(target.lineage, chunk, target.version)
        let present = isThere ? try entry(target.lineage, chunk, target.version) : nil
        let base: ManifestEntry.Base
        switch content {
        case .data(let data): base = .data(data.fingerprint, owner: lineage.account)
        case .token(let token): base = .data(token, owner: lineage.account)
        case .zeros: base = .zeros
        case .hole: base = .hole
        }
        // The same again: a client that repeats a call costs nothing.
        if let present, present.base == base, present.patches.isEmpty {
            if case .data(let data) = content {
                try healIfDamaged(ChunkKey(own: lineage.account, data.fingerprint), with: data)
            }
            return
        }
        let hint: RecordLocation?
        switch content {
        case .data(let data): hint = try addReference(storing: data, lineage)
        case .token(let token): hint = try addReference(token, lineage)
        case .zeros, .hole: hint = nil
        }
        if present?.isFull != true {
            try buryOlder(lineage: target.lineage, lineage, chunk, death: target.version)
        }
        if present == nil { try buryUnderLater(chunk, target) }
        if let present {
            try release(present, lineage.account)
            if !present.patches.isEmpty { overlay.delete(Key.patched(target.lineage, target.version, chunk)) }
        }
        if case .hole = content, try !hidesSomething(chunk, target, lineage) {
            // Nothing lies below: no entry reads the same and costs nothing (SPEC V7).
            if present != nil { try deleteEntry(target.lineage, chunk, target.version) }
            try spoilNode(target.lineage, chunk)
        } else {
            try putEntry(target.lineage, chunk, target.version, ManifestEntry(base, hint: hint))
        }
        try checkExpected(chunk, of: target)
    }

    /// A new entry may come under one that a later snapshot in progress has already (SPEC S5): it is covered from the start.
    private func buryUnderLater(_ chunk: ChunkIndex, _ target: WriteTarget) throws(StoreError) {
        guard target.hasLater, let cover = try cover(target.lineage, chunk, above: target.version) else { return }
        overlay.put(Key.dead(target.lineage, death: cover, chunk, birth: target.version), [])
    }

    /// Whether a hole at the target's version would hide an older entry, or what the parent shows.
    private func hidesSomething(_ chunk: ChunkIndex, _ target: WriteTarget, _ lineage: LineageRecord)
        throws(StoreError) -> Bool
    {
        if let parent = lineage.parent, lineage.chunkSize.offset(of: chunk) < parent.size { return true }
        guard target.version.rawValue > 0 else { return false }
        let older = DataVersion(target.version.rawValue - 1)
        return try !entries(target.lineage, chunk, upTo: older, seenBy: target.version, all: false).isEmpty
    }

    /// Writes a part of one chunk at the target's version: stored by itself, merged later (DESIGN §5).
    /// - Parameters:
    ///   - offset: bytes from the volume's start; offset and count are multiples of 512, within one chunk.
    ///   - checksum: the bytes' CRC32C, where it was computed off the shard's queue.
    public func writePatch(at offset: UInt64, _ bytes: BufferSlice, checksum: UInt32? = nil, of target: WriteTarget)
        throws(StoreError)
    {
        try addPatch(in: offset..<offset + UInt64(bytes.count), of: target) { place, start in
            let header = PatchHeader(
                lineage: target.lineage.rawValue,
                chunk: place.chunk,
                version: target.version,
                start: start,
                rawChecksum: checksum ?? CRC32C.extend(0, bytes.bytes)
            )
            return Patch(start: start, location: group.appendPatch(header, bytes))
        }
    }

    /// Makes a part of one chunk zeros at the target's version: it takes no bytes of the log.
    /// - Parameter range: bytes from the volume's start, multiples of 512, within one chunk.
    public func writeZeros(_ range: Range<UInt64>, of target: WriteTarget) throws(StoreError) {
        try addPatch(in: range, of: target) { _, start in Patch(zerosAt: start, length: UInt32(range.count)) }
    }

    private func addPatch(
        in range: Range<UInt64>,
        of target: WriteTarget,
        _ make: (PatchedPlace, _ start: UInt32) -> Patch
    ) throws(StoreError) {
        let chunk = target.chunkSize.chunk(at: range.lowerBound)
        let start = target.chunkSize.remainder(of: range.lowerBound)
        guard !range.isEmpty, start + range.count <= target.chunkSize.bytes else {
            throw StoreError(.invalid, "a part of chunk \(chunk) reaches beyond it")
        }
        let place = PatchedPlace(lineage: target.lineage, version: target.version, chunk: chunk)
        var entry = try entryForParts(place)
        if entry.patches.isEmpty, entry.base == .inherit { try buryUnderLater(chunk, target) }
        let account = try lineage(target.lineage).account
        // What the new one covers wholly is of no use any more.
        let covered = start..<start + range.count
        entry.patches.removeAll { patch in
            let isCovered = patch.range.lowerBound >= covered.lowerBound && patch.range.upperBound <= covered.upperBound
            if isCovered { dropPart(patch, account) }
            return isCovered
        }
        let patch = make(place, UInt32(start))
        addPart(patch, account)
        entry.patches.append(patch)
        if entry.patches.count.isMultiple(of: 64) { dropHidden(&entry, account) }
        try gather(entry, place)
        try missExpected(chunk, of: target)
    }

    /// Drops the parts of which later ones together leave nothing to be seen: so there are never many more than sectors.
    private func dropHidden(_ entry: inout ManifestEntry, _ account: AccountNumber) {
        let sector = Int(Limits.sector)
        var covered = [Bool](repeating: false, count: ChunkSize.maximum.bytes / sector)
        var kept: [Patch] = []
        for patch in entry.patches.reversed() {
            let sectors = patch.range.lowerBound / sector..<patch.range.upperBound / sector
            if sectors.allSatisfy({ covered[$0] }) {
                dropPart(patch, account)
                continue
            }
            for index in sectors { covered[index] = true }
            kept.append(patch)
        }
        entry.patches = kept.reversed()
    }

    // MARK: References

    /// - Parameter owner: whose data it is; nil: the lineage's account's.
    /// - Returns: where its record is.
    func addReference(storing data: ChunkData, _ lineage: LineageRecord, owner: AccountNumber? = nil)
        throws(StoreError) -> RecordLocation
    {
        let chunk = ChunkKey(account: lineage.account, owner: owner ?? lineage.account, data.fingerprint)
        return try addReference(storing: data, chunk, lineage.chunkSize, of: lineage.owner)
    }

    /// A reference to a chunk, which is stored unless the dictionary has it.
    /// - Parameter account: whose dictionary it is.
    /// - Returns: where its record is.
    @discardableResult
    func addReference(storing data: ChunkData, _ chunk: ChunkKey, _ chunkSize: ChunkSize, of account: AccountID)
        throws(StoreError) -> RecordLocation
    {
        if chunk.owner != chunk.account || !isAbsent(data, account), let record = try self.chunk(chunk) {
            let sound = try heal(chunk, record, with: data)
            addReference(sound, chunk)
            return sound.location
        }
        let record = try store(data, as: chunk, chunkSize, references: 1)
        countUsage(of: chunk.account) { $0.count(record, 1) }
        return record.location
    }

    /// Whether it is known without looking that the account has no such chunk of its own.
    private func isAbsent(_ data: ChunkData, _ account: AccountID) -> Bool {
        guard let absence = data.absence, absence.arrivals === arrivals, absence.account == account else {
            return false
        }
        return !arrivals.mayHaveCome(data.fingerprint, since: absence.moment)
    }

    /// Appends a chunk's bytes to the log, and has the dictionary say that the chunk is there.
    func store(_ data: ChunkData, as chunk: ChunkKey, _ chunkSize: ChunkSize, references: UInt64)
        throws(StoreError) -> ChunkRecord
    {
        let header = ChunkHeader(
            account: chunk.account.rawValue,
            owner: chunk.owner.rawValue,
            fingerprint: data.fingerprint,
            codec: data.codec,
            rawLength: data.rawLength,
            rawChecksum: data.rawChecksum
        )
        let location = group.appendChunk(header, data.bytes)
        addLive(location)
        arrivals.note(data.fingerprint)
        let record = ChunkRecord(
            location: location,
            rawLength: data.rawLength,
            rawChecksum: data.rawChecksum,
            codec: data.codec,
            chunkSize: chunkSize,
            references: references
        )
        overlay.put(Key.chunk(chunk), record.encoded)
        try forgetDamage(of: chunk)
        return record
    }

    /// - Returns: where its record is.
    private func addReference(_ token: Fingerprint, _ lineage: LineageRecord) throws(StoreError) -> RecordLocation {
        // In a volume of another chunk size the fingerprint would not be that of the chunk's bytes.
        let key = ChunkKey(own: lineage.account, token)
        guard let record = try soundChunk(key), record.chunkSize == lineage.chunkSize else {
            throw StoreError(.invalid, "there is no chunk \(token) of \(lineage.chunkSize)")
        }
        addReference(record, key)
        return record.location
    }

    func addReference(_ record: ChunkRecord, _ chunk: ChunkKey) {
        var record = record
        if record.references == 0 {
            overlay.delete(Key.unreferenced(chunk))
            countUsage(of: chunk.account) { $0.count(record, 1) }
        }
        record.references += 1
        overlay.put(Key.chunk(chunk), record.encoded)
    }

    /// Gives back what an entry held: its chunk's reference, its patches' bytes.
    func release(_ entry: ManifestEntry, _ account: AccountNumber) throws(StoreError) {
        for patch in entry.patches { dropPart(patch, account) }
        guard case .data(let fingerprint, let owner) = entry.base else { return }
        try dropReference(ChunkKey(account: account, owner: owner, fingerprint))
    }

    /// - Throws: `.damaged` where the chunk is not in the dictionary, or nothing named it.
    func dropReference(_ chunk: ChunkKey) throws(StoreError) {
        guard var record = try self.chunk(chunk), record.references > 0 else {
            throw StoreError(
                .damaged,
                "chunk \(chunk.fingerprint) is in a manifest or leased, but not in the dictionary"
            )
        }
        record.references -= 1
        overlay.put(Key.chunk(chunk), record.encoded)
        if record.references == 0 {
            // Not removed yet: a lease may hold it (SPEC A1), and the next upload of the same data finds it.
            overlay.put(Key.unreferenced(chunk), [])
            countUsage(of: chunk.account) { $0.count(record, -1) }
            noteNewWork()
        }
    }

    /// Removes a chunk that nothing names from the dictionary, unless it is held; its record's bytes are then dead.
    func purge(_ chunk: ChunkKey, _ leases: Leases) throws(StoreError) {
        guard let record = try self.chunk(chunk), record.references == 0 else {
            return overlay.delete(Key.unreferenced(chunk))
        }
        // Pinned since it was looked at: it stays, and is looked at again.
        guard leases.beginPurge(chunk) else { return }
        overlay.delete(Key.unreferenced(chunk))
        dropLive(record.location)
        overlay.delete(Key.chunk(chunk))
        try forgetDamage(of: chunk)
        // No entry is left that could hint at a bad record.
        if hints.mayBeHealed(chunk), try overlay.get(Key.healed(chunk)) != nil { overlay.delete(Key.healed(chunk)) }
    }

    // MARK: Older entries

    /// A full entry at `death` covers everything below it in its lineage: what no retained version reads is freed at once, the
    /// rest is put on the dead list, to be looked at when a version is released.
    func buryOlder(
        lineage id: LineageID,
        _ lineage: LineageRecord,
        _ chunk: ChunkIndex,
        death: DataVersion
    ) throws(StoreError) {
        guard death.rawValue > 0 else { return }
        for older in try entries(id, chunk, upTo: DataVersion(death.rawValue - 1), seenBy: death) {
            if try isRetained(id, from: older.version, before: death) {
                overlay.put(Key.dead(id, death: death, chunk, birth: older.version), [])
            } else {
                try removeEntry(id, lineage, chunk, older.version, older.entry)
            }
        }
    }

    func removeEntry(
        _ id: LineageID,
        _ lineage: LineageRecord,
        _ chunk: ChunkIndex,
        _ version: DataVersion,
        _ entry: ManifestEntry
    ) throws(StoreError) {
        try release(entry, lineage.account)
        if !entry.patches.isEmpty { overlay.delete(Key.patched(id, version, chunk)) }
        try deleteEntry(id, chunk, version)
    }
}
