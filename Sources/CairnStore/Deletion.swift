import CairnCore

/// What deleting a set of volumes and snapshots would leave unread: the rules of ``Transaction/deleteVolume(_:)``,
/// ``Transaction/deleteSnapshot(_:)`` and of the work that follows, without doing any of it.
struct Deletion {
    private struct Place: Hashable {
        let lineage: LineageID
        let version: DataVersion
    }
    /// Versions of which somebody lets go, as they would be.
    private var changed: [Place: RetainedRecord] = [:]
    private var headless: Set<LineageID> = []
    private var cancelled: [LineageID: Set<DataVersion>] = [:]
    /// The lineages in which something changes, in the order of their numbers.
    private(set) var lineages: [LineageID] = []

    init(of targets: [UsageWalk.Target], _ view: ReadView) throws(StoreError) {
        var affected: Set<LineageID> = []
        for target in targets {
            switch target.name {
            case .snapshot(let id):
                guard let snapshot = try view.snapshot(id) else { continue }
                affected.insert(snapshot.lineage)
                try delete(snapshot, view)
            case .volume(let id):
                guard let volume = try view.volume(id) else { continue }
                affected.insert(volume.lineage)
                try delete(volume, view)
            }
        }
        try removeEmpty(&affected, view)
        lineages = affected.sorted()
    }

    private mutating func delete(_ volume: VolumeRecord, _ view: ReadView) throws(StoreError) {
        headless.insert(volume.lineage)
        for snapshot in try view.outstanding(of: volume.id) { try delete(snapshot, view) }
        for snapshot in try view.waiting(of: volume) where snapshot.id != volume.initialSnapshot {
            try delete(snapshot, view)
        }
        if volume.kind == .local { try change(volume.lineage, volume.base, view) { $0.isBase = false } }
        let clones = try view.retained(volume.lineage, .initial)?.clones ?? 0
        if clones == 0, let initial = try view.snapshot(volume.initialSnapshot) { try delete(initial, view) }
    }

    private mutating func delete(_ snapshot: SnapshotRecord, _ view: ReadView) throws(StoreError) {
        switch snapshot.state {
        case .error: return
        case .pending, .creating: cancelled[snapshot.lineage, default: []].insert(snapshot.version)
        case .complete, .waiting: break
        }
        try change(snapshot.lineage, snapshot.version, view) { $0.hasSnapshot = false }
    }

    private mutating func change(
        _ lineage: LineageID,
        _ version: DataVersion,
        _ view: ReadView,
        _ body: (inout RetainedRecord) -> Void
    ) throws(StoreError) {
        let place = Place(lineage: lineage, version: version)
        var record = RetainedRecord()
        if let known = changed[place] {
            record = known
        } else if let present = try view.retained(lineage, version) {
            record = present
        }
        body(&record)
        changed[place] = record
    }

    /// A lineage that holds nothing any more goes, and lets go of what it stood on; and so on.
    private mutating func removeEmpty(_ affected: inout Set<LineageID>, _ view: ReadView) throws(StoreError) {
        var left = Array(affected)
        var removed: Set<LineageID> = []
        while let lineage = left.popLast() {
            guard !removed.contains(lineage), try !hasHead(lineage, view), try held(lineage, view).isEmpty else {
                continue
            }
            removed.insert(lineage)
            guard let parent = try view.lineage(lineage).parent else { continue }
            try change(parent.lineage, parent.version, view) { if $0.clones > 0 { $0.clones -= 1 } }
            affected.insert(parent.lineage)
            left.append(parent.lineage)
        }
    }

    private func hasHead(_ lineage: LineageID, _ view: ReadView) throws(StoreError) -> Bool {
        if headless.contains(lineage) { return false }
        return try view.lineage(lineage).hasHead
    }

    /// The versions of a lineage that somebody would hold still, in rising order.
    private func held(_ lineage: LineageID, _ view: ReadView) throws(StoreError) -> [DataVersion] {
        let cursor = view.seeker
        cursor.seek(Key(.retained).then(lineage.rawValue).bytes)
        var versions: [DataVersion] = []
        while try cursor.isValid(), var key = KeyReader(cursor.key, .retained),
            key.take(UInt64.self) == lineage.rawValue, let version = key.take(UInt64.self).map({ DataVersion($0) })
        {
            let place = Place(lineage: lineage, version: version)
            var isHeld = changed[place]?.isHeld
            if isHeld == nil { isHeld = try RetainedRecord.decode(cursor.value).isHeld }
            if isHeld == true { versions.append(version) }
            cursor.next()
        }
        return versions
    }

    /// The entries of a lineage that nobody would read any more.
    func unread(
        _ id: LineageID,
        _ view: ReadView,
        every step: Int,
        _ check: () throws(StoreError) -> Void,
        _ body: (ManifestEntry) -> Void
    ) throws(StoreError) {
        let versions = try held(id, view)
        let hasHead = try hasHead(id, view)
        let cancelled = (cancelled[id] ?? []).union(try view.lineage(id).cancelled)
        let cursor = view.index.makeCursor()
        cursor.seek(Key(.manifests).then(id.rawValue).bytes)
        var (looked, present): (Int, UInt64?) = (0, nil)
        // The nearest newer entry of the chunk that stands alone.
        var cover: DataVersion?
        while try cursor.isValid(), var key = KeyReader(cursor.key, .manifests), key.take(UInt64.self) == id.rawValue,
            let chunk = key.take(UInt64.self), let version = key.take(UInt64.self).map({ DataVersion(~$0) })
        {
            if chunk != present { (present, cover) = (chunk, nil) }
            let entry = try ManifestEntry.decode(cursor.value)
            if cancelled.contains(version) {
                // Shown to its own version alone; covers nothing.
                if !versions.contains(version) { body(entry) }
            } else {
                let first = versions.partitioningIndex { $0 >= version }
                let isRead = first < versions.count && cover.map { versions[first] < $0 } ?? true
                if !isRead, cover != nil || !hasHead { body(entry) }
                if entry.isFull { cover = version }
            }
            looked += 1
            if looked.isMultiple(of: step) { try check() }
            cursor.next()
        }
    }
}

extension Array {
    /// The first place from which on `belongs` holds, which holds for no element before it.
    fileprivate func partitioningIndex(where belongs: (Element) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if belongs(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
