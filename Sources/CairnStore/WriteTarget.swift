public import CairnCore

/// Where data is written: a volume at its present version, or a snapshot in progress (SPEC U1).
public struct WriteTarget: Sendable, Hashable {
    public let volume: VolumeID
    public let lineage: LineageID
    public let version: DataVersion
    /// Bytes.
    public let size: UInt64
    public let chunkSize: ChunkSize
    public let account: AccountID
    /// Nil for a volume.
    public let snapshot: SnapshotID?
    /// Whether later snapshots are in progress, which may have entries above those that are written now (SPEC S5).
    var hasLater = false
    /// Whether chunks were named that are to come (SPEC S5).
    var isExpecting = false

    public init(_ volume: VolumeRecord) {
        (self.volume, lineage, version) = (volume.id, volume.lineage, volume.dataVersion)
        (size, chunkSize, account, snapshot) = (volume.size, volume.chunkSize, volume.account, nil)
    }

    public init(_ snapshot: SnapshotRecord) {
        (volume, lineage, version) = (snapshot.volume, snapshot.lineage, snapshot.version)
        (size, chunkSize, account, self.snapshot) = (
            snapshot.size, snapshot.chunkSize, snapshot.account, snapshot.id
        )
    }
}
