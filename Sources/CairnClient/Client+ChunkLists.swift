public import CairnCore
internal import CairnWire

/// Snapshots that begin with chunks that are on the server already (SPEC S5).
extension Client {
    /// The most chunks that a new snapshot can expect: the list is part of the message, and must fit it.
    public static let mostExpectedChunks = 20_000
    /// Placements, of both lists together, that a message holds: about 44 bytes each of 1 MiB.
    static let inlinePlacements = 20_000
    /// How long the chunks of a list that goes by pointer stay, if we never come to release them.
    private static let listLease: Duration = .seconds(3600)
    /// What a call may take longer for each item of a list: the longest have 2^20.
    private static let itemLimit: Duration = .microseconds(100)

    /// Makes a snapshot that holds chunks from the start, or expects some.
    ///
    /// A list too long for the message goes by pointer: it is encoded, staged on the volume's shard, named by its tokens,
    /// and released when the snapshot is there.
    /// - Parameter key: the same key with the same parameters gives the first answer again (SPEC C5).
    /// - Throws: INVALID_CHUNK_TOKEN, with the place in the list, where the account has no such chunk here: then nothing
    ///   was made. `invalidRequest` where too many chunks are expected.
    public func createSnapshot(
        of volume: VolumeID,
        _ new: NewSnapshot,
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) -> CreatedSnapshot {
        guard new.expected.count <= Client.mostExpectedChunks else {
            throw ClientError(
                .invalidRequest,
                "a snapshot can expect \(Client.mostExpectedChunks) chunks, not \(new.expected.count)"
            )
        }
        guard new.chunks.count + new.expected.count > Client.inlinePlacements else {
            return try await createSnapshot(of: volume, new, listTokens: [], key: key)
        }
        let chunkSize = try await describeVolume(volume).chunkSize
        let chunks = ChunkListCoding.encode(new.chunks, chunkSize: chunkSize)
        let staged = try await stage(chunks, chunkSize: chunkSize, near: volume, lease: Client.listLease)
        var rest = new
        rest.chunks = []
        let limit = options.callLimit + Client.itemLimit * new.chunks.count
        let made = try await createSnapshot(of: volume, rest, listTokens: staged.tokens, key: key, limit: limit)
        // The lease ends by itself as well: a failure here is no failure of the snapshot.
        try? await releaseLease(of: staged.tokens)
        return made
    }

    func createSnapshot(
        of volume: VolumeID,
        _ new: NewSnapshot,
        listTokens: [Fingerprint],
        key: IdempotencyKey,
        limit: Duration? = nil
    ) async throws(ClientError) -> CreatedSnapshot {
        let request = Wire.CreateSnapshotRequest(
            volumeID: volume.bytes,
            chunks: new.chunks.map(\.wire),
            chunkListTokens: listTokens.map(\.bytes),
            expected: new.expected.map(\.wire),
            description: new.note,
            tags: Tags.wire(new.tags),
            idempotencyKey: key.bytes
        )
        return try CreatedSnapshot(try await caller.call(request, limit: limit).0)
    }
}

/// A list of placements as the contents of whole chunks: an encoded `cairn.v1.ChunkList`, filled up to a multiple of the
/// chunk size by one field that every reader skips.
enum ChunkListCoding {
    /// Field 15, length-delimited: none of ChunkList's.
    private static let paddingTag: UInt8 = 15 << 3 | 2

    static func encode(_ chunks: [ChunkPlacement], chunkSize: ChunkSize) -> [BufferSlice] {
        let message = Wire.ChunkList(chunks: chunks.map(\.wire)).encode()
        let bytes = message + padding(for: message.count, chunkSize.bytes)
        let whole = Buffer(copying: bytes).slice
        return stride(from: 0, to: bytes.count, by: chunkSize.bytes).map {
            whole.part($0..<$0 + chunkSize.bytes)
        }
    }

    /// The bytes that follow `count` bytes of a message, up to a multiple of `unit`.
    static func padding(for count: Int, _ unit: Int) -> [UInt8] {
        var room = (unit - count % unit) % unit
        guard room > 0 else { return [] }
        // A tag and a length take two bytes at least, and a field that is skipped has some bytes.
        if room < 3 { room += unit }
        guard room >= 5 else { return [paddingTag, UInt8(room - 2)] + [UInt8](repeating: 0, count: room - 2) }
        // The length in four bytes of seven bits, whether it needs them or not: chunks have at most 4 MiB.
        let length = room - 5
        let digits = (0..<4).map { UInt8(length >> (7 * $0) & 0x7f) | ($0 < 3 ? 0x80 : 0) }
        return [paddingTag] + digits + [UInt8](repeating: 0, count: length)
    }
}
