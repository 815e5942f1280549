import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// UploadBlock and Flush (SPEC section 4).
extension Service {
    /// U1–U6, U8, U9 on a volume.
    public func uploadBlock(
        _ request: Wire.UploadBlockRequest,
        payload: BufferSlice?,
        _ context: CallContext,
        answer: @escaping Answer<Wire.UploadBlockResponse>
    ) {
        workers.run {
            do throws(ServiceError) {
                try context.checkWanted()
                if request.target?.target == nil {
                    return try self.stage(request, payload: payload, context, answer: answer)
                }
                let id = try Self.uploadTarget(request)
                guard let shard = self.shard(of: id.uuid) else { throw ServiceError.noSuchVolume }
                let volume = try self.view(shard) { (view) throws(ServiceError) in
                    try self.volume(id, in: view, context)
                }
                let plan = try UploadPlan(
                    request.blocks,
                    payloadCount: payload?.count ?? 0,
                    volumeSize: volume.size,
                    chunkSize: volume.chunkSize,
                    checksumOptional: self.options.checksumOptional
                )
                let hint = shard.makeView()
                let preparation = UploadPreparation(
                    chunkSize: volume.chunkSize,
                    volumeSize: volume.size,
                    payload: payload,
                    holds: { (try? hint.holdsChunk(account: context.account, $0)) ?? false }
                )
                let tokens = TokenResolution(
                    store: self.store,
                    home: shard,
                    account: context.account,
                    chunkSize: volume.chunkSize,
                    volumeSize: volume.size
                )
                let changes = try tokens.resolve(try preparation.changes(of: plan))
                try context.checkWanted()
                try self.commit(changes, of: volume, request, on: shard, context, answer)
            } catch { answer(.failure(error)) }
        }
    }

    private static func uploadTarget(_ request: Wire.UploadBlockRequest) throws(ServiceError) -> VolumeID {
        guard request.progress == nil, !request.rebased else {
            throw ServiceError(.invalidArgument, "progress belongs to a snapshot in progress")
        }
        guard request.attachment == 0 else { throw ServiceError(.unimplemented, "this server attaches no volumes yet") }
        switch request.target?.target {
        case .volumeID(let bytes):
            guard let id = VolumeID(bytes: bytes) else { throw ServiceError.noSuchVolume }
            return id
        case .snapshotID, .snapshotToken:
            throw ServiceError(.unimplemented, "this server takes no uploads to snapshots yet")
        case nil: preconditionFailure("without a target the chunks are staged")
        }
    }

    static func durability(_ durability: Wire.Durability) throws(ServiceError) -> CommitDurability {
        switch durability {
        case .unspecified, .durable: return .durable
        case .onFlush: return .onFlush
        default: throw ServiceError(.invalidArgument, "durability \(durability.rawValue) is unknown")
        }
    }

    private func commit(
        _ changes: [Change],
        of prepared: VolumeRecord,
        _ request: Wire.UploadBlockRequest,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>
    ) throws(ServiceError) {
        let footprint = Footprint(
            durability: try Self.durability(request.durability),
            records: changes.count { $0.recordBytes > 0 },
            bytes: changes.reduce(0) { $0 + $1.recordBytes },
            entries: changes.count
        )
        change(on: shard, footprint, context, answer) { (transaction) throws(ServiceError) in
            let volume = try self.volume(prepared.id, in: transaction, context)
            guard volume.size == prepared.size || changes.allSatisfy({ !$0.dependsOnSize }) else {
                // Its last chunk is another one now: what was hashed as a whole chunk is only a part.
                throw ServiceError(.unavailable, "the volume was resized meanwhile: try again")
            }
            return try Self.apply(changes, to: volume, request, in: transaction, verifier: shard.verifier)
        }
    }

