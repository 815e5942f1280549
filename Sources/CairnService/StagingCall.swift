import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// UploadBlock without a target: chunks that are kept for the account until its lease ends (SPEC U7).
extension Service {
    /// Runs on a worker.
    func stage(
        _ request: Wire.UploadBlockRequest,
        payload: BufferSlice?,
        _ context: CallContext,
        answer: @escaping Answer<Wire.UploadBlockResponse>
    ) throws(ServiceError) {
        guard request.progress == nil, !request.rebased, request.dataVersion == 0, request.attachment == 0 else {
            throw ServiceError(
                .invalidArgument,
                "progress, rebased, data_version and attachment belong to a volume or snapshot; the call names none"
            )
        }
        let lease = try LeaseTime(seconds: request.leaseSeconds)
        let chunkSize = try Self.stagingChunkSize(request, options.defaultChunkSize)
        let shard = try stagingShard(request.nearVolumeID, context)
        let asked = try Self.durability(request.durability)
        // The caller knows no volume of the shard, and so no Flush for it.
        let durability = request.nearVolumeID.isEmpty ? .durable : asked
        let plan = try StagingPlan(
            request.blocks,
            payloadCount: payload?.count ?? 0,
            chunkSize: chunkSize,
            checksumOptional: options.checksumOptional
        )
        inSteps(context, StagingPlan.Prepared()) { (prepared) throws(ServiceError) in
            try plan.prepare(&prepared, payload, ChunkFinder(shard, of: context.account))
        } then: { result in
            switch result {
            case .success(let prepared):
                let end = lease.end(from: self.now)
                self.keep(prepared.chunks, chunkSize, until: end, durability, on: shard, context, answer)
            case .failure(let error): answer(.failure(error))
            }
        }
    }

    private func keep(
        _ staged: [StagingPlan.Staged],
        _ chunkSize: ChunkSize,
        until end: UInt64,
        _ durability: CommitDurability,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>
    ) {
        let footprint = Footprint(
            durability: durability,
            records: staged.count { $0.data != nil },
            bytes: staged.reduce(0) { $0 + ($1.data?.bytes.count ?? 0) },
            entries: staged.count
        )
        change(on: shard, footprint, context, answer) { (transaction) throws(ServiceError) in
            var response = Wire.UploadBlockResponse()
            response.writeVerifier = withUnsafeBytes(of: shard.verifier.bigEndian, Array.init)
            response.leaseExpiresAtMs = end
            for chunk in staged {
                if let data = chunk.data {
                    try storeCall { () throws(StoreError) in
                        try transaction.stage(data, chunkSize: chunkSize, account: context.account, until: end)
                    }
                }
                response.chunks.append(Wire.WrittenChunk(offset: chunk.offset, token: chunk.token.bytes))
            }
            return response
        }
    }

    private static func stagingChunkSize(_ request: Wire.UploadBlockRequest, _ usual: ChunkSize) throws(ServiceError)
        -> ChunkSize
    {
        if request.chunkSize == 0 { return usual }
        guard let size = ChunkSize(bytes: request.chunkSize) else {
            throw ServiceError(
                .invalidArgument,
                "chunk_size \(request.chunkSize) is no power of two from 4 KiB to 4 MiB"
            )
        }
        return size
    }

    /// Where the volume is that the chunks are meant for: there they need not be copied when they are used.
    private func stagingShard(_ volume: [UInt8], _ context: CallContext) throws(ServiceError) -> Shard {
        if volume.isEmpty { return homeShard(of: context.account) }
        guard let id = VolumeID(bytes: volume), let shard = shard(of: id.uuid) else { throw ServiceError.noSuchVolume }
        _ = try view(shard) { (view) throws(ServiceError) in try self.volume(id, in: view, context) }
        return shard
    }
}

/// The blocks of a staging call: each begins a chunk, and fills one or more; its last may be shorter, and is padded for its
/// fingerprint like a volume's last one (SPEC V6).
struct StagingPlan: Sendable {
    struct Staged: Sendable {
        let offset: UInt64
        let token: Fingerprint
        /// Nil for zeros, which are here always.
        let data: ChunkData?
    }

    /// What was checked, hashed and compressed so far.
    struct Prepared: Sendable {
        fileprivate(set) var chunks: [Staged] = []
        fileprivate var nextBlock = 0
    }

