import CairnCore
import CairnLog
import Logging

/// Work that is written down in the index and goes on after a restart: releases, what follows from snapshots that are completed
/// or cancelled, and seals.
extension Background {
    /// Steps of releases in one round: other work comes in between.
    private static let releaseSteps = 256
    /// Turns of seals in one round.
    private static let sealTurns = 4

    /// Frees what versions and volumes that are gone held: accounts take turns, a step at a time, and each one's items are done
    /// in the order in which they came, for those of a lineage build on each other.
    func release() throws(StoreError) {
        do throws(StoreError) {
            for _ in 0..<Self.releaseSteps {
                try releases.look(shard)
                firstRelease.store(releases.first, ordering: .relaxed)
                guard let turn = releases.next() else { return stuck.removeAll() }
                if let cursor = try releaseStep(turn) {
                    releases.giveWay(cursor)
                } else {
                    try releases.finish(shard)
                }
            }
        } catch {
            releases.restart()
            stuck.removeAll()
            throw error
        }
    }

    /// - Returns: where to go on; nil where nothing more can be done.
    private func releaseStep(_ turn: WorkLanes<ReleaseCursor>.Turn) throws(StoreError) -> ReleaseCursor? {
        let key = Key.work(turn.number)
        guard let item = try workItem(key) else { return nil }
        // A lineage whose index is damaged keeps its items; the others' are carried out.
        if let lineage = item.freed, stuck.contains(lineage) { return nil }
        do throws(StoreError) { return try carryOut(item, key, from: turn.progress) } catch {
            guard error.code == .damaged else { throw error }
            if let lineage = item.freed { stuck.insert(lineage) }
            shard.logger.error("work cannot be carried out", metadata: ["work": "\(item)", "reason": "\(error)"])
            return nil
        }
    }

    private func workItem(_ key: [UInt8]) throws(StoreError) -> WorkItem? {
        try shard.makeView().index.get(key).map { bytes throws(StoreError) in try WorkItem.decode(bytes) }
    }

    /// One step of the item; the last one removes it.
    private func carryOut(_ item: WorkItem, _ key: [UInt8], from progress: ReleaseCursor?) throws(StoreError)
        -> ReleaseCursor?
    {
        let (isDone, next) = try change(entries: shard.options.releaseStep) { (transaction) throws(StoreError) in
            var cursor = progress ?? ReleaseCursor()
            let isDone = try transaction.step(of: item, &cursor)
            if isDone { transaction.overlay.delete(key) }
            return (isDone, cursor)
        }
        // Parts that waited for what is below them can be merged now.
        if isDone, case .settle = item { merges.forget() }
        return isDone ? nil : next
    }

    // MARK: Seals

    /// Merges and seals what has become complete (SPEC S6): accounts take turns, and each one's are done in the order in which they
    /// became so. Ends with the last of them, or after some turns when other work is due.
    func sealSnapshots() throws(StoreError) {
        do throws(StoreError) {
            var turns = 0
            while !isStopped, turns < Self.sealTurns || !isTidyDue {
                try seals.look(shard)
                guard let turn = seals.next() else { return }
                if let progress = try sealStep(turn) {
                    seals.giveWay(progress)
                } else {
                    try seals.finish(shard)
                }
                turns += 1
            }
        } catch {
            seals.restart()
            throw error
        }
    }

    /// - Returns: how far it has come; nil where nothing more can be done now.
    private func sealStep(_ turn: WorkLanes<Sealing>.Turn) throws(StoreError) -> Sealing? {
        let key = Key.work(turn.number)
        guard case .seal(let id) = try workItem(key) else { return nil }
        do throws(StoreError) { return try sealStep(id, turn.progress, work: key) } catch {
            // Of the index: it keeps its item, and no other from being sealed.
            guard error.code == .damaged else { throw error }
            noteUnsealed(id, error)
            return nil
        }
    }

    private func sealStep(_ id: SnapshotID, _ progress: Sealing?, work key: [UInt8]) throws(StoreError) -> Sealing? {
        guard let snapshot = try shard.makeView().snapshot(id), snapshot.state == .complete else {
            // Deleted on the way: what it held may be gone already.
            return try finishSealing(id, nil, work: key)
        }
        if let end = unsealable[id], execution.uptime < end { return nil }
        switch progress {
        case .walk(let walk, let isMerged): return try walkOn(walk, snapshot, work: key, isMerged)
        case .merge(let start): return try merge(snapshot, from: start, work: key)
        case nil: return try merge(snapshot, from: nil, work: key)
        }
    }

    private func merge(_ snapshot: SnapshotRecord, from start: [UInt8]?, work key: [UInt8]) throws(StoreError)
        -> Sealing?
    {
        let merging = try mergeIfRoom(snapshot, from: start)
        if case .partly(let next) = merging { return .merge(from: next) }
        let isMerged = merging == .all
        guard snapshot.seal == nil else {
            return isMerged ? try finishSealing(snapshot.id, nil, work: key) : nil
        }
        if let seal = try copiedSeal(of: snapshot) {
            return try finishSealing(snapshot.id, seal, work: isMerged ? key : nil)
        }
        return try walkOn(try SealWalk(shard: shard, snapshot: snapshot), snapshot, work: key, isMerged)
    }

