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
        let now = UnixTime.milliseconds
        let volume = VolumeRecord(
            id: VolumeID(.random(shard: shard)),
            account: account,
            kind: kind,
            size: size,
            chunkSize: chunkSize,
            lineage: lineage,
            dataVersion: .initial,
            initialSnapshot: SnapshotID(.random(shard: shard)),
            sourceSnapshot: source?.id,
            affinity: affinity,
            tags: tags,
            createdAt: now,
            state: .active
        )
        overlay.put(Key.volumeListing(number, now, volume.id.uuid), [])
        let (advanced, _) = try addSnapshot(
            volume.initialSnapshot,
            of: volume,
            number,
            description: "initial",
            tags: [:],
            at: now
        )
        return advanced
    }

    /// S1, S2: the volume's present version becomes the snapshot's, and the volume's rises by one.
    public func createSnapshot(
        of volume: VolumeRecord,
        description: String,
        tags: [String: String]
    ) throws(StoreError) -> SnapshotRecord {
        let id = SnapshotID(.random(shard: shard))
        return try addSnapshot(
            id,
            of: volume,
            try numberAccount(volume.account),
            description: description,
            tags: tags,
            at: UnixTime.milliseconds
        ).snapshot
    }

    private func addSnapshot(
        _ id: SnapshotID,
        of volume: VolumeRecord,
        _ account: AccountNumber,
        description: String,
        tags: [String: String],
        at now: UInt64
    ) throws(StoreError) -> (volume: VolumeRecord, snapshot: SnapshotRecord) {
        let snapshot = SnapshotRecord(
            id: id,
            volume: volume.id,
            account: volume.account,
            lineage: volume.lineage,
            version: volume.dataVersion,
            size: volume.size,
            chunkSize: volume.chunkSize,
            state: .complete,
            progress: 100,
            description: description,
            tags: tags,
            createdAt: now,
            completedAt: now,
            seal: nil,
            touchedAt: now
        )
        put(snapshot)
        overlay.put(Key.snapshotListing(account, now, id.uuid), [])
        overlay.put(Key.volumeSnapshots(volume.id, now, id.uuid), [])
        try changeRetained(volume.lineage, snapshot.version) { $0.hasSnapshot = true }
        try addWork(.seal(id))
        var volume = volume
        volume.dataVersion = volume.dataVersion.next
        put(volume)
        return (volume, snapshot)
    }

    /// V9: the volume goes, its snapshots stay, but for the initial one, which goes unless something was cloned from it.
    public func deleteVolume(_ volume: VolumeRecord) throws(StoreError) {
        if let initial = try snapshot(volume.initialSnapshot), initial.state != .deleting,
            try retained(volume.lineage, initial.version)?.clones ?? 0 == 0
        {
            try deleteSnapshot(initial)
        }
        let number = try numberAccount(volume.account)
        overlay.delete(Key.volume(volume.id))
        overlay.delete(Key.volumeListing(number, volume.createdAt, volume.id.uuid))
        var lineage = try self.lineage(volume.lineage)
        lineage.hasHead = false
        put(lineage, volume.lineage)
        try addWork(.trimHead(volume.lineage))
    }

    /// S8: what only this snapshot held is freed in the background.
    public func deleteSnapshot(_ snapshot: SnapshotRecord) throws(StoreError) {
        let number = try numberAccount(snapshot.account)
        overlay.delete(Key.snapshot(snapshot.id))
        overlay.delete(Key.snapshotListing(number, snapshot.createdAt, snapshot.id.uuid))
        overlay.delete(Key.volumeSnapshots(snapshot.volume, snapshot.createdAt, snapshot.id.uuid))
        try changeRetained(snapshot.lineage, snapshot.version) { $0.hasSnapshot = false }
    }

    /// R1: grows only; the caller has checked the new size.
    public func resizeVolume(_ volume: VolumeRecord, to size: UInt64) throws(StoreError) {
        guard size >= volume.size else { throw StoreError(.invalid, "volumes only grow") }
        var volume = volume
        volume.size = size
        put(volume)
    }

    /// Records what was computed of a complete snapshot, if it is still there.
    func setSeal(_ seal: Fingerprint, of id: SnapshotID) throws(StoreError) {
        guard var snapshot = try snapshot(id) else { return }
        snapshot.seal = seal
        put(snapshot)
    }

    // MARK: Retained versions

    func retained(_ lineage: LineageID, _ version: DataVersion) throws(StoreError) -> RetainedRecord? {
        try overlay.get(Key.retained(lineage, version)).map { bytes throws(StoreError) in
            try RetainedRecord.decode(bytes)
        }
    }

    /// Changes who holds a version; nobody any more: it is released in the background.
    func changeRetained(
        _ lineage: LineageID,
        _ version: DataVersion,
        _ change: (inout RetainedRecord) -> Void
    ) throws(StoreError) {
        var record = try retained(lineage, version) ?? RetainedRecord()
        change(&record)
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
