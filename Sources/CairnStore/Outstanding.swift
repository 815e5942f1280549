public import CairnCore

/// The snapshots in progress of a whole shard, and the first of each volume: what is looked at again and again.
extension ManifestReader {
    /// The snapshot of a LOCAL volume that takes data (SPEC S4); nil where none is in progress. Two lookups, however many are.
    public func earliestOutstanding(of volume: VolumeID) throws(StoreError) -> SnapshotRecord? {
        guard let id = try snapshotIDs(under: Key(.outstanding).then(volume.uuid).bytes, limit: 1).first else {
            return nil
        }
        return try snapshot(id)
    }

    /// The earliest outstanding snapshots of the shard's volumes, in the order of the volumes' IDs.
    /// - Parameters:
    ///   - after: goes on behind this volume.
    ///   - limit: the most to give; fewer mean that the end is reached.
    public func earliestOutstanding(after: VolumeID?, limit: Int) throws(StoreError) -> [SnapshotRecord] {
        var found: [SnapshotRecord] = []
        var last = after
        while found.count < limit {
            let start = last.map { Key.outstanding($0, DataVersion(.max)) } ?? Key(.outstanding).bytes
            let cursor = seeker
            cursor.seek(start)
            guard try cursor.isValid(), var key = KeyReader(cursor.key, .outstanding), let volume = key.takeID() else {
                break
            }
            last = VolumeID(volume)
            if let snapshot = try earliestOutstanding(of: VolumeID(volume)) { found.append(snapshot) }
        }
        return found
    }
}
