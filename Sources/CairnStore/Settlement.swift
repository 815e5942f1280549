public import CairnCore

/// What stands on a snapshot in progress is in progress as well (SPEC V5): it follows from the chain of parents, at once, and is
/// written down in the background.
extension ManifestReader {
    /// Whether nothing more can show through from below: no version that the lineage stands on takes data any more, nor one
    /// below that. (One below is left where a later outstanding snapshot was cloned, and then cancelled.)
    public func isSettled(_ lineage: LineageID) throws(StoreError) -> Bool {
        var parent = try self.lineage(lineage).parent
        while let next = parent {
            if let earliest = try earliestOutstandingVersion(of: next.volume), earliest <= next.version { return false }
            parent = try self.lineage(next.lineage).parent
        }
        return true
    }

    /// The version of the volume's snapshots that takes data, or is being created; nil where none is in progress.
    func earliestOutstandingVersion(of volume: VolumeID) throws(StoreError) -> DataVersion? {
        let prefix = Key(.outstanding).then(volume.uuid).bytes
        let cursor = index.makeCursor(within: prefix)
        cursor.seek(prefix)
        guard try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .outstanding),
            key.takeID() != nil
        else { return nil }
        return key.take(UInt64.self).map { DataVersion($0) }
    }

    /// The snapshot as it is in truth: one that waited for an ancestor is complete as soon as that one takes no data any more.
    public func settled(_ snapshot: SnapshotRecord) throws(StoreError) -> SnapshotRecord {
        guard snapshot.state == .waiting, try isSettled(snapshot.lineage) else { return snapshot }
        var complete = snapshot
        complete.state = .complete
        complete.completedAt = max(snapshot.createdAt, try settledAt(snapshot))
        return complete
    }

    /// When the last version that the snapshot stands on, or its own, took no data any more; milliseconds since 1970.
    private func settledAt(_ snapshot: SnapshotRecord) throws(StoreError) -> UInt64 {
        var last = try retained(snapshot.lineage, snapshot.version)?.settledAt ?? 0
        var parent = try self.lineage(snapshot.lineage).parent
        while let next = parent {
            last = max(last, try retained(next.lineage, next.version)?.settledAt ?? 0)
            parent = try self.lineage(next.lineage).parent
        }
        return last
    }

    func retained(_ lineage: LineageID, _ version: DataVersion) throws(StoreError) -> RetainedRecord? {
        try index.get(Key.retained(lineage, version)).map { bytes throws(StoreError) in
            try RetainedRecord.decode(bytes)
        }
    }

    /// The snapshots of a LOCAL volume that are to be completed yet, in the order in which they were created: the first is the
    /// one that takes data (SPEC S4).
    public func outstanding(of volume: VolumeID) throws(StoreError) -> [SnapshotRecord] {
        let prefix = Key(.outstanding).then(volume.uuid).bytes
        var snapshots: [SnapshotRecord] = []
        for id in try snapshotIDs(under: prefix) { if let snapshot = try snapshot(id) { snapshots.append(snapshot) } }
        return snapshots
    }

    /// The snapshots of a volume that wait for an incomplete ancestor, in the order in which they were created.
    public func waiting(of volume: VolumeRecord) throws(StoreError) -> [SnapshotRecord] {
        if try isSettled(volume.lineage) { return [] }
        var snapshots: [SnapshotRecord] = []
        for id in try snapshotIDs(under: Key(.waiting).then(volume.lineage.rawValue).bytes) {
            if let snapshot = try snapshot(id) { snapshots.append(snapshot) }
        }
        return snapshots
    }

    /// How many snapshots of a LOCAL volume are outstanding.
    public func outstandingCount(of volume: VolumeID) throws(StoreError) -> Int {
        try snapshotIDs(under: Key(.outstanding).then(volume.uuid).bytes).count
    }

    /// How many snapshots of a volume wait for an incomplete ancestor.
    public func waitingCount(of volume: VolumeRecord) throws(StoreError) -> Int {
        if try isSettled(volume.lineage) { return 0 }
        return try snapshotIDs(under: Key(.waiting).then(volume.lineage.rawValue).bytes).count
    }

    /// The snapshots that the values of the keys with a prefix name.
    func snapshotIDs(under prefix: [UInt8], limit: Int = .max) throws(StoreError) -> [SnapshotID] {
        let cursor = seeker
        cursor.seek(prefix)
        var ids: [SnapshotID] = []
        while ids.count < limit, try cursor.isValid(), cursor.key.starts(with: prefix) {
            var value = ByteReader(cursor.value)
            guard let id = value.takeID() else { throw StoreError(.damaged, "a list of snapshots in the index") }
            ids.append(SnapshotID(id))
            cursor.next()
        }
        return ids
    }
}

extension Transaction {
    /// Snapshots, or lineages, that one transaction looks at.
    private static let settleStep = 64
    /// Bytes of changes after which a step ends.
    private static let settleBytes = 64 << 10

    /// A step of writing down that nothing comes to a version any more, nor to cancelled ones behind it: the snapshots of the
    /// lineages on them that waited for that alone are complete, and so on with what stands on these. True when there is
    /// nothing left to do.
    func settleStep(_ lineage: LineageID, _ version: DataVersion, _ cursorKey: inout [UInt8]?) throws(StoreError)
        -> Bool
    {
        let prefix = Key(.children).then(lineage.rawValue).bytes
        let cursor = overlay.makeCursor()
        cursor.seek(cursorKey ?? Key(.children).then(lineage.rawValue).then(version.rawValue).bytes)
        var children: [(lineage: LineageID, key: [UInt8])] = []
        while children.count < Self.settleStep, try cursor.isValid(), cursor.key.starts(with: prefix),
            var key = KeyReader(cursor.key, .children), key.take(UInt64.self) != nil, key.take(UInt64.self) != nil,
            let child = key.take(UInt64.self)
        {
            children.append((LineageID(child), Array(cursor.key)))
            cursor.next()
        }
        let start = overlay.encoded.count
        for child in children {
            cursorKey = child.key
            if overlay.encoded.count - start > Self.settleBytes { return false }
            // On later snapshots in progress.
            guard try isSettled(child.lineage) else { continue }
            // The child's own list gets shorter with each step: it is done when it is empty.
            guard try completeWaiting(in: child.lineage) else { return false }
            // Whatever its versions are retained for: the snapshots that were cloned may be gone.
            if try hasChildren(child.lineage) { try addWork(.settle(child.lineage, DataVersion(0))) }
        }
        guard let last = children.last, children.count == Self.settleStep else { return true }
        cursorKey = last.key + [0]
        return false
    }

    /// Completes snapshots of a settled lineage that wait, as many as one transaction does; true when none is left.
    private func completeWaiting(in lineage: LineageID) throws(StoreError) -> Bool {
        let ids = try snapshotIDs(under: Key(.waiting).then(lineage.rawValue).bytes, limit: Self.settleStep)
        let start = overlay.encoded.count
        for id in ids {
            // Tags may make records large.
            if overlay.encoded.count - start > Self.settleBytes { return false }
            guard let snapshot = try snapshot(id) else { throw StoreError(.damaged, "\(id) waits and is missing") }
            put(try settled(snapshot))
            overlay.delete(Key.waiting(lineage, snapshot.version))
            try addWork(.seal(id))
        }
        return ids.count < Self.settleStep
    }

    private func hasChildren(_ lineage: LineageID) throws(StoreError) -> Bool {
        let prefix = Key(.children).then(lineage.rawValue).bytes
        let cursor = seeker
        cursor.seek(prefix)
        return try cursor.isValid() && cursor.key.starts(with: prefix)
    }
}
