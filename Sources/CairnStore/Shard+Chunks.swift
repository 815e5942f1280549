public import CairnCore
import CairnLog

/// What a chunk is, without its bytes.
public struct ChunkShape: Sendable, Hashable {
    /// Uncompressed bytes.
    public let length: Int
    /// What its fingerprint is padded to.
    public let chunkSize: ChunkSize
}

/// Chunks by their fingerprints, apart from the volumes that hold them.
extension Shard {
    /// What the chunks are that the account has here; nil where it has none, or it is known to be damaged. A lookup each.
    public func chunkShapes(account: AccountID, _ fingerprints: [Fingerprint]) throws(StoreError) -> [ChunkShape?] {
        let view = makeView()
        guard let number = try view.accountNumber(account) else { return fingerprints.map { _ in nil } }
        var shapes: [ChunkShape?] = []
        shapes.reserveCapacity(fingerprints.count)
        for fingerprint in fingerprints {
            let record = try view.soundChunk(ChunkKey(own: number, fingerprint))
            shapes.append(record.map { ChunkShape(length: Int($0.rawLength), chunkSize: $0.chunkSize) })
        }
        return shapes
    }

    /// A chunk that the account has here, as it is stored; nil where it has none. Any thread; blocks on the disk.
    /// - Throws: `.damaged` where its record fails its checksum, `.io`.
    public func storedChunk(account: AccountID, _ fingerprint: Fingerprint) throws(StoreError) -> ChunkData? {
        var gone: RecordLocation?
        var isSynced = false
        for _ in 0..<8 {
            let view = makeView()
            guard let number = try view.accountNumber(account),
                let chunk = try view.soundChunk(ChunkKey(own: number, fingerprint))
            else {
                return nil
            }
            do throws(LogError) {
                guard let record = try log.read([chunk.location]).first else { return nil }
                guard case .chunk(let header) = record.header, header.fingerprint == fingerprint,
                    header.account == number.rawValue, header.owner == number.rawValue
                else {
                    throw LogError.damaged(.record(chunk.location))
                }
                return ChunkData(
                    fingerprint: fingerprint,
                    rawLength: chunk.rawLength,
                    rawChecksum: chunk.rawChecksum,
                    codec: chunk.codec,
                    bytes: record.bytes
                )
            } catch {
                try checkOpen()
                // Its segment was recycled since the lookup: a newer view knows where it is now. If it says that it is
                // still there, it is gone.
                if case .recycled(let location) = error, gone != location {
                    gone = location
                    continue
                }
                // As in `read`: it may just have been lost by a sync that fails.
                if case .damaged = error, !isSynced {
                    try waited(flush)
                    isSynced = true
                    continue
                }
                scrubber.suspect(.chunk(ChunkKey(own: number, fingerprint)))
                throw StoreError(error)
            }
        }
        throw StoreError(.io, "the data moves faster than it can be read")
    }
}
