import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// A whole chunk that a snapshot is to hold.
struct Placement: Sendable, Hashable {
    let chunk: ChunkIndex
    let token: Fingerprint
    /// Its place in its list.
    let index: Int
}

/// The chunk list of a CreateSnapshot, inline or by pointer (SPEC S5), read in steps that hold a bounded part of it. A value: a copy
/// begins where the original stood. Runs on a worker.
struct PlacementSource {
    let store: Store
    let home: Shard
    let account: AccountID
    let chunkSize: ChunkSize
    let volumeSize: UInt64

    private let inline: [Wire.ChunkPlacement]
    /// Chunks whose contents are the encoded list.
    private let pointers: [Fingerprint]
    private var nextInline = 0
    private var nextPointer = 0
    private var parser = ChunkListParser()
    /// What was parsed and not given yet: at most one chunk's items.
    private var parsed: ArraySlice<Wire.ChunkPlacement> = []
    private var given = 0
    /// Bytes of encoded list that were parsed.
    private var parsedBytes = 0
    /// The most items, and the most bytes of encoded list: as many items as there may be, and padding as long again.
    private let itemLimit: Int
    private let byteLimit: Int

    init(
        _ request: Wire.CreateSnapshotRequest,
        store: Store,
        home: Shard,
        account: AccountID,
        volume: VolumeRecord,
        limit: Int = Limits.placementsPerList
    ) throws(ServiceError) {
        guard request.chunks.isEmpty || request.chunkListTokens.isEmpty else {
            throw ServiceError(.invalidArgument, "the chunk list is given inline or by pointer, not both")
        }
        (self.store, self.home, self.account) = (store, home, account)
        (chunkSize, volumeSize) = (volume.chunkSize, volume.size)
        (itemLimit, byteLimit) = (limit, limit * 96)
        inline = request.chunks
        pointers = try Service.fingerprints(request.chunkListTokens)
    }

    /// The most items that ``next(_:)`` gives.
    func most(_ limit: Int) -> Int {
        if !parsed.isEmpty { return min(limit, parsed.count) }
        if nextInline < inline.count { return min(limit, inline.count - nextInline) }
        return nextPointer < pointers.count ? limit : 0
    }

    /// Bytes that ``next(_:)`` may have to read, and to parse.
    var bytesToRead: Int {
        parsed.isEmpty && nextInline == inline.count && nextPointer < pointers.count ? ChunkSize.maximum.bytes : 0
    }

    /// The next items, at most `limit`; none at the list's end.
    /// - Throws: INVALID_ARGUMENT or INVALID_CHUNK_TOKEN naming the item, or the pointer that names no chunk; DATA_LOSS.
    mutating func next(_ limit: Int) throws(ServiceError) -> [Placement] {
        while parsed.isEmpty {
            if nextInline < inline.count {
                let end = min(inline.count, nextInline + limit)
                parsed = inline[nextInline..<end]
                nextInline = end
            } else if nextPointer < pointers.count {
                try parse(pointers[nextPointer], nextPointer)
                nextPointer += 1
            } else {
                guard parser.isComplete else {
                    throw ServiceError(.invalidArgument, "the encoded chunk list ends within item \(parser.count)")
                }
                return []
            }
        }
        let step = parsed.prefix(limit)
        parsed = parsed.dropFirst(step.count)
        guard given + step.count <= itemLimit else {
            throw ServiceError(
                .invalidArgument,
                "a chunk list names at most \(itemLimit) chunks",
                blockIndex: itemLimit
            )
        }
        var placements: [Placement] = []
        placements.reserveCapacity(step.count)
        for item in step {
            placements.append(try Self.check(item, given, chunkSize, volumeSize))
            given += 1
        }
        return placements
    }

    /// - Throws: INVALID_ARGUMENT, INVALID_CHUNK_TOKEN naming the item.
    static func check(_ item: Wire.ChunkPlacement, _ index: Int, _ chunkSize: ChunkSize, _ size: UInt64)
        throws(ServiceError) -> Placement
    {
        guard chunkSize.remainder(of: item.offset) == 0, item.offset < size else {
            throw ServiceError(
                .invalidArgument,
                "offset \(item.offset) is no multiple of \(chunkSize.bytes) within the volume's \(size) bytes",
                blockIndex: index
            )
        }
        guard let token = Fingerprint(bytes: item.token) else {
            throw ServiceError(
                .invalidChunkToken,
                "a token has 32 bytes, not \(item.token.count)",
                blockIndex: index
            )
        }
        return Placement(chunk: chunkSize.chunk(at: item.offset), token: token, index: index)
    }

    /// Parses one chunk of the encoded list.
    private mutating func parse(_ token: Fingerprint, _ index: Int) throws(ServiceError) {
        // Nowhere stored; padding, or the inside of a field that is skipped.
        if let size = ZeroChunk.size(of: token) {
            try count(size.bytes, index)
            return try takeZeros(size.bytes)
        }
        let shards = [home] + store.shards.filter { $0.index != home.index }
        for shard in shards {
            let found = try storeCall { () throws(StoreError) -> (ChunkData, Int)? in
                guard let shape = try shard.chunkShapes(account: account, [token]).first ?? nil,
                    let data = try shard.storedChunk(account: account, token)
                else { return nil }
                return (data, shape.chunkSize.bytes)
            }
            guard let (data, length) = found else { continue }
            try count(length, index)
            try data.withRawBytes { (bytes) throws(ServiceError) in try take(bytes) }
            // What the chunk's fingerprint is over ends in zeros where the chunk is shorter.
            return try takeZeros(length - Int(data.rawLength))
        }
        throw ServiceError(
            .invalidChunkToken,
            "this account has no chunk \(token), which should hold a part of the chunk list",
            blockIndex: index
        )
    }

    /// Keeps to the limit of what is read for a list.
    private mutating func count(_ bytes: Int, _ index: Int) throws(ServiceError) {
        parsedBytes += bytes
        guard parsedBytes <= max(byteLimit, ChunkSize.maximum.bytes) else {
            throw ServiceError(
                .invalidArgument,
                "an encoded chunk list has at most \(ByteCount.text(UInt64(byteLimit)))",
                blockIndex: index
            )
        }
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer) throws(ServiceError) {
        var items: [Wire.ChunkPlacement] = []
        try parser.take(bytes) { items.append($0) }
        parsed += items
    }

    private mutating func takeZeros(_ count: Int) throws(ServiceError) {
        let zeros = [UInt8](repeating: 0, count: count)
        try withBytes(of: zeros) { (bytes) throws(ServiceError) in try take(bytes) }
    }
}

extension ChunkData {
    /// The uncompressed bytes.
    /// - Throws: DATA_LOSS where they do not decode.
    func withRawBytes(_ body: (UnsafeRawBufferPointer) throws(ServiceError) -> Void) throws(ServiceError) {
        guard codec == .lz4 else {
            try body(bytes.bytes)
            return
        }
        let length = Int(rawLength)
        let buffer = BufferPool.shared.buffer(capacity: length)
        buffer.count = length
        let window = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[0..<length])
        guard LZ4.decompress(bytes.bytes, into: window) else {
            throw ServiceError(.dataLoss, "the stored chunk \(fingerprint) does not decode")
        }
        try body(buffer.slice.bytes)
    }
}

private func withBytes(of bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(ServiceError) -> Void)
    throws(ServiceError)
{
    try bytes.withUnsafeBytes { bytes in Result { () throws(ServiceError) in try body(bytes) } }.get()
}
