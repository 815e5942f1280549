import CairnCore

/// How long an account's claim on a chunk lasts (SPEC U7): as good as a manifest entry that names it, until then.
struct LeaseRecord: StoredRecord, Hashable {
    /// Milliseconds since 1970-01-01 UTC.
    let expiresAt: UInt64

    init(expiresAt: UInt64) { self.expiresAt = expiresAt }

    func write(to writer: inout ByteWriter) { writer.put(expiresAt) }

    init?(_ reader: inout ByteReader) {
        guard let expiresAt = reader.take(UInt64.self) else { return nil }
        self.init(expiresAt: expiresAt)
    }
}

extension Key {
    static func lease(_ chunk: ChunkKey) -> [UInt8] {
        Key(.leases).then(chunk).bytes
    }

    /// Leases in the order in which they end.
    static func leaseEnd(_ expiresAt: UInt64, _ chunk: ChunkKey) -> [UInt8] {
        Key(.leaseEnds).then(expiresAt).then(chunk).bytes
    }
}

extension ManifestReader {
    func lease(_ chunk: ChunkKey) throws(StoreError) -> LeaseRecord? {
        guard let bytes = try index.get(Key.lease(chunk)) else { return nil }
        return try LeaseRecord.decode(bytes)
    }

    /// Leases that end no later than `time`, the oldest first.
    /// - Parameter place: where to begin; nil: at the first there is.
    func leases(endingBy time: UInt64, from place: [UInt8]?, limit: Int) throws(StoreError)
        -> [(expiresAt: UInt64, chunk: ChunkKey)]
    {
        let prefix = Key(.leaseEnds).bytes
        let cursor = index.makeCursor(within: prefix)
        cursor.seek(place ?? prefix)
        var found: [(UInt64, ChunkKey)] = []
        while found.count < limit, try cursor.isValid(), var key = KeyReader(cursor.key, .leaseEnds),
            let end = key.take(UInt64.self), end <= time, let chunk = key.takeChunk()
        {
            found.append((end, chunk))
            cursor.next()
        }
        return found
    }
}
