public import CairnCore
internal import CairnWire

/// Chunks that belong to no volume yet, and their leases (SPEC U7).
extension Client {
    /// Puts whole chunks on the server before there is a place for them: kept for a lease, ready to be named by token in a
    /// snapshot's list or an upload.
    /// - Parameters:
    ///   - chunks: each `chunkSize` bytes long. What exceeds one call goes by several.
    ///   - volume: what they are meant for; they are kept where it is. Nil: where the account has its home.
    ///   - lease: at most 30 days; nil: 24 hours.
    public func stage(
        _ chunks: [BufferSlice],
        chunkSize: ChunkSize,
        near volume: VolumeID? = nil,
        lease: Duration? = nil
    ) async throws(ClientError) -> StagedChunks {
        guard chunks.allSatisfy({ $0.count == chunkSize.bytes }) else {
            throw ClientError(.invalidRequest, "a chunk to stage is not \(chunkSize) long")
        }
        let perCall = max(1, min(Limits.payloadBytes / chunkSize.bytes / 2, Limits.blocksPerCall))
        var tokens: [Fingerprint] = []
        var expiry = Timestamp(milliseconds: .max)
        for start in stride(from: 0, to: chunks.count, by: perCall) {
            let batch = chunks[start..<min(start + perCall, chunks.count)]
            let answer = try await stage(batch, chunkSize, volume, lease)
            tokens += answer.tokens
            expiry = min(expiry, answer.leaseExpiresAt)
        }
        return StagedChunks(tokens: tokens, leaseExpiresAt: expiry)
    }

    private func stage(
        _ chunks: ArraySlice<BufferSlice>,
        _ chunkSize: ChunkSize,
        _ volume: VolumeID?,
        _ lease: Duration?
    ) async throws(ClientError) -> StagedChunks {
        var request = Wire.UploadBlockRequest()
        request.chunkSize = UInt32(chunkSize.bytes)
        request.leaseSeconds = Leases.seconds(lease)
        request.nearVolumeID = volume?.bytes ?? []
        request.durability = .durable
        request.blocks = chunks.enumerated().map { index, bytes in
            let offset = UInt64(index) * UInt64(chunkSize.bytes)
            return BlockUpload(offset: offset, length: UInt32(bytes.count), content: .plain(bytes))
                .wire(checkedBy: options.checksum)
        }
        let answer = try await caller.call(request, payload: Array(chunks)).0
        guard answer.chunks.count == chunks.count else {
            throw ClientError(
                .protocolViolation,
                "UploadBlock answered \(answer.chunks.count) tokens for \(chunks.count) chunks"
            )
        }
        var tokens: [Fingerprint] = []
        for chunk in answer.chunks {
            let token = Fingerprint(bytes: chunk.token)
            tokens.append(try Contract.require(token, "token", in: "the answer to UploadBlock"))
        }
        return StagedChunks(tokens: tokens, leaseExpiresAt: Timestamp(milliseconds: answer.leaseExpiresAtMs))
    }

    /// Prolongs, or takes, the lease of chunks that the account may name.
    /// - Parameters:
    ///   - tokens: at most the server's `maxTokensPerCall`.
    ///   - lease: from now; at most 30 days; nil: 24 hours.
    /// - Returns: when it ends.
    /// - Throws: INVALID_CHUNK_TOKEN, with the token's place, where the account has no such chunk here.
    @discardableResult
    public func renewLease(
        of tokens: [Fingerprint],
        for lease: Duration? = nil
    ) async throws(ClientError) -> Timestamp {
        let request = Wire.RenewLeaseRequest(tokens: tokens.map(\.bytes), leaseSeconds: Leases.seconds(lease))
        return Timestamp(milliseconds: try await caller.call(request).0.leaseExpiresAtMs)
    }

    /// Ends the lease of chunks; what nothing else holds becomes free. Tokens without a lease do not matter.
    /// - Parameter tokens: at most the server's `maxTokensPerCall`.
    public func releaseLease(of tokens: [Fingerprint]) async throws(ClientError) {
        _ = try await caller.call(Wire.ReleaseLeaseRequest(tokens: tokens.map(\.bytes)))
    }
}

enum Leases {
    /// Whole seconds as the contract counts them; 0 leaves it to the server.
    static func seconds(_ lease: Duration?) -> UInt32 {
        guard let lease else { return 0 }
        let (seconds, attoseconds) = lease.components
        return UInt32(clamping: max(1, seconds + (attoseconds > 0 ? 1 : 0)))
    }
}
