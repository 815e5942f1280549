import CairnCore

@testable import CairnStore

extension ModelRun {
    /// What a deletion frees is what was told before (SPEC R2).
    mutating func freeSomething() throws {
        try settleAndAudit()
        last = "free"
        let deleted = volumeOrder.filter { _ in random.chance(20) }
        let dropped = snapshotOrder.filter { !snapshots[$0]!.isInitial && random.chance(30) }
        let view = store.shard.makeView()
        var targets: [UsageWalk.Target] = []
        for id in dropped { targets.append(.snapshot(try view.snapshot(id)!)) }
        for id in deleted { targets.append(.volume(try view.volume(id)!)) }
        let walk = try UsageWalk(store.shard, of: ModelRun.account, tableItems: 1 + random.below(50)) {}
        let whole = try UsageWalk(store.shard, of: ModelRun.account) {}
        guard try walk.holding(targets) == whole.holding(targets) else {
            throw ModelFailure("the passes do not add up")
        }
        let told = try walk.freeing(targets)
        let before = try view.usage(of: ModelRun.account)
        // At once: whether an initial snapshot goes with its volume depends on what stands on it then.
        let initial = try store.change(reclaims: true) { (transaction) throws(StoreError) in
            var initial: [SnapshotID] = []
            for id in deleted {
                let volume = try transaction.volume(id)!
                try transaction.deleteVolume(volume)
                initial.append(volume.initialSnapshot)
            }
            for id in dropped { try transaction.deleteSnapshot(try transaction.snapshot(id)!) }
            return initial
        }
        for id in dropped { forget(id) }
        try forget(deleted, initial)
        guard try store.settle() else { throw ModelFailure("the background does not come to rest") }
        let after = try store.shard.makeView().usage(of: ModelRun.account)
        guard before.storedBytes - after.storedBytes == told.storedBytes,
            before.uniqueBytes - after.uniqueBytes == told.uniqueBytes
        else { throw ModelFailure("\(before) became \(after), told was \(told)") }
    }

    private mutating func forget(_ deleted: [VolumeID], _ initial: [SnapshotID]) throws {
        let view = store.shard.makeView()
        for (volume, snapshot) in zip(deleted, initial) {
            volumes[volume] = nil
            volumeOrder.removeAll { $0 == volume }
            if try view.snapshot(snapshot) == nil {
                forget(snapshot)
            } else if let kept = snapshots[snapshot] {
                snapshots[snapshot] = Snapshot(id: snapshot, content: kept.content, isInitial: false)
            }
        }
    }
}
