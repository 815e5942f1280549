import CairnCore
import CairnLog

/// Moving live records, so that a segment that holds few of them becomes free. What is stored does not change, only where.
extension Transaction {
    /// Writes a live record again, and has the index name the new one. Nothing, where the index does not name it (any more).
    func moveRecord(_ record: Record) throws(StoreError) {
        switch record.header {
        case .chunk(let header): try moveChunk(header, record)
        case .patch(let header): try movePatch(header, record)
        }
    }

    private func moveChunk(_ header: ChunkHeader, _ record: Record) throws(StoreError) {
        let key = ChunkKey(header)
        guard let chunk = try chunk(key), chunk.location == record.location else { return }
        let location = group.appendChunk(header, record.bytes)
        dropLive(record.location)
        addLive(location)
        overlay.put(Key.chunk(key), chunk.moved(to: location).encoded)
    }

    private func movePatch(_ header: PatchHeader, _ record: Record) throws(StoreError) {
        let place = PatchedPlace(header)
        guard var entry = try entry(place.lineage, place.chunk, place.version),
            let index = entry.patches.firstIndex(where: { $0.location == record.location })
        else { return }
        let location = group.appendPatch(header, record.bytes)
        dropLive(record.location)
        addLive(location)
        entry.patches[index] = Patch(start: header.start, location: location)
        overlay.put(Key.manifest(place.lineage, place.chunk, place.version), entry.encoded)
        // A merge that was being made of the parts as they lay before is dropped: it is wanted still.
        if entry.patches.count >= Int(Transaction.mergePatches) { mergeSoon(place) }
    }
}

extension ManifestReader {
    /// Whether the index names the record: it must stay, here or elsewhere.
    func isLive(_ record: Record) throws(StoreError) -> Bool {
        switch record.header {
        case .chunk(let header): return try chunk(ChunkKey(header))?.location == record.location
        case .patch(let header):
            let place = PatchedPlace(header)
            let bytes = try index.get(Key.manifest(place.lineage, place.chunk, place.version))
            guard let bytes else { return false }
            return try ManifestEntry.decode(bytes).patches.contains { $0.location == record.location }
        }
    }
}

extension ChunkKey {
    fileprivate init(_ header: ChunkHeader) {
        self.init(
            account: AccountNumber(rawValue: header.account),
            owner: AccountNumber(rawValue: header.owner),
            header.fingerprint
        )
    }
}

extension PatchedPlace {
    fileprivate init(_ header: PatchHeader) {
        self.init(lineage: LineageID(header.lineage), version: header.version, chunk: header.chunk)
    }
}

extension ChunkRecord {
    fileprivate func moved(to location: RecordLocation) -> ChunkRecord {
        ChunkRecord(
            location: location,
            rawLength: rawLength,
            rawChecksum: rawChecksum,
            codec: codec,
            chunkSize: chunkSize,
            references: references
        )
    }
}
