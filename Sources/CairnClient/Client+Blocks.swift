public import CairnCore
internal import CairnWire

extension Client {
    /// Uploads blocks: all of them, or none (SPEC U2).
    /// - Parameters:
    ///   - target: a volume, or the earliest snapshot in progress of a LOCAL one. See ``stage(_:chunkSize:near:lease:)`` for
    ///     chunks without a place.
    ///   - dataVersion: nil, or a precondition on what is replaced (SPEC U5); of a snapshot: its version.
    ///   - attachment: nil, or what ``attachVolume(_:)`` gave: the upload is refused where somebody attached later (SPEC R5).
    ///   - progress: of a snapshot: how far its upload is with these blocks, 0–100 (SPEC S9). Where the answer to 100 was lost,
    ///     or left open whether it was carried out, and so the call was repeated, the result has no tokens and no write verifier:
    ///     the snapshot is complete.
    ///   - rebased: of a snapshot: all that changed since the last complete one is in with these blocks (SPEC S4).
    public func upload(
        _ blocks: [BlockUpload],
        to target: BlockTarget,
        dataVersion: DataVersion? = nil,
        attachment: Attachment? = nil,
        progress: Int? = nil,
        rebased: Bool = false,
        durability: Durability = .durable
    ) async throws(ClientError) -> UploadResult {
        var request = Wire.UploadBlockRequest()
        request.target = target.wire
        request.dataVersion = dataVersion?.rawValue ?? 0
        request.attachment = attachment?.generation ?? 0
        request.progress = progress.map { Wire.Progress(percent: UInt32(clamping: $0)) }
        request.rebased = rebased
        request.durability = durability.wire
        request.blocks = blocks.map { $0.wire(checkedBy: options.checksum) }
        do throws(ClientError) {
            return try UploadResult(try await caller.call(request, payload: blocks.compactMap(\.payload)).0)
        } catch {
            guard progress == 100, error.isOfRepetition, error.answer?.reason == .snapshotAlreadyComplete else {
                throw error
            }
            switch target {
            case .volume: throw error
            case .snapshot(let id): return UploadResult(completing: try await describeSnapshot(id))
            case .snapshotToken(let token): return UploadResult(completing: try await describeSnapshot(token: token))
            }
        }
    }

    /// Downloads ranges, checks every block against its checksum (``ClientOptions/checksum``), and decompresses what comes as LZ4.
    /// - Parameters:
    ///   - ranges: together at most 16 MiB.
    ///   - known: tokens of chunks that the caller holds: they come back as `known`, without bytes (SPEC A4).
    /// - Throws: `damaged` where a checksum fits not.
    public func download(
        _ ranges: [BlockRange],
        from target: BlockTarget,
        dataVersion: DataVersion? = nil,
        known: [Fingerprint] = []
    ) async throws(ClientError) -> [DownloadedBlock] {
        let request = Wire.DownloadBlockRequest(
            target: target.wire,
            dataVersion: dataVersion?.rawValue ?? 0,
            ranges: ranges.map { Wire.ByteRange(offset: $0.offset, length: $0.length) },
            acceptedCodecs: [.plain, .lz4],
            knownTokens: known.map(\.bytes),
            checksumAlgorithm: options.checksum.wire
        )
        let (answer, payload) = try await caller.call(request)
        var reader = DownloadReader(answer, payload: payload, ranges: ranges, checkedBy: options.checksum)
        var blocks: [DownloadedBlock] = []
        while let part = try reader.next() { blocks.append(try part.decoded()) }
        return blocks
    }

    /// Tells which chunks need not be sent, and pins them for a lease of 15 minutes or more (SPEC A1).
    /// - Parameter volume: where they are wanted: it is looked at first.
    public func queryChunks(
        _ tokens: [Fingerprint],
        for volume: VolumeID? = nil
    ) async throws(ClientError) -> ChunkPresence {
        let request = Wire.QueryChunksRequest(tokens: tokens.map(\.bytes), volumeID: volume?.bytes ?? [])
        let answer = try await caller.call(request).0
        return ChunkPresence(
            isPresent: try QueryAnswer.bits(answer, count: tokens.count),
            leaseExpiresAt: Timestamp(milliseconds: answer.leaseExpiresAtMs)
        )
    }

