import CairnCore
import CairnCrypto
import CairnStore

/// Settles what an upload's tokens stand for, before the shard's transaction: a chunk of the account may lie on another shard
/// than the volume (SPEC V10, A1), and a token fits only where the chunk size that it was made with is the volume's.
///
/// Runs on a worker, in steps. A token of a whole chunk on the volume's own shard, which is nearly every one, costs two look-ups.
struct TokenResolution {
    let store: Store
    let home: Shard
    let account: AccountID
    let chunkSize: ChunkSize
    let volumeSize: UInt64
    /// Stored bytes that may become data: with the call's own they go into one commit.
    let copyRoom: Int
    /// Counts what is copied for the call; throws THROTTLED.
    var makeRoom: @Sendable (Int) throws(ServiceError) -> Void = { _ in }

    /// How far it has come.
    struct Work: Sendable {
        fileprivate(set) var changes: [Change]
        /// The changes up to this place were looked at.
        fileprivate var looked = 0
        /// Places of those whose bytes must be read, and how many of them were.
        fileprivate var unproven: [(place: Int, isHome: Bool)] = []
        fileprivate var proven = 0
        /// Whether there is room for those of other shards.
        fileprivate var hasRoom = false
        /// Stored bytes that became data.
        fileprivate var copied = 0

        init(_ changes: [Change]) { self.changes = changes }
    }

    /// A step: some look-ups, then some reads. Chunks that are not on the volume's shard become data for it, as far as there is
    /// room: what is beyond is refused as if it were not here, and the client sends it.
    /// - Returns: whether it was the last.
    /// - Throws: INVALID_CHUNK_TOKEN naming the block; THROTTLED.
    func resolve(_ work: inout Work) throws(ServiceError) -> Bool {
        // Two for each token.
        guard try lookUp(&work, Workers.lookUpsPerJob / 2) else { return false }
        if !work.hasRoom {
            let most = mostCopied(work)
            if most > 0 { try makeRoom(most) }
            work.hasRoom = true
        }
        var room = Limits.payloadBytes
        while work.proven < work.unproven.count {
            if room <= 0 { return false }
            room -= try prove(&work, work.unproven[work.proven])
            work.proven += 1
        }
        return true
    }

    /// Looks up the next tokens, as many as `limit`, on the volume's shard.
    /// - Returns: whether all were.
    private func lookUp(_ work: inout Work, _ limit: Int) throws(ServiceError) -> Bool {
        if work.looked == work.changes.count { return true }
        var named: [(place: Int, chunk: ChunkIndex, token: Fingerprint)] = []
        while work.looked < work.changes.count, named.count < limit {
            if case .token(let chunk, let token, _) = work.changes[work.looked] {
                named.append((work.looked, chunk, token))
            }
            work.looked += 1
        }
        if named.isEmpty { return true }
        // Pinned first: one that is just being purged here counts as gone, though another shard may hold it for a lease.
        let (isPinned, shapes) = try storeCall { () throws(StoreError) in
            let tokens = named.map(\.token)
            return (
                try home.pin(account: account, tokens), try home.chunkShapes(account: account, tokens)
            )
        }
        for (index, (place, chunk, _)) in named.enumerated() {
            let shape = isPinned[index] ? shapes[index] : nil
            // Not longer than the room that it is for, and its fingerprint is over as much as here: the usual case.
            if let shape, shape.chunkSize == chunkSize, shape.length <= room(of: chunk) { continue }
            work.unproven.append((place, shape != nil))
        }
        // What is left has a job of its own.
        return work.looked == work.changes.count && named.count < limit
    }

    /// The most bytes of other shards' chunks that are in memory until the commit: the one that is beyond the room is read as well.
    private func mostCopied(_ work: Work) -> Int {
        let count = work.unproven.count { !$0.isHome }
        return min(count * ChunkSize.maximum.bytes, max(0, copyRoom) + ChunkSize.maximum.bytes)
    }

    /// Bytes of the chunk that are within the volume.
    private func room(of chunk: ChunkIndex) -> Int {
        Int(min(UInt64(chunkSize.bytes), volumeSize - chunkSize.offset(of: chunk)))
    }

    /// - Returns: what it cost, in bytes.
    private func prove(_ work: inout Work, _ unproven: (place: Int, isHome: Bool)) throws(ServiceError) -> Int {
        guard case .token(let chunk, let token, let block) = work.changes[unproven.place] else { return 0 }
        let lookUps = (unproven.isHome ? 1 : store.shardCount) * Workers.lookUpBytes
        guard let data = try find(token, isHome: unproven.isHome) else { return lookUps }
        guard try fits(data, room(of: chunk)) else {
            throw ServiceError(
                .invalidChunkToken,
                "chunk \(token) is not one of this volume's chunk size",
                blockIndex: block
            )
        }
        if !unproven.isHome {
            work.copied += data.bytes.count
            guard work.copied <= copyRoom else {
                throw ServiceError(.invalidChunkToken, "chunk \(token) is not on the volume's shard", blockIndex: block)
            }
            work.changes[unproven.place] = .data(chunk, data)
        }
        return lookUps + Int(data.rawLength)
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
