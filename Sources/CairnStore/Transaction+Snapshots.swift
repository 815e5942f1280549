public import CairnCore

/// Snapshots in progress: created, completed in order, cancelled (SPEC S3, S4, S8, S9, S11, V5).
///
/// The entries of an outstanding snapshot are written at its version, above those of the last completed one, the *base*. Later
/// ones are outstanding at the same time; each shows what the earlier ones have so far. When one is cancelled, the others must
/// no longer see its entries, while clones of it must: its version goes into the lineage's `cancelled`, which readers of
/// other versions skip, and the background removes the entries once nobody stands on them.
extension Transaction {
    /// S1–S3: the volume's present version becomes the snapshot's, and the volume's rises by one. Of a LOCAL volume it is in
    /// progress, of a REMOTE one complete, or waiting for an incomplete ancestor (SPEC V5).
    /// - Parameter hidden: not there yet for anybody until ``reveal(_:)``; one that is found hidden after a crash is undone.
    public func createSnapshot(
        of volume: VolumeRecord,
        id: SnapshotID? = nil,
        description: String,
        tags: [String: String],
        hidden: Bool = false
    ) throws(StoreError) -> SnapshotRecord {
        let state: SnapshotState
        switch volume.kind {
        case .remote: state = try isSettled(volume.lineage) ? .complete : .waiting
        case .local: state = hidden ? .creating : .pending
        }
        return try addSnapshot(
            id ?? SnapshotID(execution.makeID(shard)),
            of: volume,
            try numberAccount(volume.account),
            state,
            description: description,
            tags: tags,
            at: execution.milliseconds
        ).snapshot
    }

    func addSnapshot(
        _ id: SnapshotID,
        of volume: VolumeRecord,
        _ account: AccountNumber,
        _ state: SnapshotState,
        description: String,
        tags: [String: String],
        at now: UInt64
    ) throws(StoreError) -> (volume: VolumeRecord, snapshot: SnapshotRecord) {
        let takesData = state == .pending || state == .creating
        let snapshot = SnapshotRecord(
            id: id,
            volume: volume.id,
            account: volume.account,
            lineage: volume.lineage,
            version: volume.dataVersion,
            size: volume.size,
            chunkSize: volume.chunkSize,
            state: state,
            progress: takesData ? 0 : 100,
            description: description,
            tags: tags,
            createdAt: now,
            completedAt: state == .complete ? now : 0,
            seal: nil,
            touchedAt: now
        )
        put(snapshot)
        overlay.put(Key.snapshotListing(account, now, id.uuid), [])
        overlay.put(Key.volumeSnapshots(volume.id, now, id.uuid), [])
        if !snapshot.isInitial { countUsage(of: account) { $0.snapshots += 1 } }
        try changeRetained(volume.lineage, snapshot.version) { retained in
            retained.hasSnapshot = true
            retained.isIncomplete = takesData
        }
        switch state {
        case .complete: try addWork(.seal(id))
        case .waiting: overlay.put(Key.waiting(volume.lineage, snapshot.version), id.uuid.stored)
        default: overlay.put(Key.outstanding(volume.id, snapshot.version), id.uuid.stored)
        }
        var volume = volume
        volume.dataVersion = volume.dataVersion.next
        put(volume)
        return (volume, snapshot)
    }

    /// The hidden snapshot is there for everybody from now on.
    public func reveal(_ snapshot: SnapshotRecord) throws(StoreError) -> SnapshotRecord {
        guard var present = try self.snapshot(snapshot.id), present.state == .creating else {
            throw StoreError(.invalid, "\(snapshot.id) is not being created")
        }
        present.state = .pending
        put(present)
        return present
    }

    /// Where uploads to a snapshot in progress go. The caller has made sure that it is the earliest outstanding one.
    public func target(of snapshot: SnapshotRecord) throws(StoreError) -> WriteTarget {
        var target = WriteTarget(snapshot)
        target.isExpecting = snapshot.isExpecting
        let next = Key.outstanding(snapshot.volume, snapshot.version.next)
        let cursor = seeker
        cursor.seek(next)
        target.hasLater = try cursor.isValid() && cursor.key.starts(with: next.dropLast(8))
        return target
    }

