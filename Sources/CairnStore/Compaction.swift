import CairnCore
import CairnLog

/// Moving live records, so that a segment that holds few of them becomes free. What is stored does not change, only where.
extension Transaction {
    /// Writes live records again, and has the index name the new ones. Those that the index does not name (any more) are left out.
    func moveRecords(_ records: [Record]) throws(StoreError) {
        // An entry is written once for all of its parts: each time it would name all of them again.
        var parts: [PatchedPlace: [Record]] = [:]
        var places: [PatchedPlace] = []
        for record in records {
            switch record.header {
            case .chunk(let header): try moveChunk(header, record)
            case .patch(let header):
                let place = PatchedPlace(header)
                if parts[place] == nil { places.append(place) }
                parts[place, default: []].append(record)
            }
        }
        for place in places { try moveParts(place, parts[place] ?? []) }
    }

    private func moveChunk(_ header: ChunkHeader, _ record: Record) throws(StoreError) {
        let key = ChunkKey(header)
        guard let chunk = try chunk(key), chunk.location == record.location else { return }
        let location = group.appendChunk(header, record.bytes)
        dropLive(record.location)
        addLive(location)
        overlay.put(Key.chunk(key), chunk.moved(to: location).encoded)
        try forgetDamage(of: key)
    }

    private func moveParts(_ place: PatchedPlace, _ records: [Record]) throws(StoreError) {
        guard var entry = try entry(place.lineage, place.chunk, place.version) else { return }
        var isChanged = false
        for record in records {
            guard case .patch(let header) = record.header,
                let index = entry.patches.firstIndex(where: { $0.location == record.location })
            else { continue }
            let location = group.appendPatch(header, record.bytes)
            dropLive(record.location)
            try forgetDamage(ofPart: record.location)
            addLive(location)
            entry.patches[index] = Patch(start: header.start, location: location)
            isChanged = true
        }
        guard isChanged else { return }
        overlay.put(Key.manifest(place.lineage, place.chunk, place.version), entry.encoded)
        // A merge that was being made of the parts as they lay before is dropped: it is wanted still.
        if entry.patches.count >= Int(Transaction.mergePatches) { mergeSoon(place) }
    }
}

extension ManifestReader {
    /// What the index has to change where the record moves.
    struct MoveCost {
        /// Of a part: all parts of one entry are changed at once.
        let place: PatchedPlace?
        /// Bytes of a commit record.
        let bytes: Int
    }

    /// Nil where the index does not name the record; where it does, the record must stay, here or elsewhere.
    func costOfMoving(_ record: Record) throws(StoreError) -> MoveCost? {
        switch record.header {
        case .chunk(let header):
            guard try chunk(ChunkKey(header))?.location == record.location else { return nil }
            return MoveCost(place: nil, bytes: 128)
        case .patch(let header):
            let place = PatchedPlace(header)
            guard let bytes = try index.get(Key.manifest(place.lineage, place.chunk, place.version)),
                try ManifestEntry.decode(bytes).patches.contains(where: { $0.location == record.location })
            else { return nil }
            return MoveCost(place: place, bytes: bytes.count + 64)
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
