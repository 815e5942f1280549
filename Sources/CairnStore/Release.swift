import CairnCore
import CairnLog

/// Freeing what no version reads any more, a bounded step at a time; each step is a transaction of its own, so that a crash
/// in between loses nothing and the work goes on after it.
extension Transaction {
    /// A step of a version's release: dead entries that only it still read. True when there is nothing left to do.
    ///
    /// Those have their death after the version, and up to the next one that is retained: later deaths are read by that one.
    func releaseStep(_ lineage: LineageID, _ version: DataVersion, _ cursorKey: inout [UInt8]?) throws(StoreError)
        -> Bool
    {
        guard try overlay.get(Key.lineage(lineage)) != nil else { return true }
        guard try removeCancelled(lineage, version) else { return false }
        let record = try self.lineage(lineage)
        let prefix = Key(.dead).then(lineage.rawValue).bytes
        let limit = try nextRetained(lineage, from: version.next) ?? DataVersion(.max)
        var batch: [(chunk: ChunkIndex, birth: DataVersion, key: [UInt8])] = []
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(cursorKey ?? Key(.dead).then(lineage.rawValue).then(version.rawValue + 1).bytes)
        var isAtEnd = true
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .dead),
            key.take(UInt64.self) != nil, let death = key.take(UInt64.self), let chunk = key.take(UInt64.self),
            let birth = key.take(UInt64.self), death <= limit.rawValue
        {
            if batch.count == entriesPerStep {
                isAtEnd = false
                break
            }
            cursorKey = Array(cursor.key) + [0]
            // What was cancelled covers nothing, though its own work is not done yet: that one looks at these again.
            if !record.cancelled.contains(DataVersion(death)),
                try !isRetained(lineage, from: DataVersion(birth), before: DataVersion(death))
            {
                batch.append((ChunkIndex(chunk), DataVersion(birth), Array(cursor.key)))
            }
            cursor.next()
        }
        for dead in batch {
            overlay.delete(dead.key)
            if let entry = try entry(lineage, dead.chunk, dead.birth) {
                try removeEntry(lineage, record, dead.chunk, dead.birth, entry)
            }
        }
        guard isAtEnd else { return false }
        // Without a volume the newest retained version is the top: what is newer has no reader at all.
        if !record.hasHead, limit.rawValue == .max { try addWork(.trimHead(lineage)) }
        return true
    }

    /// A step of the walk that frees the entries newer than the newest retained version of a lineage without a volume.
    ///
    /// Where nothing is retained the lineage goes with all there is of it.
    func trimStep(_ lineage: LineageID, _ place: inout ReleaseCursor) throws(StoreError) -> Bool {
        guard try overlay.get(Key.lineage(lineage)) != nil else { return true }
        let record = try self.lineage(lineage)
        guard !record.hasHead else { return true }
        if let key = place.key, key.first != Table.manifests.rawValue { return try removeRest(lineage, &place.key) }
        let newest = try newestRetained(lineage)
        let prefix = Key(.manifests).then(lineage.rawValue).bytes
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(place.key ?? prefix)
        var batch: [(chunk: ChunkIndex, version: DataVersion, entry: ManifestEntry)] = []
        var looked = 0
        var isAtEnd = true
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .manifests),
            key.take(UInt64.self) != nil, let chunk = key.take(UInt64.self), let inverted = key.take(UInt64.self)
        {
            if batch.count == entriesPerStep || looked == entriesPerStep * 16 {
                isAtEnd = false
                break
            }
            looked += 1
            place.key = Array(cursor.key) + [0]
            if newest.map({ ~inverted > $0.rawValue }) ?? true {
                batch.append((ChunkIndex(chunk), DataVersion(~inverted), try ManifestEntry.decode(cursor.value)))
            } else {
                place.hasKept = true
            }
            cursor.next()
        }
        for found in batch {
            try forgetDead(lineage, found.chunk, death: found.version)
            try removeEntry(lineage, record, found.chunk, found.version, found.entry)
        }
        guard isAtEnd else { return false }
        guard newest == nil else { return true }
        // What the walk passed while a version retained it is left where that version went meanwhile: the walk begins again.
        guard !place.hasKept else {
            place = ReleaseCursor()
            return false
        }
        place.key = Key(.dead).then(lineage.rawValue).bytes
        return try removeRest(lineage, &place.key)
    }

    /// A step of removing a lineage without entries; true when it has gone.
    private func removeRest(_ lineage: LineageID, _ place: inout [UInt8]?) throws(StoreError) -> Bool {
        // Deaths whose buryer went first are left over.
        for table in [Table.dead, .sealNodes] where table != .dead || place?.first == table.rawValue {
            let prefix = Key(table).then(lineage.rawValue).bytes
            if place?.first != table.rawValue { place = prefix }
            guard try deleteSome(prefix, from: &place) else { return false }
        }
        overlay.delete(Key.sealBase(lineage))
        try removeLineage(lineage)
        return true
    }

    /// Deletes keys that begin with `prefix`; true when none is left.
    /// - Parameter place: where to go on; nil: at the first. Steps do not pass what those before deleted.
    func deleteSome(_ prefix: [UInt8], from place: inout [UInt8]?) throws(StoreError) -> Bool {
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(place ?? prefix)
        var keys: [[UInt8]] = []
        while keys.count < entriesPerStep, try cursor.isValid(), cursor.key.starts(with: prefix) {
            keys.append(Array(cursor.key))
            cursor.next()
        }
        for key in keys { overlay.delete(key) }
        if let last = keys.last { place = last + [0] }
        return keys.count < entriesPerStep
    }

    /// The entry at `death` goes, so what it had buried lives again as the top: it leaves the dead list, and is found by this
    /// walk, or by a later one.
    private func forgetDead(_ lineage: LineageID, _ chunk: ChunkIndex, death: DataVersion) throws(StoreError) {
        let prefix = Key(.dead).then(lineage.rawValue).then(death.rawValue).then(chunk.rawValue).bytes
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(prefix)
        var keys: [[UInt8]] = []
        while try cursor.isValid(), cursor.key.starts(with: prefix) {
            keys.append(Array(cursor.key))
            cursor.next()
        }
        for key in keys { overlay.delete(key) }
    }

    func entry(_ lineage: LineageID, _ chunk: ChunkIndex, _ version: DataVersion) throws(StoreError) -> ManifestEntry? {
        try overlay.get(Key.manifest(lineage, chunk, version)).map { bytes throws(StoreError) in
            try ManifestEntry.decode(bytes)
        }
    }
}
