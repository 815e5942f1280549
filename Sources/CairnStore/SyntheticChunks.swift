package import CairnCore
import CairnLog

/// Indexes as large as one likes, without their data: for measurements of what grows with an index.
extension Shard {
    private static let rowsPerBatch: UInt64 = 8192

    /// Puts rows into the index as if each of the volume's first `count` chunks had been written, with contents that no other has. There is
    /// nothing to be read behind them, the log knows nothing of them, and no account's use counts them: a store with them is good for
    /// nothing but to be measured, and to be closed in order before.
    /// - Parameter done: told of rows that were put, now and then; two for each chunk.
    package func putSyntheticChunks(_ count: UInt64, of id: VolumeID, done: (UInt64) -> Void) throws(StoreError) {
        let view = makeView()
        guard let volume = try view.volume(id), volume.chunkSize.count(for: volume.size) >= count else {
            throw StoreError(.invalid, "\(id) has no \(count) chunks")
        }
        let account = try view.lineage(volume.lineage).account
        let step = UInt64.max / max(count, 1)
        // In the order of their keys, so that RocksDB has nothing to sort.
        func fingerprint(_ chunk: UInt64) -> Fingerprint {
            let words = (chunk &* step, chunk &* 0x9e37_79b9_7f4a_7c15, ~chunk, volume.lineage.rawValue)
            let bytes = (words.0.bigEndian, words.1.bigEndian, words.2.bigEndian, words.3.bigEndian)
            return withUnsafeBytes(of: bytes) { Fingerprint($0) }
        }
        try putRows(count, done) { chunk, overlay in
            let record = ChunkRecord(
                location: RecordLocation(segment: SegmentID(1), offset: 0, length: 1, seed: 0),
                rawLength: UInt32(volume.chunkSize.bytes),
                rawChecksum: UInt32(truncatingIfNeeded: chunk),
                codec: .raw,
                chunkSize: volume.chunkSize,
                references: 1
            )
            overlay.put(Key.chunk(ChunkKey(own: account, fingerprint(chunk))), record.encoded)
        }
        var map = WrittenMap()
        try putRows(count, done) { chunk, overlay in
            let index = ChunkIndex(chunk)
            let entry = ManifestEntry(.data(fingerprint(chunk), owner: account))
            overlay.put(Key.manifest(volume.lineage, index, volume.dataVersion), entry.encoded)
            map[index] = true
            if chunk == count - 1 || (chunk + 1).isMultiple(of: UInt64(WrittenMap.chunks)) {
                let place = WrittenPlace(volume.lineage, volume.dataVersion, index)
                overlay.put(Key.written(place), map.encoded)
                map = WrittenMap()
            }
        }
        try database.flush()
    }

    private func putRows(
        _ count: UInt64,
        _ done: (UInt64) -> Void,
        _ put: (UInt64, IndexOverlay) -> Void
    ) throws(StoreError) {
        var next: UInt64 = 0
        while next < count {
            let overlay = IndexOverlay(database)
            let end = min(count, next + Self.rowsPerBatch)
            for chunk in next..<end { put(chunk, overlay) }
            try database.apply(overlay)
            done(end - next)
            next = end
        }
    }
}
