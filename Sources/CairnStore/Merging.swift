import CairnCore
import CairnCrypto
import CairnLog

/// A chunk with parts, put together: read, overlaid, hashed and compressed off the shard's queue.
struct MergedChunk {
    /// Nil where all of it is zero.
    struct Merged: Sendable {
        let chunk: ChunkData?
    }

    let shard: Shard
    let place: PatchedPlace
    let lineage: LineageRecord
    let view: ReadView
    /// Whether zeros stay data, for they are another account's: else whether they are zeros would be told to all (SPEC D5).
    let keepsZeros: Bool

    /// Nil where the chunk's bytes have moved since `view` was made: the next round finds them.
    func load() throws(StoreError) -> Merged? {
        let start = lineage.chunkSize.offset(of: place.chunk)
        // As long as a chunk, whatever the volume's size: what is beyond is zero, as fingerprints want it (SPEC V6).
        let source = ReadSource(
            lineage: place.lineage,
            version: place.version,
            size: start + UInt64(lineage.chunkSize.bytes),
            chunkSize: lineage.chunkSize
        )
        let pieces: [ReadPiece]
        do throws(ChunkReading.Failure) {
            // Of one chunk: one step.
            let reading = ChunkReading(shard: shard, source: source, followsHints: false)
            var progress = try reading.begin([start..<source.size], in: view)
            try reading.advance(&progress)
            pieces = progress.pieces
        } catch {
            guard case .failed(let failure) = error else {
                // Where nothing can be had of what the index names still, it is damaged: else it would be tried for ever.
                _ = try shard.read(source, [start..<source.size], acceptsLZ4: false, followsHints: false)
                return nil
            }
            throw failure
        }
        guard let piece = pieces.first, case .plain(let bytes, _) = piece.content,
            keepsZeros || !bytes.bytes.isAllZero
        else { return Merged(chunk: nil) }
        let room = bytes.count - bytes.count / 16
        let packed = BufferPool.shared.buffer(capacity: room)
        let count = LZ4.compress(bytes.bytes, into: UnsafeMutableRawBufferPointer(rebasing: packed.memory[0..<room]))
        packed.count = count ?? 0
        return Merged(
            chunk: ChunkData(
                fingerprint: SHA256.hash(bytes.bytes),
                rawLength: UInt32(bytes.count),
                rawChecksum: CRC32C.extend(0, bytes.bytes),
                codec: count == nil ? .raw : .lz4,
                bytes: count == nil ? bytes : packed.slice
            )
        )
    }
}

extension ReadSource {
    init(lineage: LineageID, version: DataVersion, size: UInt64, chunkSize: ChunkSize) {
        (self.lineage, self.version, self.size, self.chunkSize) = (lineage, version, size, chunkSize)
    }
}

extension Transaction {
    /// Replaces an entry by what it shows, if it is still the same: the content does not change, only how it is kept.
    /// - Parameter owner: whose data it is (SPEC V8).
    func replaceMerged(
        _ place: PatchedPlace,
        expected: ManifestEntry,
        with data: ChunkData?,
        owner: AccountNumber
    ) throws(StoreError) {
        guard try overlay.get(Key.lineage(place.lineage)) != nil,
            let present = try entry(place.lineage, place.chunk, place.version), present == expected,
            try canMerge(present, place)
        else { return }
        let lineage = try self.lineage(place.lineage)
        var merged = ManifestEntry(.zeros)
        if let data {
            let hint = try addReference(storing: data, lineage, owner: owner)
            merged = ManifestEntry(.data(data.fingerprint, owner: owner), hint: hint)
        }
        // It stands alone now: what was below it only for its sake is not needed by it any more.
        if !present.isFull { try buryOlder(lineage: place.lineage, lineage, place.chunk, death: place.version) }
        try release(present, lineage.account)
        overlay.delete(Key.patched(place.lineage, place.version, place.chunk))
        try putEntry(place.lineage, place.chunk, place.version, merged)
    }
}

extension ManifestReader {
    /// Whether what the entry shows is there to stay: nothing comes to an ancestor any more that would show through (SPEC V5),
    /// and the version was not cancelled, for then it must cover nothing.
    func canMerge(_ entry: ManifestEntry, _ place: PatchedPlace) throws(StoreError) -> Bool {
        let lineage = try self.lineage(place.lineage)
        if lineage.cancelled.contains(place.version) { return false }
        if entry.isFull { return true }
        return try isSettled(place.lineage)
    }
}
