import CairnCore
import CairnLog
import Logging

/// Work that is written down in the index and goes on after a restart: releases, what follows from snapshots that are completed
/// or cancelled, and seals.
extension Background {
    /// Frees what versions and volumes that are gone held, in the order in which they went: the items of a lineage build on
    /// each other.
    func release() throws(StoreError) {
        var place = Key(.work).bytes
        // A lineage whose index is damaged keeps its items; the others' are carried out.
        var stuck: Set<LineageID> = []
        while let (key, item) = try nextWork(from: place) {
            place = key + [0]
            if case .seal = item { continue }
            if let lineage = item.lineage, stuck.contains(lineage) { continue }
            do throws(StoreError) { try carryOut(item, key) } catch {
                guard error.code == .damaged else { throw error }
                if let lineage = item.lineage { stuck.insert(lineage) }
                shard.logger.error("work cannot be carried out", metadata: ["work": "\(item)", "reason": "\(error)"])
            }
        }
    }

    private func carryOut(_ item: WorkItem, _ key: [UInt8]) throws(StoreError) {
        switch item {
        case .releaseVersion(let lineage, let version):
            try steps(finishing: key) { (transaction, cursor) throws(StoreError) in
                try transaction.releaseStep(lineage, version, &cursor)
            }
        case .trimHead(let lineage):
            try steps(finishing: key) { (transaction, cursor) throws(StoreError) in
                try transaction.trimStep(lineage, &cursor)
            }
        case .cancelVersion(let lineage, let version):
            try steps(finishing: key) { (transaction, _) throws(StoreError) in
                try transaction.cancelStep(lineage, version)
            }
        case .settle(let lineage, let version):
            try steps(finishing: key) { (transaction, cursor) throws(StoreError) in
                try transaction.settleStep(lineage, version, &cursor)
            }
            // Parts that waited for what is below them can be merged now.
            merges.forget()
        case .forgetExpected(let snapshot):
            try steps(finishing: key) { (transaction, _) throws(StoreError) in
                try transaction.forgetExpectedStep(snapshot)
            }
        case .seal: break
        }
    }

    private func nextWork(from place: [UInt8]) throws(StoreError) -> (key: [UInt8], item: WorkItem)? {
        let cursor = shard.makeView().index.makeCursor()
        cursor.seek(place)
        guard try cursor.isValid(), cursor.key.first == Table.work.rawValue else { return nil }
        return (Array(cursor.key), try WorkItem.decode(cursor.value))
    }

    /// Steps until one says that it was the last; that one removes the work item.
    private func steps(
        finishing key: [UInt8],
        _ step: @escaping @Sendable (Transaction, inout [UInt8]?) throws(StoreError) -> Bool
    ) throws(StoreError) {
        var cursor: [UInt8]?
        while true {
            let from = cursor
            let (isDone, next) = try change(entries: Transaction.releaseStep) { (transaction) throws(StoreError) in
                var cursor = from
                let isDone = try step(transaction, &cursor)
                if isDone { transaction.overlay.delete(key) }
                return (isDone, cursor)
            }
            if isDone { return }
            cursor = next
        }
    }

    // MARK: Seals

    /// Merges and seals what has become complete (SPEC S6), in the order in which it did.
    func sealSnapshots() throws(StoreError) {
        var place = Key(.work).bytes
        while !isStopped, let (key, item) = try nextWork(from: place) {
            place = key + [0]
            tidyIfWoken()
            if case .seal(let id) = item { try seal(id, work: key) }
        }
    }

    private func seal(_ id: SnapshotID, work key: [UInt8]) throws(StoreError) {
        guard let snapshot = try shard.makeView().snapshot(id), snapshot.state == .complete else {
            // Deleted on the way: what it held may be gone already.
            return try finishSealing(id, nil, work: key)
        }
        let isMerged = try mergeIfRoom(snapshot)
        if snapshot.seal != nil {
            if isMerged { try finishSealing(id, nil, work: key) }
        } else if let seal = try computeSeal(of: snapshot) {
            try finishSealing(id, seal, work: isMerged ? key : nil)
        } else if !isStopped {
            // Damaged: there is none to keep the rest for. (Stopped on the way: the next start begins it again.)
            try finishSealing(id, nil, work: key)
        }
    }

    /// - Parameter key: the work item, where nothing is left to do.
    private func finishSealing(_ id: SnapshotID, _ seal: SealWalk.Sealed?, work key: [UInt8]?) throws(StoreError) {
        try change(entries: 4) { (transaction) throws(StoreError) in
            if let seal { try transaction.setSeal(seal, of: id) }
            if let key { transaction.overlay.delete(key) }
        }
    }

    /// - Returns: whether all is merged; else it is tried again: a full store can still be sealed, but writes no chunks anew.
    private func mergeIfRoom(_ snapshot: SnapshotRecord) throws(StoreError) -> Bool {
        if shard.log.isFull { return false }
        do throws(StoreError) { try mergePatches(of: snapshot) } catch {
            guard error.code == .full else { throw error }
            return false
        }
        return true
    }

    /// Nil where there is none: told to stop, deleted on the way, or damaged.
    private func computeSeal(of snapshot: SnapshotRecord) throws(StoreError) -> SealWalk.Sealed? {
        do throws(StoreError) {
            return try SealWalk(shard: shard, snapshot: snapshot).seal { () throws(StoreError) in
                self.tidyIfWoken()
                if self.isStopped { return true }
                return try !self.isComplete(snapshot.id)
            }
        } catch {
            // A snapshot with damaged data has no seal; scrub and reads name the damage.
            guard error.code == .damaged else { throw error }
            if try isComplete(snapshot.id) {
                shard.logger.error(
                    "a snapshot cannot be sealed",
                    metadata: ["snapshot": "\(snapshot.id)", "reason": "\(error)"]
                )
            }
            return nil
        }
    }
}

extension Background {
    private func isComplete(_ id: SnapshotID) throws(StoreError) -> Bool {
        try shard.makeView().snapshot(id)?.state == .complete
    }
}

extension WorkItem {
    /// Whose space the item frees; nil for a seal.
    fileprivate var lineage: LineageID? {
        switch self {
        case .releaseVersion(let lineage, _), .trimHead(let lineage), .cancelVersion(let lineage, _): lineage
        case .seal, .settle, .forgetExpected: nil
        }
    }
}
