import CairnCore

/// Removing what a cancelled snapshot had written, a bounded step at a time.
extension Transaction {
    /// A step of a cancelled version's removal; true when there is nothing left to do.
    ///
    /// First its entries cover nothing any more: what they had buried is the top again, or is covered by a later snapshot's.
    /// Then, unless clones stand on it, they go.
    /// - Parameter place: where to go on. Nothing comes behind it: nothing is written at a cancelled version, and nothing dies of it.
    func cancelStep(_ lineage: LineageID, _ version: DataVersion, _ place: inout [UInt8]?) throws(StoreError) -> Bool {
        guard try overlay.get(Key.lineage(lineage)) != nil else { return true }
        let prefix = Key(.dead).then(lineage.rawValue).then(version.rawValue).bytes
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(place ?? prefix)
        var buried: [(chunk: ChunkIndex, birth: DataVersion, key: [UInt8])] = []
        while buried.count < entriesPerStep, try cursor.isValid(), cursor.key.starts(with: prefix),
            var key = KeyReader(cursor.key, .dead), key.take(UInt64.self) != nil, key.take(UInt64.self) != nil,
            let chunk = key.take(UInt64.self), let birth = key.take(UInt64.self)
        {
            buried.append((ChunkIndex(chunk), DataVersion(birth), Array(cursor.key)))
            place = Array(cursor.key) + [0]
            cursor.next()
        }
        for dead in buried {
            overlay.delete(dead.key)
            if let cover = try cover(lineage, dead.chunk, above: version) {
                overlay.put(Key.dead(lineage, death: cover, dead.chunk, birth: dead.birth), [])
            }
        }
        guard buried.isEmpty else { return false }
        return try removeCancelled(lineage, version)
    }

    /// A step of removing a cancelled version's entries, where nothing stands on it; true when there is nothing left to do.
    func removeCancelled(_ id: LineageID, _ version: DataVersion) throws(StoreError) -> Bool {
        var lineage = try self.lineage(id)
        guard lineage.cancelled.contains(version), try retained(id, version) == nil else { return true }
        settleWritten()
        let prefix = Key(.written).then(id.rawValue).then(version.rawValue).bytes
        let cursor = overlay.makeCursor(within: prefix)
        cursor.seek(prefix)
        if try cursor.isValid(), cursor.key.starts(with: prefix), let group = Self.group(cursor.key) {
            // At most 512 entries: a step's worth, as it is.
            for chunk in try WrittenMap(cursor.value).chunks(of: group) {
                guard let entry = try entry(id, chunk, version) else {
                    throw StoreError(.damaged, "chunk \(chunk) of lineage \(id) is marked as written and is missing")
                }
                try removeEntry(id, lineage, chunk, version, entry)
            }
            return false
        }
        lineage.cancelled.removeAll { $0 == version }
        put(lineage, id)
        return true
    }

    private static func group(_ key: UnsafeRawBufferPointer) -> UInt64? {
        guard var reader = KeyReader(key, .written), reader.take(UInt64.self) != nil, reader.take(UInt64.self) != nil
        else { return nil }
        return reader.take(UInt64.self)
    }

    /// The oldest version above `version` whose entry of the chunk stands alone, so that it covers what is below; cancelled ones
    /// cover nothing. Only snapshots outstanding at the same time can have one.
    func cover(_ lineage: LineageID, _ chunk: ChunkIndex, above version: DataVersion) throws(StoreError) -> DataVersion?
    {
        let cancelled = try self.lineage(lineage).cancelled
        let prefix = Key(.manifests).then(lineage.rawValue).then(chunk.rawValue).bytes
        let cursor = seeker
        cursor.seek(prefix)
        var found: DataVersion?
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .manifests),
            key.take(UInt64.self) != nil, key.take(UInt64.self) != nil,
            let newer = key.take(UInt64.self).map({ DataVersion(~$0) }), newer > version
        {
            if !cancelled.contains(newer), try ManifestEntry.decode(cursor.value).isFull { found = newer }
            cursor.next()
        }
        return found
    }
}