    /// Makes durable all that was answered before (SPEC U8).
    /// - Returns: the write verifier.
    public func flush(_ volume: VolumeID) async throws(ClientError) -> [UInt8] {
        try await caller.call(Wire.FlushRequest(volumeID: volume.bytes)).0.writeVerifier
    }

    /// What a volume or snapshot holds, by rising offset; a range that is not listed was never written.
    public func blocks(of target: BlockTarget, in range: BlockRange? = nil) -> Pages<BlockDescription> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListBlocksRequest.page(page, of: target, in: range)
            let answer = try await caller.call(request).0
            return (answer.blocks.map { BlockDescription($0) }, answer.nextPageToken)
        }
    }

    /// The chunks whose content differs between two snapshots, or a snapshot and a volume, as they are in the newer one, by
    /// rising offset (SPEC R1). They need not be related; of related ones this takes time in proportion to the change.
    public func changedBlocks(from older: BlockTarget, to newer: BlockTarget) -> Pages<BlockDescription> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListChangedBlocksRequest(
                older: older.wire,
                newer: newer.wire,
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page)
            )
            let answer = try await caller.call(request).0
            return (answer.blocks.map { BlockDescription($0) }, answer.nextPageToken)
        }
    }

    /// Makes ranges read as zeros, which count as written (SPEC R1, V7): all of them, or none. One call may touch 8,192 chunks.
    /// - Returns: the write verifier.
    @discardableResult
    public func writeZeroes(
        _ ranges: [BlockRange],
        of target: BlockTarget,
        attachment: Attachment? = nil,
        durability: Durability = .durable
    ) async throws(ClientError) -> [UInt8] {
        let request = Wire.WriteZeroesRequest(
            target: target.wire,
            ranges: ranges.map(\.wire),
            attachment: attachment?.generation ?? 0,
            durability: durability.wire
        )
        return try await caller.call(request).0.writeVerifier
    }

    /// Makes ranges holes: they read as zeros, and hide what older versions or parents hold there (SPEC R1, V7): all of them, or
    /// none. One call may touch 8,192 chunks.
    /// - Returns: the write verifier.
    @discardableResult
    public func discard(
        _ ranges: [BlockRange],
        of target: BlockTarget,
        attachment: Attachment? = nil,
        durability: Durability = .durable
    ) async throws(ClientError) -> [UInt8] {
        let request = Wire.DiscardRequest(
            target: target.wire,
            ranges: ranges.map(\.wire),
            attachment: attachment?.generation ?? 0,
            durability: durability.wire
        )
        return try await caller.call(request).0.writeVerifier
    }
}

extension Wire.ListBlocksRequest {
    static func page(_ token: [UInt8], of target: BlockTarget, in range: BlockRange?) -> Wire.ListBlocksRequest {
        Wire.ListBlocksRequest(
            target: target.wire,
            range: range.map { Wire.ByteRange(offset: $0.offset, length: $0.length) },
            page: Wire.PageRequest(limit: UInt32(Limits.blocksPerPage / 2), pageToken: token)
        )
    }
}

enum QueryAnswer {
    /// The bits of a QueryChunks answer (bit i%8 of byte i/8, from the lowest).
    static func bits(_ answer: Wire.QueryChunksResponse, count: Int) throws(ClientError) -> [Bool] {
        guard answer.present.count == (count + 7) / 8 else {
            throw ClientError(
                .protocolViolation,
                "QueryChunks answered \(answer.present.count) bytes of bits for \(count) tokens"
            )
        }
        return (0..<count).map { answer.present[$0 / 8] >> UInt8($0 % 8) & 1 == 1 }
    }
}