    private func walkOn(_ walk: SealWalk, _ snapshot: SnapshotRecord, work key: [UInt8], _ isMerged: Bool)
        throws(StoreError) -> Sealing?
    {
        var walk = walk
        do throws(StoreError) {
            let seal = try walk.step()
            try keepNodes(of: &walk, snapshot)
            guard let seal else { return .walk(walk, isMerged: isMerged) }
            return try finishSealing(snapshot.id, seal, walk, work: isMerged ? key : nil)
        } catch {
            guard error.code == .damaged else { throw error }
            guard try isComplete(snapshot.id) else { return try finishSealing(snapshot.id, nil, work: key) }
            // It keeps its item, and is sealed when the data is healed; scrub and reads name the damage.
            if unsealable[snapshot.id] == nil { noteUnsealed(snapshot.id, error) }
            if unsealable.count >= Self.mostUnsealable { unsealable = [:] }
            unsealable[snapshot.id] = execution.uptime + UInt64(shard.options.sealRetry / .nanoseconds(1))
            return nil
        }
    }

    /// For later seals; on a full log there is no room for them.
    private func keepNodes(of walk: inout SealWalk, _ snapshot: SnapshotRecord) throws(StoreError) {
        var rest = walk.nodes[...]
        while !rest.isEmpty {
            let nodes = Array(rest.prefix(SealWalk.nodesPerChange))
            rest = rest.dropFirst(nodes.count)
            let (lineage, id, base) = (snapshot.lineage, snapshot.id, walk.earlierBase)
            do throws(StoreError) {
                let isKept = try change(entries: nodes.count) { (transaction) throws(StoreError) in
                    // Deleted meanwhile: its lineage may be gone, and nothing would take the nodes away.
                    guard try transaction.snapshot(id) != nil, try transaction.sealBase(lineage) == base else {
                        return false
                    }
                    for (group, node) in nodes { transaction.overlay.put(Key.sealNode(lineage, group), node.encoded) }
                    return true
                }
                guard isKept else { return walk.keptNodes(false) }
            } catch {
                guard error.code == .full else { throw error }
                return walk.keptNodes(false)
            }
        }
        walk.keptNodes(true)
    }

    /// A clone's initial snapshot is what it was made from.
    private func copiedSeal(of snapshot: SnapshotRecord) throws(StoreError) -> SealWalk.Sealed? {
        let view = shard.makeView()
        guard let parent = try view.lineage(snapshot.lineage).parent, parent.size == snapshot.size,
            let source = try view.snapshot(parent.snapshot), source.account == snapshot.account,
            source.lineage == parent.lineage, source.version == parent.version, let seal = source.seal,
            try !view.hasWritten(snapshot.lineage, upTo: snapshot.version)
        else { return nil }
        return SealWalk.Sealed(seal: seal, owners: source.owners)
    }

    private func noteUnsealed(_ id: SnapshotID, _ error: StoreError) {
        shard.logger.error("a snapshot cannot be sealed", metadata: ["snapshot": "\(id)", "reason": "\(error)"])
    }

    /// - Parameter key: the work item, where nothing is left to do.
    private func finishSealing(
        _ id: SnapshotID,
        _ seal: SealWalk.Sealed?,
        _ walk: SealWalk? = nil,
        work key: [UInt8]?
    ) throws(StoreError) -> Sealing? {
        let (earlier, base) = (walk?.earlierBase, walk?.base)
        unsealable[id] = nil
        try change(entries: 4) { (transaction) throws(StoreError) in
            if let seal { try transaction.setSeal(seal, of: id) }
            if let base, let snapshot = try transaction.snapshot(id),
                try transaction.sealBase(snapshot.lineage) == earlier
            {
                transaction.overlay.put(Key.sealBase(snapshot.lineage), base.encoded)
            }
            if let key { transaction.overlay.delete(key) }
        }
        return nil
    }

    /// Where there is no room it is tried again in another round: a full store can still be sealed, but writes no chunks anew.
    private func mergeIfRoom(_ snapshot: SnapshotRecord, from start: [UInt8]?) throws(StoreError) -> Merging {
        if shard.log.isFull { return .noRoom }
        do throws(StoreError) {
            return try mergePatches(of: snapshot, from: start).map { .partly($0) } ?? .all
        } catch {
            guard error.code == .full else { throw error }
            return .noRoom
        }
    }

    private func isComplete(_ id: SnapshotID) throws(StoreError) -> Bool {
        try shard.makeView().snapshot(id)?.state == .complete
    }
}

/// How far a release has come.
struct ReleaseCursor {
    /// The key to go on with, where its steps need one.
    var key: [UInt8]?
    /// Whether it passed something that a version still retained.
    var hasKept = false
}

/// How far a snapshot's seal has come.
enum Sealing {
    /// Its parts are merged up to this key.
    case merge(from: [UInt8])
    case walk(SealWalk, isMerged: Bool)
}

/// What became of merging a snapshot's parts.
private enum Merging: Equatable {
    case all
    case partly([UInt8])
    case noRoom
}

extension Transaction {
    /// A step of a release; true when it was the last.
    fileprivate func step(of item: WorkItem, _ cursor: inout ReleaseCursor) throws(StoreError) -> Bool {
        switch item {
        case .releaseVersion(let lineage, let version): try releaseStep(lineage, version, &cursor.key)
        case .trimHead(let lineage): try trimStep(lineage, &cursor)
        case .cancelVersion(let lineage, let version): try cancelStep(lineage, version, &cursor.key)
        case .settle(let lineage, let version): try settleStep(lineage, version, &cursor.key)
        case .forgetExpected(let snapshot): try forgetExpectedStep(snapshot, &cursor.key)
        case .seal: preconditionFailure("a seal is no release")
        }
    }
}

extension WorkItem {
    var isSeal: Bool { if case .seal = self { true } else { false } }

    /// The lineage whose space the item frees; nil where it frees none.
    var freed: LineageID? {
        switch self {
        case .releaseVersion(let lineage, _), .trimHead(let lineage), .cancelVersion(let lineage, _): lineage
        case .seal, .settle, .forgetExpected: nil
        }
    }
}