    /// Puts chunks that the account has here into a snapshot in progress, whichever its place in the order is (SPEC S5).
    /// - Throws: `.invalid` where there is no such chunk of the volume's chunk size.
    public func place(_ chunks: [(ChunkIndex, ChunkContent)], in snapshot: SnapshotRecord) throws(StoreError) {
        let target = try target(of: snapshot)
        for (chunk, content) in chunks { try writeChunk(chunk, of: target, content) }
    }

    /// Records a report below 100 percent.
    public func setProgress(_ percent: UInt8, of snapshot: SnapshotRecord, at now: UInt64) throws(StoreError) {
        try change(snapshot) {
            $0.progress = percent
            $0.isPromptUnanswered = false
            $0.touchedAt = now
        }
    }

    /// What changed since the last complete snapshot is in (SPEC S4).
    public func declareRebased(_ snapshot: SnapshotRecord) throws(StoreError) {
        if snapshot.needsRebase { try change(snapshot) { $0.needsRebase = false } }
    }

    /// Something was done for the snapshot (SPEC S11).
    public func touch(_ snapshot: SnapshotRecord, at now: UInt64) throws(StoreError) {
        try change(snapshot) { $0.touchedAt = now }
    }

    /// What the client answered to a prompt (SPEC S10), which is a touch as well.
    public func setPromptedProgress(_ percent: UInt8, of snapshot: SnapshotRecord, at now: UInt64) throws(StoreError) {
        precondition(percent <= 100)
        try change(snapshot) {
            $0.promptedProgress = percent
            $0.isPromptUnanswered = false
            $0.touchedAt = now
        }
    }

    /// The client did not answer a prompt (SPEC S10); nobody did anything for the snapshot by that.
    public func setPromptUnanswered(_ snapshot: SnapshotRecord) throws(StoreError) {
        try change(snapshot) { $0.isPromptUnanswered = true }
    }

    /// S9, 100: the earliest outstanding snapshot is complete, or waits for an incomplete ancestor; the next one starts from it.
    /// The caller has checked that it is the earliest, misses nothing, and needs no rebase.
    public func complete(_ snapshot: SnapshotRecord, at now: UInt64) throws(StoreError) -> SnapshotRecord {
        guard var complete = try self.snapshot(snapshot.id), complete.state == .pending,
            var volume = try volume(complete.volume)
        else { throw StoreError(.invalid, "\(snapshot.id) is not in progress") }
        let isSettled = try isSettled(complete.lineage)
        complete.state = isSettled ? .complete : .waiting
        complete.progress = 100
        complete.completedAt = isSettled ? now : 0
        complete.isPromptUnanswered = false
        complete.touchedAt = now
        if complete.isExpecting {
            complete.isExpecting = false
            try addWork(.forgetExpected(complete.id))
        }
        put(complete)
        overlay.delete(Key.outstanding(volume.id, complete.version))
        let old = volume.base
        volume.base = complete.version
        put(volume)
        try changeRetained(complete.lineage, complete.version) { retained in
            retained.isBase = true
            retained.isIncomplete = false
            retained.settledAt = now
        }
        try changeRetained(complete.lineage, old) { $0.isBase = false }
        if isSettled {
            try addWork(.seal(complete.id))
        } else {
            overlay.put(Key.waiting(complete.lineage, complete.version), complete.id.uuid.stored)
        }
        try settleClones(of: complete)
        return complete
    }

    /// S4, S8, S11: an outstanding snapshot goes, with its data; the later ones counted on it. What was cloned from it keeps what
    /// was uploaded until now (SPEC V5).
    /// - Parameter keepsRecord: whether it stays visible, as an error.
    public func cancel(_ snapshot: SnapshotRecord, keepsRecord: Bool, at now: UInt64) throws(StoreError) {
        for var later in try outstanding(of: snapshot.volume)
        where later.version > snapshot.version && !later.needsRebase {
            later.needsRebase = true
            put(later)
        }
        try hide([snapshot], of: snapshot.lineage)
        try leave(snapshot, keepsRecord: keepsRecord, at: now)
    }

