public import CairnCore
import CairnLog

/// Creating and deleting volumes and snapshots. None of it walks a manifest: what must be freed is left to the background.
extension Transaction {
    /// V1, V4: a volume and its initial snapshot, empty, or equal to `source`, of which nothing is copied.
    public func createVolume(
        account: AccountID,
        kind: VolumeKind,
        size: UInt64,
        chunkSize: ChunkSize,
        source: SnapshotRecord?,
        affinity: [UInt8],
        tags: [String: String]
    ) throws(StoreError) -> VolumeRecord {
        let number = try numberAccount(account)
        let lineage = LineageID(try nextNumber(1))
        var parent: LineageRecord.Parent?
        if let source {
            try checkDepth(of: source.lineage)
            try checkCancelled(below: source)
            parent = LineageRecord.Parent(
                lineage: source.lineage,
                version: source.version,
                size: source.size,
                snapshot: source.id,
                volume: source.volume
            )
            overlay.put(Key.child(of: source.lineage, source.version, lineage), [])
            try changeRetained(source.lineage, source.version) { $0.clones += 1 }
        }
        put(LineageRecord(account: number, owner: account, chunkSize: chunkSize, parent: parent), lineage)
        let now = execution.milliseconds
        let volume = VolumeRecord(
            id: VolumeID(execution.makeID(shard)),
            account: account,
            kind: kind,
            size: size,
            chunkSize: chunkSize,
            lineage: lineage,
            dataVersion: .initial,
            initialSnapshot: SnapshotID(execution.makeID(shard)),
            sourceSnapshot: source?.id,
            affinity: affinity,
            tags: tags,
            createdAt: now,
            state: .active,
            base: kind == .local ? .initial : DataVersion(0)
        )
        try checkLogical(account, adding: size)
        overlay.put(Key.volumeListing(number, now, volume.id.uuid), [])
        countUsage(of: number) { usage in
            usage.volumes += 1
            usage.logicalBytes += Int64(size)
        }
        let (advanced, initial) = try addSnapshot(
            volume.initialSnapshot,
            of: volume,
            number,
            try isSettled(lineage) ? .complete : .waiting,
            description: "initial",
            tags: [:],
            at: now
        )
        if kind == .local { try changeRetained(lineage, initial.version) { $0.isBase = true } }
        return advanced
    }

    /// V9: the volume goes, its snapshots stay, but for those in progress, and for the initial one, which goes unless something
    /// was cloned from it. The caller has made sure that those in progress may go.
    public func deleteVolume(_ volume: VolumeRecord) throws(StoreError) {
        try cancelAll(of: volume, at: execution.milliseconds)
        for snapshot in try waiting(of: volume) where snapshot.id != volume.initialSnapshot {
            try deleteSnapshot(snapshot)
        }
        if volume.kind == .local { try changeRetained(volume.lineage, volume.base) { $0.isBase = false } }
        if let initial = try snapshot(volume.initialSnapshot),
            try retained(volume.lineage, initial.version)?.clones ?? 0 == 0
        {
            try deleteSnapshot(initial)
        }
        let number = try numberAccount(volume.account)
        overlay.delete(Key.volume(volume.id))
        overlay.delete(Key.volumeListing(number, volume.createdAt, volume.id.uuid))
        countUsage(of: number) { usage in
            usage.volumes -= 1
            usage.logicalBytes -= Int64(volume.size)
        }
        var lineage = try self.lineage(volume.lineage)
        lineage.hasHead = false
        put(lineage, volume.lineage)
        try addWork(.trimHead(volume.lineage))
    }

    /// R1: grows only; the caller has checked the new size.
    public func resizeVolume(_ volume: VolumeRecord, to size: UInt64) throws(StoreError) {
        guard size >= volume.size else { throw StoreError(.invalid, "volumes only grow") }
        try checkLogical(volume.account, adding: size - volume.size)
        countUsage(of: try numberAccount(volume.account)) { $0.logicalBytes += Int64(size - volume.size) }
        var volume = volume
        volume.size = size
        put(volume)
    }

    /// Each level is a look-up more for what no level above it holds.
    private func checkDepth(of source: LineageID) throws(StoreError) {
        var depth = 1
        var next = try lineage(source).parent
        while let parent = next {
            depth += 1
            guard depth < Limits.cloneDepth else {
                throw StoreError(
                    .limited,
                    "the snapshot's volume was made from a snapshot, and so on, \(Limits.cloneDepth) times: restore it to an empty volume instead"
                )
            }
            next = try lineage(parent.lineage).parent
        }
    }

    /// Clones of snapshots in progress keep what was uploaded when these are cancelled: the lineage remembers each such version.
    private func checkCancelled(below source: SnapshotRecord) throws(StoreError) {
        guard source.state == .pending, try lineage(source.lineage).cancelled.count >= Limits.cancelledVersions else {
            return
        }
        throw StoreError(
            .limited,
            "\(Limits.cancelledVersions) snapshots of the volume were cancelled in progress, and volumes made from them are still there"
        )
    }

    private func checkLogical(_ account: AccountID, adding size: UInt64) throws(StoreError) {
        guard try usage(of: account).logicalBytes.saturatingSum(size) <= AccountUsage.logicalLimit else {
            throw StoreError(.limited, "an account's volumes on one shard may have at most 1 EiB together")
        }
    }

    /// Records what was computed of a complete snapshot, if it is still there.
    func setSeal(_ sealed: SealWalk.Sealed, of id: SnapshotID) throws(StoreError) {
        guard var snapshot = try snapshot(id), snapshot.state == .complete else { return }
        snapshot.seal = sealed.seal
        snapshot.owners = sealed.owners
        put(snapshot)
    }

    // MARK: Retained versions

    /// Changes who holds a version; nobody any more: it is released in the background.
    func changeRetained(
        _ lineage: LineageID,
        _ version: DataVersion,
        _ change: (inout RetainedRecord) -> Void
    ) throws(StoreError) {
        var record = try retained(lineage, version) ?? RetainedRecord()
        change(&record)
        forgetRetained(lineage)
        if record.isHeld {
            overlay.put(Key.retained(lineage, version), record.encoded)
        } else {
            overlay.delete(Key.retained(lineage, version))
            try addWork(.releaseVersion(lineage, version))
        }
    }

    /// Removes a lineage that holds nothing any more, and lets go of what it stood on.
    func removeLineage(_ id: LineageID) throws(StoreError) {
        let record = try lineage(id)
        overlay.delete(Key.lineage(id))
        forgetLineage(id)
        if let parent = record.parent {
            overlay.delete(Key.child(of: parent.lineage, parent.version, id))
            try changeRetained(parent.lineage, parent.version) { $0.clones -= 1 }
        }
    }
}
