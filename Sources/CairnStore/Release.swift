import CairnCore
import CairnLog

/// Freeing what no version reads any more, a bounded step at a time; each step is a transaction of its own, so that a crash
/// in between loses nothing and the work goes on after it.
extension Transaction {
    /// Entries that one step frees: its commit must fit in a segment of the smallest size.
    static let releaseStep = 256

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
        let limit = try nextRetained(lineage, after: version) ?? DataVersion(.max)
        var batch: [(chunk: ChunkIndex, birth: DataVersion, key: [UInt8])] = []
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(cursorKey ?? Key(.dead).then(lineage.rawValue).then(version.rawValue + 1).bytes)
        var isAtEnd = true
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .dead),
            key.take(UInt64.self) != nil, let death = key.take(UInt64.self), let chunk = key.take(UInt64.self),
            let birth = key.take(UInt64.self), death <= limit.rawValue
        {
            if batch.count == Transaction.releaseStep {
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
    func trimStep(_ lineage: LineageID, _ cursorKey: inout [UInt8]?) throws(StoreError) -> Bool {
        guard try overlay.get(Key.lineage(lineage)) != nil else { return true }
        let record = try self.lineage(lineage)
        guard !record.hasHead else { return true }
        let newest = try newestRetained(lineage)
        let prefix = Key(.manifests).then(lineage.rawValue).bytes
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(cursorKey ?? prefix)
        var batch: [(chunk: ChunkIndex, version: DataVersion, entry: ManifestEntry)] = []
        var looked = 0
        var isAtEnd = true
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .manifests),
            key.take(UInt64.self) != nil, let chunk = key.take(UInt64.self), let inverted = key.take(UInt64.self)
        {
            if batch.count == Transaction.releaseStep || looked == Transaction.releaseStep * 16 {
                isAtEnd = false
                break
            }
            looked += 1
            cursorKey = Array(cursor.key) + [0]
            if newest.map({ ~inverted > $0.rawValue }) ?? true {
                batch.append((ChunkIndex(chunk), DataVersion(~inverted), try ManifestEntry.decode(cursor.value)))
            }
            cursor.next()
        }
        for found in batch {
            try forgetDead(lineage, found.chunk, death: found.version)
            try removeEntry(lineage, record, found.chunk, found.version, found.entry)
        }
        guard isAtEnd else { return false }
        guard newest == nil else { return true }
        // Deaths whose buryer went first are left over.
        guard try deleteSome(Key(.dead).then(lineage.rawValue).bytes) else { return false }
        guard try deleteSome(Key(.sealNodes).then(lineage.rawValue).bytes) else { return false }
        overlay.delete(Key.sealBase(lineage))
        try removeLineage(lineage)
        return true
    }

    /// Deletes keys that begin with `prefix`; true when none is left.
    func deleteSome(_ prefix: [UInt8]) throws(StoreError) -> Bool {
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(prefix)
        var keys: [[UInt8]] = []
        while keys.count < Transaction.releaseStep, try cursor.isValid(), cursor.key.starts(with: prefix) {
            keys.append(Array(cursor.key))
            cursor.next()
        }
        for key in keys { overlay.delete(key) }
        return keys.count < Transaction.releaseStep
    }

    /// The entry at `death` goes, so what it had buried lives again as the top: it leaves the dead list, and is found by this
    /// walk, or by a later one.
    private func forgetDead(_ lineage: LineageID, _ chunk: ChunkIndex, death: DataVersion) throws(StoreError) {
        let cursor = seeker
        let prefix = Key(.dead).then(lineage.rawValue).then(death.rawValue).then(chunk.rawValue).bytes
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

    private func nextRetained(_ lineage: LineageID, after version: DataVersion) throws(StoreError) -> DataVersion? {
        let cursor = seeker
        cursor.seek(Key.retained(lineage, version.next))
        guard try cursor.isValid(), var key = KeyReader(cursor.key, .retained),
            key.take(UInt64.self) == lineage.rawValue
        else {
            return nil
        }
        return key.take(UInt64.self).map { DataVersion($0) }
    }

    private func newestRetained(_ lineage: LineageID) throws(StoreError) -> DataVersion? {
        var newest: DataVersion?
        let cursor = overlay.makeCursor()
        cursor.seek(Key(.retained).then(lineage.rawValue).bytes)
        while try cursor.isValid(), var key = KeyReader(cursor.key, .retained),
            key.take(UInt64.self) == lineage.rawValue
        {
            newest = key.take(UInt64.self).map { DataVersion($0) }
            cursor.next()
        }
        return newest
    }
}