    /// V9: all that are outstanding go with their volume.
    func cancelAll(of volume: VolumeRecord, at now: UInt64) throws(StoreError) {
        let all = try outstanding(of: volume.id)
        try hide(all, of: volume.lineage)
        for snapshot in all.reversed() { try leave(snapshot, keepsRecord: false, at: now) }
    }

    /// Other versions see nothing more of what was uploaded to the snapshots.
    private func hide(_ snapshots: [SnapshotRecord], of id: LineageID) throws(StoreError) {
        settleWritten()
        var written: [DataVersion] = []
        for snapshot in snapshots where try hasEntries(id, snapshot.version) { written.append(snapshot.version) }
        if written.isEmpty { return }
        var lineage = try self.lineage(id)
        lineage.cancelled = (lineage.cancelled + written).sorted()
        // Once for all of them: it may be long.
        put(lineage, id)
        // Before the release that letting go of a version may bring about: that one relies on it.
        for version in written { try addWork(.cancelVersion(id, version)) }
    }

    /// A hidden snapshot is outstanding no more.
    private func leave(_ snapshot: SnapshotRecord, keepsRecord: Bool, at now: UInt64) throws(StoreError) {
        overlay.delete(Key.outstanding(snapshot.volume, snapshot.version))
        try changeRetained(snapshot.lineage, snapshot.version) { retained in
            retained.hasSnapshot = false
            retained.isIncomplete = false
            retained.settledAt = now
        }
        try settleClones(of: snapshot)
        if snapshot.isExpecting { try addWork(.forgetExpected(snapshot.id)) }
        if keepsRecord {
            try change(snapshot) { record in
                record.state = .error
                record.isExpecting = false
                record.missing = 0
            }
        } else {
            try removeRecord(of: snapshot)
        }
    }

    /// S8: what only this snapshot held is freed in the background.
    public func deleteSnapshot(_ snapshot: SnapshotRecord) throws(StoreError) {
        switch snapshot.state {
        case .pending, .creating: try cancel(snapshot, keepsRecord: false, at: execution.milliseconds)
        case .error: try removeRecord(of: snapshot)
        case .complete, .waiting:
            try removeRecord(of: snapshot)
            // A reader may hold it to be complete already: then it is still listed here.
            overlay.delete(Key.waiting(snapshot.lineage, snapshot.version))
            try changeRetained(snapshot.lineage, snapshot.version) { $0.hasSnapshot = false }
        }
    }

    private func removeRecord(of snapshot: SnapshotRecord) throws(StoreError) {
        let number = try numberAccount(snapshot.account)
        overlay.delete(Key.snapshot(snapshot.id))
        overlay.delete(Key.snapshotListing(number, snapshot.createdAt, snapshot.id.uuid))
        overlay.delete(Key.volumeSnapshots(snapshot.volume, snapshot.createdAt, snapshot.id.uuid))
        if !snapshot.isInitial { countUsage(of: number) { $0.snapshots -= 1 } }
    }

    /// What was cloned from a version in progress has it settled now; so has what was cloned from later ones that were cancelled
    /// meanwhile, up to the next one in progress.
    private func settleClones(of snapshot: SnapshotRecord) throws(StoreError) {
        let from = Key(.children).then(snapshot.lineage.rawValue).then(snapshot.version.rawValue).bytes
        let cursor = seeker
        cursor.seek(from)
        if try cursor.isValid(), cursor.key.starts(with: from.dropLast(8)) {
            try addWork(.settle(snapshot.lineage, snapshot.version))
        }
    }

    private func hasEntries(_ lineage: LineageID, _ version: DataVersion) throws(StoreError) -> Bool {
        let prefix = Key(.written).then(lineage.rawValue).then(version.rawValue).bytes
        let cursor = seeker
        cursor.seek(prefix)
        return try cursor.isValid() && cursor.key.starts(with: prefix)
    }

    private func change(_ snapshot: SnapshotRecord, _ body: (inout SnapshotRecord) -> Void) throws(StoreError) {
        guard var record = try self.snapshot(snapshot.id) else {
            throw StoreError(.invalid, "\(snapshot.id) is not there")
        }
        body(&record)
        put(record)
    }
}

extension UUID128 {
    /// As values hold it.
    var stored: [UInt8] {
        var writer = ByteWriter(capacity: 16)
        writer.put(self)
        return writer.bytes
    }
}