    private static func apply(
        _ changes: [Change],
        to volume: VolumeRecord,
        _ request: Wire.UploadBlockRequest,
        in transaction: Transaction,
        verifier: UInt64
    ) throws(ServiceError) -> Wire.UploadBlockResponse {
        var response = Wire.UploadBlockResponse()
        response.dataVersion = volume.dataVersion.rawValue
        response.writeVerifier = withUnsafeBytes(of: verifier.bigEndian, Array.init)
        if request.dataVersion > volume.dataVersion.rawValue {
            throw ServiceError(
                .invalidDataVersion,
                "data_version \(request.dataVersion) is later than the volume's \(volume.dataVersion)"
            )
        }
        // A token names what was here before the call: looked up before anything of the call is written.
        for change in changes {
            guard case .token(_, let token, let block) = change else { continue }
            let known = try storeCall { () throws(StoreError) in
                try transaction.holdsChunk(account: volume.account, token)
            }
            guard known else {
                throw ServiceError(.invalidChunkToken, "this account has no chunk \(token)", blockIndex: block)
            }
        }
        // So is what a later version wrote: the call's own writes carry the present one, and must not supersede each other.
        let superseded = try storeCall { () throws(StoreError) in
            try laterWritten(changes, than: request.dataVersion, volume, in: transaction)
        }
        response.superseded = superseded.sorted().map(volume.chunkSize.offset)
        for change in changes where !superseded.contains(change.chunk(volume.chunkSize)) {
            if let written = try storeCall({ () throws(StoreError) in try write(change, to: volume, in: transaction) })
            {
                response.chunks.append(written)
            }
        }
        return response
    }

    /// Of the chunks to be changed, those last written at a version after `version` (SPEC U5); none where that is 0.
    private static func laterWritten(
        _ changes: [Change],
        than version: UInt64,
        _ volume: VolumeRecord,
        in transaction: Transaction
    ) throws(StoreError) -> Set<ChunkIndex> {
        guard version != 0 else { return [] }
        var later: Set<ChunkIndex> = []
        for chunk in Set(changes.map { $0.chunk(volume.chunkSize) }) {
            let written = try transaction.lastWrittenVersion(of: chunk, in: WriteTarget(volume))
            if let written, written.rawValue > version { later.insert(chunk) }
        }
        return later
    }

    /// Gives the token where a whole chunk of data was written (SPEC U6).
    private static func write(
        _ change: Change,
        to volume: VolumeRecord,
        in transaction: Transaction
    ) throws(StoreError) -> Wire.WrittenChunk? {
        switch change {
        case .data(let chunk, let data):
            try transaction.writeChunk(chunk, of: volume, .data(data))
            return Wire.WrittenChunk(offset: volume.chunkSize.offset(of: chunk), token: data.fingerprint.bytes)
        case .token(let chunk, let token, _):
            try transaction.writeChunk(chunk, of: volume, .token(token))
            return Wire.WrittenChunk(offset: volume.chunkSize.offset(of: chunk), token: token.bytes)
        case .zeros(let chunk, let token):
            try transaction.writeChunk(chunk, of: volume, .zeros)
            if token {
                return Wire.WrittenChunk(
                    offset: volume.chunkSize.offset(of: chunk),
                    token: ZeroChunk.fingerprint(volume.chunkSize).bytes
                )
            }
        case .hole(let chunk): try transaction.writeChunk(chunk, of: volume, .hole)
        case .patch(let offset, let bytes): try transaction.writePatch(at: offset, bytes, of: volume)
        }
        return nil
    }

    /// U8: what was answered before on the volume's shard is durable when this answers.
    public func flush(
        _ request: Wire.FlushRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.FlushResponse>
    ) {
        workers.run {
            do throws(ServiceError) {
                guard let id = VolumeID(bytes: request.volumeID), let shard = self.shard(of: id.uuid) else {
                    throw ServiceError.noSuchVolume
                }
                _ = try self.view(shard) { (view) throws(ServiceError) in try self.volume(id, in: view, context) }
                shard.flush { result in
                    answer(
                        result.mapError { ServiceError($0) }.map { _ in
                            Wire.FlushResponse(writeVerifier: withUnsafeBytes(of: shard.verifier.bigEndian, Array.init))
                        }
                    )
                }
            } catch { answer(.failure(error)) }
        }
    }
}

extension Change {
    /// The bytes that the change adds to the log, headers aside.
    var recordBytes: Int {
        switch self {
        case .data(_, let data): data.bytes.count
        case .patch(_, let bytes): bytes.count
        case .token, .zeros, .hole: 0
        }
    }

    /// Whether the change would mean something else in a volume of another size: those of a whole chunk may be of a last,
    /// shorter one.
    var dependsOnSize: Bool {
        if case .patch = self { false } else { true }
    }

    func chunk(_ size: ChunkSize) -> ChunkIndex {
        switch self {
        case .data(let chunk, _), .token(let chunk, _, _), .zeros(let chunk, _), .hole(let chunk): chunk
        case .patch(let offset, _): size.chunk(at: offset)
        }
    }
}
