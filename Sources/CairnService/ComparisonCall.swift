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
        onWorker(context, answer) { () throws(ServiceError) in
            let (pastShard, past, _) = try self.readTarget(request.older, 0, context)
            let (shard, present, name) = try self.readTarget(request.newer, 0, context)
            let limit = try request.page.itemCount(atMost: Limits.blocksPerPage)
            let start = try BlockCursor.chunk(request.page.token) ?? ChunkIndex(0)
            let comparison = Comparison(older: .init(pastShard, past), newer: .init(shard, present))
            guard start.rawValue < comparison.chunkCount else { throw BlockCursor.refused }
            do throws(StoreError) {
                let (entries, next) = try comparison.changes(from: start, limit: limit)
                var response = Wire.ListChangedBlocksResponse()
                response.blocks = entries.map { Self.describe($0, of: present, comparedWith: past) }
                response.nextPageToken = next.map(BlockCursor.token) ?? []
                return response
            } catch {
                // What was deleted meanwhile is not damage.
                _ = try self.readTarget(request.older, 0, context)
                _ = try self.readTarget(request.newer, 0, context)
                let failure = ServiceError(error)
                throw ServiceError(failure.code, "\(name): \(failure.text)")
            }
        }
    }

    /// A chunk beyond the newer one's end is a hole of the older one's length.
    private static func describe(_ entry: BlockEntry, of present: ReadSource, comparedWith past: ReadSource)
        -> Wire.BlockDescription
    {
        let isBeyond = present.chunkSize.offset(of: entry.chunk) >= present.size
        return describe(entry, present.chunkSize, end: isBeyond ? past.size : present.size)
    }
}