    /// One block, as in a volume that ends with it.
    private struct Block: Sendable {
        let plan: UploadPlan
        let volumeSize: UInt64
        /// The bytes that it owns.
        let payload: Range<Int>
    }

    let chunkSize: ChunkSize
    private let blocks: [Block]

    /// Settles all legality before anything is hashed.
    /// - Throws: INVALID_ARGUMENT naming the block.
    init(_ blocks: [Wire.UploadBlock], payloadCount: Int, chunkSize: ChunkSize, checksumOptional: Bool)
        throws(ServiceError)
    {
        guard !blocks.isEmpty, blocks.count <= Limits.blocksPerCall else {
            throw ServiceError(
                .invalidArgument,
                "1 to \(Limits.blocksPerCall) blocks go in one call, not \(blocks.count)"
            )
        }
        var planned: [Block] = []
        var position = 0
        var chunks: UInt64 = 0
        for (index, block) in blocks.enumerated() {
            do throws(ServiceError) {
                let count = try Self.check(block, left: payloadCount - position, chunkSize)
                let end = block.offset + UInt64(block.length)
                let plan = try UploadPlan(
                    [block],
                    payloadCount: count,
                    volumeSize: end,
                    chunkSize: chunkSize,
                    checksumOptional: checksumOptional
                )
                planned.append(Block(plan: plan, volumeSize: end, payload: position..<position + count))
                position += count
                chunks += chunkSize.count(for: UInt64(block.length))
                guard chunks <= UploadPlan.chunksPerCall else {
                    throw ServiceError(.invalidArgument, "the call holds more than \(UploadPlan.chunksPerCall) chunks")
                }
            } catch { throw error.at(index) }
        }
        guard position == payloadCount else {
            throw ServiceError(.invalidArgument, "the blocks own \(position) of the payload's \(payloadCount) bytes")
        }
        self.chunkSize = chunkSize
        self.blocks = planned
    }

    /// The bytes of the payload that the block owns.
    private static func check(_ block: Wire.UploadBlock, left: Int, _ chunkSize: ChunkSize) throws(ServiceError) -> Int
    {
        guard case .payloadLength(let count) = block.source else {
            throw ServiceError(.invalidArgument, "only bytes can be staged: no zeros, holes or tokens")
        }
        guard chunkSize.remainder(of: block.offset) == 0 else {
            throw ServiceError(.invalidArgument, "a staged block begins at a multiple of \(chunkSize.bytes) bytes")
        }
        guard Int(count) <= left else {
            throw ServiceError(.invalidArgument, "its \(count) bytes reach beyond the payload's end")
        }
        // Its end is then one of a volume.
        try UploadPlan.check(offset: block.offset, length: UInt64(block.length), within: Limits.volumeSizeMaximum)
        return Int(count)
    }

    /// Prepares the next blocks, as far as one step goes. Runs on a worker.
    /// - Returns: whether it was the last.
    /// - Throws: CHECKSUM_ERROR or INVALID_ARGUMENT naming the block.
    func prepare(_ prepared: inout Prepared, _ payload: BufferSlice?, _ finder: ChunkFinder)
        throws(ServiceError) -> Bool
    {
        var room = Limits.payloadBytes
        while prepared.nextBlock < blocks.count {
            if room <= 0 { return false }
            let block = blocks[prepared.nextBlock]
            let preparation = UploadPreparation(
                chunkSize: chunkSize,
                volumeSize: block.volumeSize,
                payload: payload?.part(block.payload),
                find: finder.find
            )
            var changes: [Change] = []
            do throws(ServiceError) {
                // One block is within one step.
                _ = try preparation.add(block.plan, from: 0, to: &changes)
            } catch { throw error.at(prepared.nextBlock) }
            prepared.chunks += changes.map(staged)
            room -= block.plan.hashedBytes
            prepared.nextBlock += 1
        }
        return true
    }

    private func staged(_ change: Change) -> Staged {
        switch change {
        case .data(let chunk, let data):
            Staged(offset: chunkSize.offset(of: chunk), token: data.fingerprint, data: data)
        case .zeros(let chunk, _):
            Staged(offset: chunkSize.offset(of: chunk), token: ZeroChunk.fingerprint(chunkSize), data: nil)
        case .token, .hole, .patch, .zeroPart: preconditionFailure("whole chunks of bytes are data or zeros")
        }
    }
}
