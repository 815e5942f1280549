import CairnCore
import CairnStore
import CairnWire

/// ListChangedBlocks (SPEC R1).
extension Service {
    /// Between any two snapshots or volumes: related or not, on one shard or two, of one chunk size or two.
    public func listChangedBlocks(
        _ request: Wire.ListChangedBlocksRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ListChangedBlocksResponse>
    ) {
        // Two look-ups for each, and where the chunks' bytes must be compared more.
        let cost = request.page.cost(atMost: Limits.blocksPerPage, each: 8192)
        onWorker(context, bytes: cost, answer) { () throws(ServiceError) in
            try self.reading(try Named(request.older), context) { (older) throws(ServiceError) in
                try self.reading(try Named(request.newer), context) { (newer) throws(ServiceError) in
                    try Self.changes(request, older, newer, context)
                }
            }
        }
    }

    private static func changes(
        _ request: Wire.ListChangedBlocksRequest,
        _ older: Readable,
        _ newer: Readable,
        _ context: CallContext
    ) throws(ServiceError) -> Wire.ListChangedBlocksResponse {
        let (past, present) = (older.source, newer.source)
        let limit = try request.page.itemCount(atMost: Limits.blocksPerPage)
        let call = PagedCall(request, of: context.account)
        let start = try BlockCursor.chunk(call) ?? ChunkIndex(0)
        let comparison = Comparison(
            older: .init(older.shard, past, rule: older.rule),
            newer: .init(newer.shard, present, rule: newer.rule)
        )
        guard start.rawValue < comparison.chunkCount else { throw PagedCall.refusal }
        do throws(Comparison.Failure) {
            let (entries, next) = try comparison.changes(from: start, limit: limit)
            var response = Wire.ListChangedBlocksResponse()
            response.blocks = entries.map { Self.describe($0, of: present, comparedWith: past) }
            response.nextPageToken = next.map { BlockCursor.token($0, in: call) } ?? []
            return response
        } catch { throw (error.isOlder ? older : newer).refusal(error.error) }
    }

    /// A chunk beyond the newer one's end is a hole of the older one's length.
    private static func describe(_ entry: BlockEntry, of present: ReadSource, comparedWith past: ReadSource)
        -> Wire.BlockDescription
    {
        let isBeyond = present.chunkSize.offset(of: entry.chunk) >= present.size
        return describe(entry, present.chunkSize, end: isBeyond ? past.size : present.size)
    }
}
