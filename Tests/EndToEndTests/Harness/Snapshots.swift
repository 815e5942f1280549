import CairnCore
import CairnWire
import Testing

extension Wire.Target.Target {
    var wire: Wire.Target { Wire.Target(target: self) }
}

extension Wire.ChunkPlacement {
    /// The chunk that holds `bytes`, at chunk `index`.
    static func of(_ index: Int, _ bytes: [UInt8], chunkSize: Int = 65536) -> Wire.ChunkPlacement {
        .init(offset: UInt64(index * chunkSize), token: Content.token(bytes, chunkSize: chunkSize))
    }
}

extension Caller {
    /// A LOCAL volume of 1 MiB unless told otherwise.
    func createLocal(
        size: UInt64 = 1 << 20,
        chunkSize: UInt32 = 65536,
        from snapshot: [UInt8] = []
    ) async throws -> Wire.CreateVolumeResponse {
        try await call(
            Wire.CreateVolumeRequest(size: size, snapshotID: snapshot, chunkSize: chunkSize, kind: .local)
        ).message
    }

    func createSnapshot(
        _ volume: [UInt8],
        chunks: [Wire.ChunkPlacement] = [],
        lists: [[UInt8]] = [],
        expected: [Wire.ChunkPlacement] = [],
        description: String = "",
        tags: [Wire.Tag] = []
    ) async throws -> Wire.CreateSnapshotResponse {
        try await call(
            Wire.CreateSnapshotRequest(
                volumeID: volume,
                chunks: chunks,
                chunkListTokens: lists,
                expected: expected,
                description: description,
                tags: tags
            )
        ).message
    }

    /// Uploads to a snapshot in progress, or to anything else.
    @discardableResult
    func upload(
        to target: Wire.Target.Target,
        _ uploads: [Upload],
        dataVersion: UInt64 = 0,
        attachment: UInt64 = 0,
        progress: UInt32? = nil,
        rebased: Bool = false
    ) async throws -> Wire.UploadBlockResponse {
        try await call(
            Wire.UploadBlockRequest(
                target: target.wire,
                dataVersion: dataVersion,
                attachment: attachment,
                progress: progress.map { .init(percent: $0) },
                blocks: uploads.map(\.block),
                rebased: rebased
            ),
            payload: uploads.payload
        ).message
    }

    @discardableResult
    func upload(snapshot: [UInt8], _ uploads: Upload...) async throws -> Wire.UploadBlockResponse {
        try await upload(to: .snapshotID(snapshot), uploads)
    }

    @discardableResult
    func progress(_ snapshot: [UInt8], _ percent: UInt32, rebased: Bool = false) async throws
        -> Wire.SnapshotProgressResponse
    {
        try await call(
            Wire.SnapshotProgressRequest(target: .snapshotID(snapshot), percent: percent, rebased: rebased)
        ).message
    }

    /// Chunks without a place (SPEC U7): their tokens.
    @discardableResult
    func stage(
        _ chunks: [[UInt8]],
        chunkSize: UInt32 = 65536,
        leaseSeconds: UInt32 = 0,
        near volume: [UInt8] = [],
        durability: Wire.Durability = .durable
    ) async throws -> Wire.UploadBlockResponse {
        let uploads = chunks.enumerated().map { Upload.plain(UInt64($0) * UInt64(chunkSize), $1) }
        return try await call(
            Wire.UploadBlockRequest(
                durability: durability,
                blocks: uploads.map(\.block),
                chunkSize: chunkSize,
                leaseSeconds: leaseSeconds,
                nearVolumeID: volume
            ),
            payload: uploads.payload
        ).message
    }

    /// For each token, whether it need not be sent (SPEC A1).
    func present(_ tokens: [[UInt8]], for volume: [UInt8] = []) async throws -> [Bool] {
        let bits = try await call(Wire.QueryChunksRequest(tokens: tokens, volumeID: volume)).message.present
        return tokens.indices.map { bits[$0 / 8] >> ($0 % 8) & 1 == 1 }
    }

    func missing(_ snapshot: [UInt8], pages: UInt32 = 0) async throws -> [Wire.ChunkPlacement] {
        var found: [Wire.ChunkPlacement] = []
        var token: [UInt8] = []
        repeat {
            let page = try await call(
                Wire.MissingBlocksRequest(target: .snapshotID(snapshot), page: .init(limit: pages, pageToken: token))
            ).message
            found += page.missing
            token = page.nextPageToken
        } while !token.isEmpty
        return found
    }

    func changed(_ older: Wire.Target.Target, _ newer: Wire.Target.Target, pages: UInt32 = 0) async throws
        -> [Wire.BlockDescription]
    {
        var found: [Wire.BlockDescription] = []
        var token: [UInt8] = []
        repeat {
            let page = try await call(
                Wire.ListChangedBlocksRequest(
                    older: older.wire,
                    newer: newer.wire,
                    page: .init(limit: pages, pageToken: token)
                )
            ).message
            found += page.blocks
            token = page.nextPageToken
        } while !token.isEmpty
        return found
    }

    func deleteSnapshot(_ snapshot: [UInt8]) async throws {
        _ = try await call(Wire.DeleteSnapshotRequest(snapshotID: snapshot))
    }

    func deleteVolume(_ volume: [UInt8], cancelling: Bool = false) async throws {
        _ = try await call(Wire.DeleteVolumeRequest(volumeID: volume, cancelSnapshots: cancelling))
    }
}

extension [UInt8] {
    /// With `bytes` from `offset` on.
    func replacing(_ offset: Int, _ bytes: [UInt8]) -> [UInt8] {
        var copy = self
        copy.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        return copy
    }
}

/// The call must end so.
func expectFailure<Value>(
    _ reason: Wire.Reason,
    block: Int? = nil,
    file: String = #fileID,
    line: Int = #line,
    sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Value
) async throws {
    let error = try await failure(of: body, file: file, line: line)
    #expect(error.reason == reason, "\(error)", sourceLocation: sourceLocation)
    #expect(error.status == reason.status, "\(error)", sourceLocation: sourceLocation)
    #expect(error.blockIndex == block, "\(error)", sourceLocation: sourceLocation)
}
