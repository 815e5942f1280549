import CairnCore

/// Snapshots of long lists of chunks are made in several transactions, hidden until the last one (SPEC S5).
extension Shard {
    /// Cancels those whose making a crash interrupted: nobody was told of them. Before the shard takes calls.
    func undoCreations() throws(StoreError) {
        let view = makeView()
        var unfinished: [SnapshotRecord] = []
        for id in try view.snapshotIDs(under: Key(.outstanding).bytes) {
            guard let snapshot = try view.snapshot(id) else { throw StoreError(.damaged, "\(id) is missing") }
            if snapshot.state == .creating { unfinished.append(snapshot) }
        }
        for snapshot in unfinished {
            try background.change(entries: Limits.snapshotsInProgress) { (transaction) throws(StoreError) in
                try transaction.deleteSnapshot(snapshot)
            }
        }
    }
}
