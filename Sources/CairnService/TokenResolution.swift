import CairnCore
import CairnCrypto
import CairnStore

/// Settles what an upload's tokens stand for, before the shard's transaction: a chunk of the account may lie on another shard
/// than the volume (SPEC V10, A1), and a token fits only where the chunk size that it was made with is the volume's.
///
/// Runs on a worker. A token of a whole chunk on the volume's own shard, which is nearly every one, costs a lookup.
struct TokenResolution {
    let store: Store
    let home: Shard
    let account: AccountID
    let chunkSize: ChunkSize
    let volumeSize: UInt64
    /// Stored bytes that may become data: with the call's own they go into one commit.
    let copyRoom: Int

    /// Chunks that are not on the volume's shard become data for it, as far as there is room: what is beyond is refused as if
    /// it were not here, and the client sends it.
    /// - Throws: INVALID_CHUNK_TOKEN naming the block.
    func resolve(_ changes: [Change]) throws(ServiceError) -> [Change] {
        var resolved = changes
        var copied = 0
        let named = changes.enumerated().compactMap { index, change -> (index: Int, token: Fingerprint)? in
            if case .token(_, let token, _) = change { (index, token) } else { nil }
        }
        if named.isEmpty { return changes }
        // Pinned first: one that is just being purged here counts as gone, though another shard may hold it for a lease.
        let (isPinned, shapes) = try storeCall { () throws(StoreError) in
            let tokens = named.map(\.token)
            return (
                try home.pin(account: account, tokens), try home.chunkShapes(account: account, tokens)
            )
        }
        for (place, index) in named.map(\.index).enumerated() {
            guard case .token(let chunk, let token, let block) = changes[index] else { continue }
            let room = Int(min(UInt64(chunkSize.bytes), volumeSize - chunkSize.offset(of: chunk)))
            let shape = isPinned[place] ? shapes[place] : nil
            // Not longer than the room that it is for, and its fingerprint is over as much as here: the usual case.
            if let shape, shape.chunkSize == chunkSize, shape.length <= room { continue }
            guard let data = try find(token, isHome: shape != nil) else { continue }
            guard try fits(data, room) else {
                throw ServiceError(
                    .invalidChunkToken,
                    "chunk \(token) is not one of this volume's chunk size",
                    blockIndex: block
                )
            }
            if shape != nil { continue }
            copied += data.bytes.count
            guard copied <= copyRoom else {
                throw ServiceError(.invalidChunkToken, "chunk \(token) is not on the volume's shard", blockIndex: block)
            }
            resolved[index] = .data(chunk, data)
        }
        return resolved
    }

    /// Nil where the account has no such chunk, or only a damaged one: then its bytes must be sent.
    private func find(_ token: Fingerprint, isHome: Bool) throws(ServiceError) -> ChunkData? {
        for shard in isHome ? [home] : store.shards where isHome || shard.index != home.index {
            do throws(StoreError) {
                if let data = try shard.storedChunk(account: account, token) { return data }
            } catch {
                guard error.code == .damaged else { throw ServiceError(error) }
            }
        }
        return nil
    }

    /// Whether the chunk is what the token would be in this volume: padded to its chunk size, and no data beyond `room`.
    private func fits(_ data: ChunkData, _ room: Int) throws(ServiceError) -> Bool {
        let length = Int(data.rawLength)
        guard length <= chunkSize.bytes else { return false }
        var raw = data.bytes
        if data.codec == .lz4 {
            let buffer = BufferPool.shared.buffer(capacity: length)
            buffer.count = length
            guard LZ4.decompress(raw.bytes, into: UnsafeMutableRawBufferPointer(rebasing: buffer.memory[0..<length]))
            else {
                return false
            }
            raw = buffer.slice
        }
        guard raw.count == length, SHA256.hash(raw.bytes, padding: chunkSize.bytes - length) == data.fingerprint else {
            return false
        }
        return length <= room || raw.part(room..<length).bytes.isAllZero
    }
}
