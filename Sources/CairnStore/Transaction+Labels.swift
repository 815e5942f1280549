public import CairnCore

/// What changes of a volume or snapshot though its data does not: tags, and who may write.
extension Transaction {
    /// R1: replaces the volume's tags.
    public func setTags(_ tags: [String: String], of volume: VolumeRecord) {
        var volume = volume
        volume.tags = tags
        put(volume)
    }

    /// R1: replaces the snapshot's tags, whatever its state is.
    public func setTags(_ tags: [String: String], of id: SnapshotID) throws(StoreError) {
        // As it is written down: what is derived from an ancestor's state stays derived.
        guard var snapshot = try snapshot(id) else { throw StoreError(.invalid, "\(id) is not there") }
        snapshot.tags = tags
        put(snapshot)
    }

    /// R5: fences out the writers of earlier attachments.
    /// - Returns: the new attachment's generation, 1 for the first.
    public func attach(_ volume: VolumeRecord) -> UInt64 {
        var volume = volume
        volume.attachment += 1
        put(volume)
        return volume.attachment
    }
}
