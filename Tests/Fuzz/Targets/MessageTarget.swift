import CairnCore
import CairnWire

@testable import CairnService

/// What is decoded is encoded to something that decodes to the same; and nothing that a client hands back to us (chunk lists,
/// page tokens, snapshot tokens) does more than be refused.
enum MessageTarget {
    /// Every message of the contract, by name.
    static let messages: [any WireMessage.Type] = [
        Wire.AccountLimits.self, Wire.AttachVolumeRequest.self, Wire.AttachVolumeResponse.self,
        Wire.BlockDescription.self, Wire.BlockIndex.self, Wire.ByteRange.self, Wire.Checksum.self, Wire.ChunkList.self,
        Wire.ChunkPlacement.self, Wire.CreateGrantRequest.self, Wire.CreateGrantResponse.self,
        Wire.CreateSnapshotRequest.self, Wire.CreateSnapshotResponse.self, Wire.CreateSnapshotsRequest.self,
        Wire.CreateSnapshotsResponse.self, Wire.CreateVolumeRequest.self, Wire.CreateVolumeResponse.self,
        Wire.DeleteGrantRequest.self, Wire.DeleteGrantResponse.self, Wire.DeleteSnapshotRequest.self,
        Wire.DeleteSnapshotResponse.self, Wire.DeleteVolumeRequest.self, Wire.DeleteVolumeResponse.self,
        Wire.DescribeAccountRequest.self, Wire.DescribeAccountResponse.self, Wire.DescribeSnapshotRequest.self,
        Wire.DescribeSnapshotResponse.self, Wire.DescribeVolumeRequest.self, Wire.DescribeVolumeResponse.self,
        Wire.DiscardRequest.self, Wire.DiscardResponse.self, Wire.DownloadBlockRequest.self,
        Wire.DownloadBlockResponse.self, Wire.DownloadedBlock.self, Wire.Empty.self, Wire.ErrorDetail.self,
        Wire.FlushRequest.self, Wire.FlushResponse.self, Wire.GetHealthRequest.self, Wire.GetHealthResponse.self,
        Wire.GetMetricsRequest.self, Wire.GetMetricsResponse.self, Wire.GetServerFactsRequest.self,
        Wire.GetServerFactsResponse.self, Wire.GetUsageRequest.self, Wire.GetUsageResponse.self, Wire.Grant.self,
        Wire.Hello.self, Wire.ListAccountsRequest.self, Wire.ListAccountsResponse.self, Wire.ListBlocksRequest.self,
        Wire.ListBlocksResponse.self, Wire.ListChangedBlocksRequest.self, Wire.ListChangedBlocksResponse.self,
        Wire.ListGrantsRequest.self, Wire.ListGrantsResponse.self, Wire.ListSnapshotsRequest.self,
        Wire.ListSnapshotsResponse.self, Wire.ListVolumesRequest.self, Wire.ListVolumesResponse.self,
        Wire.MissingBlocksRequest.self, Wire.MissingBlocksResponse.self, Wire.OwnerShare.self, Wire.PageRequest.self,
        Wire.Progress.self, Wire.PromptProgressRequest.self, Wire.PromptProgressResponse.self,
        Wire.QueryChunksRequest.self, Wire.QueryChunksResponse.self, Wire.ReleaseLeaseRequest.self,
        Wire.ReleaseLeaseResponse.self, Wire.RenewLeaseRequest.self, Wire.RenewLeaseResponse.self,
        Wire.ResizeVolumeRequest.self, Wire.ResizeVolumeResponse.self, Wire.Seal.self, Wire.ServerFacts.self,
        Wire.SessionLimits.self, Wire.SetAccountLimitsRequest.self, Wire.SetAccountLimitsResponse.self,
        Wire.SnapshotDescription.self, Wire.SnapshotProgressRequest.self, Wire.SnapshotProgressResponse.self,
        Wire.Tag.self, Wire.Target.self, Wire.UpdateTagsRequest.self, Wire.UpdateTagsResponse.self,
        Wire.UploadBlock.self, Wire.UploadBlockRequest.self, Wire.UploadBlockResponse.self, Wire.Usage.self,
        Wire.VolumeDescription.self, Wire.WriteZeroesRequest.self, Wire.WriteZeroesResponse.self,
        Wire.WrittenChunk.self,
    ]

    static func run(_ bytes: UnsafeRawBufferPointer) {
        var input = FuzzInput(bytes)
        let choice = input.byte()
        if choice < messages.count {
            check(messages[choice], input.rest)
        } else if choice < 200 {
            checkChunkList(&input)
        } else {
            checkTokens(Array(input.rest))
        }
    }

    private static func check<Message: WireMessage>(_: Message.Type, _ bytes: UnsafeRawBufferPointer) {
        guard let message = try? Message.decode(bytes) else { return }
        let again: Message
        do throws(WireError) { again = try Message.decode(message.encode()) } catch {
            preconditionFailure("what was encoded does not decode: \(error)")
        }
        precondition(again == message, "what was encoded decodes to something else")
    }

    /// However the list's bytes are cut, the same placements come of them; and where protobuf reads the same bytes as one
    /// message, it sees the same.
    private static func checkChunkList(_ input: inout FuzzInput) {
        let cut = 1 + input.byte()
        let whole = placements(input.rest, cut: .max)
        precondition(placements(input.rest, cut: cut) == whole, "the cuts make a difference")
        if let list = try? Wire.ChunkList.decode(input.rest), let whole {
            precondition(list.chunks == whole, "two ways to read a list see different ones")
        }
    }

    /// Nil where the list is refused.
    private static func placements(_ bytes: UnsafeRawBufferPointer, cut: Int) -> [Wire.ChunkPlacement]? {
        var parser = ChunkListParser()
        var found: [Wire.ChunkPlacement] = []
        var rest = bytes
        do throws(ServiceError) {
            while !rest.isEmpty {
                let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(cut))
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(piece.count))
                try parser.take(piece) { found.append($0) }
            }
        } catch { return nil }
        precondition(parser.count == found.count)
        return parser.isComplete ? found : nil
    }

    private static func checkTokens(_ bytes: [UInt8]) {
        let call = PagedCall(Wire.ListVolumesRequest(page: .init(pageToken: bytes)), of: nil)
        if let cursor = try? ListingCursor(call) { precondition(cursor.token(in: call) == bytes) }
        if let chunk = try? BlockCursor.chunk(call) { precondition(BlockCursor.token(chunk, in: call) == bytes) }
        _ = try? SnapshotToken.id(bytes)
        if let text = String(validating: bytes, as: UTF8.self) {
            _ = AccountID(text)
            _ = UUID128(text: text)
        }
    }
}
