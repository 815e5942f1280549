import CairnCore
import CairnStore
import CairnWire

/// WriteZeroes and Discard (SPEC R1, V7): uploads that bring no bytes.
extension Service {
    public func writeZeroes(
        _ request: Wire.WriteZeroesRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.WriteZeroesResponse>
    ) {
        mark(request.target, request.ranges, .zeros, request.attachment, request.durability, context) { result in
            answer(result.map { Wire.WriteZeroesResponse(writeVerifier: $0.writeVerifier) })
        }
    }

    public func discard(
        _ request: Wire.DiscardRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DiscardResponse>
    ) {
        mark(request.target, request.ranges, .hole, request.attachment, request.durability, context) { result in
            answer(result.map { Wire.DiscardResponse(writeVerifier: $0.writeVerifier) })
        }
    }

    private func mark(
        _ target: Wire.Target?,
        _ ranges: [Wire.ByteRange],
        _ content: UploadPlan.Content,
        _ attachment: UInt64,
        _ durability: Wire.Durability,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>
    ) {
        beginOnWorker(context, answer) { () throws(ServiceError) in
            let call = try WriteCall(target, attachment: attachment, durability: durability)
            try self.write(call, nil, context, answer) { (target) throws(ServiceError) in
                try UploadPlan(marking: ranges, content, volumeSize: target.size, chunkSize: target.chunkSize)
            }
        }
    }
}

extension UploadPlan {
    /// Ranges that become zeros or holes.
    /// - Throws: INVALID_ARGUMENT naming the range.
    init(marking ranges: [Wire.ByteRange], _ content: Content, volumeSize: UInt64, chunkSize: ChunkSize)
        throws(ServiceError)
    {
        guard !ranges.isEmpty, ranges.count <= Limits.blocksPerCall else {
            throw ServiceError(
                .invalidArgument,
                "1 to \(Limits.blocksPerCall) ranges go in one call, not \(ranges.count)"
            )
        }
        var chunks: UInt64 = 0
        var blocks: [Block] = []
        for (index, range) in ranges.enumerated() {
            do throws(ServiceError) {
                try Self.check(offset: range.offset, length: range.length, within: volumeSize)
                chunks += chunkSize.count(for: range.length) + 1
                guard chunks <= Self.chunksPerCall else {
                    throw ServiceError(.invalidArgument, "the call touches more than \(Self.chunksPerCall) chunks")
                }
            } catch { throw error.at(index) }
            blocks.append(Block(offset: range.offset, length: range.length, checksum: nil, content: content))
        }
        self.init(blocks: blocks)
    }

    private init(blocks: [Block]) { self.blocks = blocks }
}
