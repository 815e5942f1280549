public import CairnCore

/// Writes to a volume that are answered early, and made durable by ``flush()`` (SPEC U8).
///
/// It keeps what was not flushed. Where a flush shows, by another write verifier, that the server lost its memory in between, it
/// sends that again, in such an order that older data never comes over newer; so when ``flush()`` returns, of each byte that
/// was answered before it was called that write is durable, or a newer one. Writes may be made from any number of tasks at
/// once, also while a flush is under way; of two that overlap, one must be answered before the other begins.
public actor FlushedWriter {
    private let client: Client
    private let target: BlockTarget
    private let volume: VolumeID
    private let attachment: Attachment?
    private let limit: Int
    private var unflushed = UnflushedWrites()
    private var underWay = 0
    private var isSendingAgain = false
    private var waiting: [CheckedContinuation<Void, Never>] = []
    /// The volume's, once it was asked for.
    private var knownChunkSize: ChunkSize?
    /// Bytes that were sent again because the server had lost them.
    public private(set) var resentBytes: UInt64 = 0

    /// Bytes for one call: large enough that a call's own cost does not count.
    private static let callBytes: UInt64 = 4 << 20
    private static let blocksPerCall = 256
    /// Chunks that one call may touch.
    private static let callChunks = UInt64(Limits.recordsPerCall) / 2

    /// - Parameters:
    ///   - attachment: what ``Client/attachVolume(_:)`` gave; nil: the writes are not fenced (SPEC R5).
    ///   - limit: bytes to keep unflushed; a write beyond that flushes first.
    public init(client: Client, volume: VolumeID, attachment: Attachment? = nil, limit: Int = 64 << 20) {
        self.client = client
        self.volume = volume
        self.attachment = attachment
        self.limit = limit
        target = .volume(volume)
    }

    /// Bytes that wait for a flush.
    public var unflushedBytes: Int { unflushed.heldBytes }

    /// Writes bytes, whose buffer nobody may change until they are flushed. Visible to every reader when this returns.
    /// - Parameter offset: a multiple of 512, as the bytes' count is.
    public func write(_ bytes: BufferSlice, at offset: UInt64) async throws(ClientError) {
        var done = 0
        while done < bytes.count {
            let part = bytes.part(done..<min(done + Int(FlushedWriter.callBytes), bytes.count))
            let start = offset + UInt64(done)
            try await put(start..<start + UInt64(part.count), .bytes(part))
            done += part.count
        }
    }

    /// Makes a range read as zeros.
    public func writeZeroes(_ range: BlockRange) async throws(ClientError) {
        try await mark(range, .zeros)
    }

    /// Makes a range a hole.
    public func discard(_ range: BlockRange) async throws(ClientError) {
        try await mark(range, .hole)
    }

    /// Makes durable all that was answered before, or what was written over it meanwhile.
    /// - Throws: what calls throw; then nothing is forgotten, and it can be said again.
    public func flush() async throws(ClientError) {
        let mark = unflushed.last
        let verifier = try await client.flush(volume)
        unflushed.flushed(through: mark, verifier: verifier)
        guard !unflushed.lost(through: mark, verifier: verifier).isEmpty else { return }
        try await sendAgain(through: mark, verifier: verifier)
    }

    /// In steps, each of as many chunks as one call may touch.
    private func mark(_ range: BlockRange, _ content: UnflushedWrites.Content) async throws(ClientError) {
        let step = FlushedWriter.callChunks / 2 * UInt64(try await chunkSize().bytes)
        let end = range.offset + range.length
        for start in stride(from: range.offset, to: end, by: UInt64.Stride(step)) {
            try await put(start..<min(start + step, end), content)
        }
    }

    private func chunkSize() async throws(ClientError) -> ChunkSize {
        if let knownChunkSize { return knownChunkSize }
        let chunkSize = try await client.describeVolume(volume).chunkSize
        knownChunkSize = chunkSize
        return chunkSize
    }

    private func put(_ range: Range<UInt64>, _ content: UnflushedWrites.Content) async throws(ClientError) {
        if case .bytes(let slice) = content, unflushed.heldBytes + slice.count > limit, unflushed.heldBytes > 0 {
            try await flush()
        }
        while isSendingAgain { await withCheckedContinuation { waiting.append($0) } }
        underWay += 1
        defer {
            underWay -= 1
            wakeAll()
        }
        let verifier = try await send(range, content)
        unflushed.add(range, content, verifier: verifier)
    }

    private func send(
        _ range: Range<UInt64>,
        _ content: UnflushedWrites.Content
    ) async throws(ClientError) -> [UInt8] {
        let whole = BlockRange(offset: range.lowerBound, length: range.upperBound - range.lowerBound)
        switch content {
        case .bytes(let bytes):
            let block = BlockUpload(offset: whole.offset, length: UInt32(bytes.count), content: .plain(bytes))
            let result = try await client.upload(
                [block],
                to: target,
                attachment: attachment,
                durability: .onFlush
            )
            return result.writeVerifier
        case .zeros:
            return try await client.writeZeroes([whole], of: target, attachment: attachment, durability: .onFlush)
        case .hole:
            return try await client.discard([whole], of: target, attachment: attachment, durability: .onFlush)
        }
    }

    // MARK: Sending again

    /// Sends what a former server lost, or what took its place, durably this time. No new write comes in between: it could be
    /// overwritten.
    private func sendAgain(through mark: UInt64, verifier: [UInt8]) async throws(ClientError) {
        while isSendingAgain { await withCheckedContinuation { waiting.append($0) } }
        isSendingAgain = true
        defer {
            isSendingAgain = false
            wakeAll()
        }
        while underWay > 0 { await withCheckedContinuation { waiting.append($0) } }
        var lost = unflushed.lost(through: mark, verifier: verifier)[...]
        while !lost.isEmpty {
            let batch = FlushedWriter.batch(of: lost, try await chunkSize())
            try await sendDurably(batch)
            unflushed.settled(Array(batch))
            lost = lost.dropFirst(batch.count)
        }
    }

    /// As many of the first writes as one call takes: one at least.
    private static func batch(
        of writes: ArraySlice<UnflushedWrites.Write>,
        _ chunkSize: ChunkSize
    ) -> ArraySlice<UnflushedWrites.Write> {
        var (bytes, chunks): (UInt64, UInt64) = (0, 0)
        let count = writes.prefix(blocksPerCall).prefix { write in
            if case .bytes(let slice) = write.content { bytes += UInt64(slice.count) }
            // It may begin and end inside a chunk.
            chunks += chunkSize.count(for: write.range.upperBound - write.range.lowerBound) + 1
            return bytes <= callBytes && chunks <= callChunks
        }.count
        return writes.prefix(max(count, 1))
    }

    private func sendDurably(_ writes: ArraySlice<UnflushedWrites.Write>) async throws(ClientError) {
        var blocks: [BlockUpload] = []
        for write in writes {
            // A mark may be longer than a block's length can say: 2048 chunks of 4 MiB.
            for start in stride(from: write.range.lowerBound, to: write.range.upperBound, by: 1 << 30) {
                let length = UInt32(min(write.range.upperBound - start, 1 << 30))
                let content: BlockUpload.Content =
                    switch write.content {
                    case .bytes(let slice): .plain(slice)
                    case .zeros: .zeros
                    case .hole: .hole
                    }
                blocks.append(BlockUpload(offset: start, length: length, content: content))
            }
        }
        _ = try await client.upload(blocks, to: target, attachment: attachment, durability: .durable)
        resentBytes += writes.reduce(0) { $0 + $1.range.upperBound - $1.range.lowerBound }
    }

    private func wakeAll() {
        for continuation in waiting { continuation.resume() }
        waiting = []
    }
}
