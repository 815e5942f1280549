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
        let hint = shard.makeView()
        let staged = try StagingPreparation(
            chunkSize: chunkSize,
            checksumOptional: options.checksumOptional,
            holds: { (try? hint.holdsChunk(account: context.account, $0)) ?? false }
        ).chunks(of: request.blocks, payload)
        try context.checkWanted()
        let end = lease.end
        let footprint = Footprint(
            durability: try Self.durability(request.durability),
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

/// Turns the blocks of a staging call into chunks: each block begins a chunk, and fills one or more; its last may be shorter, and
/// is padded for its fingerprint like a volume's last one (SPEC V6). Runs on a worker.
struct StagingPreparation {
    struct Staged: Sendable {
        let offset: UInt64
        let token: Fingerprint
        /// Nil for zeros, which are here always.
        let data: ChunkData?
    }

    let chunkSize: ChunkSize
    let checksumOptional: Bool
    /// Whether the shard holds a chunk already, so that compressing it would be in vain. A hint only.
    let holds: (Fingerprint) -> Bool

    /// Throws INVALID_ARGUMENT or CHECKSUM_ERROR naming the block.
    func chunks(of blocks: [Wire.UploadBlock], _ payload: BufferSlice?) throws(ServiceError) -> [Staged] {
        guard !blocks.isEmpty, blocks.count <= Limits.blocksPerCall else {
            throw ServiceError(
                .invalidArgument,
                "1 to \(Limits.blocksPerCall) blocks go in one call, not \(blocks.count)"
            )
        }
        let payloadCount = payload?.count ?? 0
        var staged: [Staged] = []
        var position = 0
        for (index, block) in blocks.enumerated() {
            do throws(ServiceError) {
                let count = try check(block, left: payloadCount - position)
                staged += try chunks(of: block, payload?.part(position..<position + count))
                position += count
                guard staged.count <= UploadPlan.chunksPerCall else {
                    throw ServiceError(.invalidArgument, "the call holds more than \(UploadPlan.chunksPerCall) chunks")
                }
            } catch { throw error.at(index) }
        }
        guard position == payloadCount else {
            throw ServiceError(.invalidArgument, "the blocks own \(position) of the payload's \(payloadCount) bytes")
        }
        return staged
    }

    /// The bytes of the payload that the block owns.
    private func check(_ block: Wire.UploadBlock, left: Int) throws(ServiceError) -> Int {
        guard case .payloadLength(let count) = block.source else {
            throw ServiceError(.invalidArgument, "only bytes can be staged: no zeros, holes or tokens")
        }
        guard chunkSize.remainder(of: block.offset) == 0 else {
            throw ServiceError(.invalidArgument, "a staged block begins at a multiple of \(chunkSize.bytes) bytes")
        }
        guard Int(count) <= left else {
            throw ServiceError(.invalidArgument, "its \(count) bytes reach beyond the payload's end")
        }
        return Int(count)
    }

    private func chunks(of block: Wire.UploadBlock, _ payload: BufferSlice?) throws(ServiceError) -> [Staged] {
        // As in a volume that ends with the block.
        try UploadPlan.check(offset: block.offset, length: UInt64(block.length), within: Limits.volumeSizeMaximum)
        let end = block.offset + UInt64(block.length)
        let plan = try UploadPlan(
            [block],
            payloadCount: payload?.count ?? 0,
            volumeSize: end,
            chunkSize: chunkSize,
            checksumOptional: checksumOptional
        )
        let preparation = UploadPreparation(chunkSize: chunkSize, volumeSize: end, payload: payload, holds: holds)
        var changes: [Change] = []
        // One block is within one step.
        _ = try preparation.add(plan, from: 0, to: &changes)
        return changes.map { change in
            switch change {
            case .data(let chunk, let data):
                Staged(offset: chunkSize.offset(of: chunk), token: data.fingerprint, data: data)
            case .zeros(let chunk, _):
                Staged(offset: chunkSize.offset(of: chunk), token: ZeroChunk.fingerprint(chunkSize), data: nil)
            case .token, .hole, .patch, .zeroPart: preconditionFailure("whole chunks of bytes are data or zeros")
            }
        }
    }
}
