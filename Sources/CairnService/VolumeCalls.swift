import CairnCore
import CairnStore
import CairnWire

/// CreateVolume, DeleteVolume, DescribeVolume, ListVolumes, ResizeVolume (SPEC section 2).
extension Service {
    /// A CreateVolume whose every parameter is settled but the snapshot's.
    private struct Creation {
        let kind: VolumeKind
        let size: UInt64
        let chunkSize: ChunkSize?
        let source: SnapshotID?
        let affinity: [UInt8]
        let tags: [String: String]
    }

    /// V1–V4, V6, V10.
    public func createVolume(
        _ request: Wire.CreateVolumeRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.CreateVolumeResponse>
    ) {
        let creation: Creation
        do throws(ServiceError) { creation = try check(request) } catch { return answer(.failure(error)) }
        let shard: Shard
        if let source = creation.source {
            guard let home = self.shard(of: source.uuid) else { return answer(.failure(.noSuchSnapshot)) }
            shard = home
        } else {
            shard = self.shard(
                forAffinity: creation.affinity,
                idempotencyKey: request.idempotencyKey,
                account: context.account
            )
        }
        var parameters = request
        parameters.idempotencyKey = []
        idempotent(.createVolume, key: request.idempotencyKey, parameters: parameters, on: shard, context, answer) {
            (transaction) throws(ServiceError) in
            try self.create(creation, in: transaction, context)
        }
    }

    private func check(_ request: Wire.CreateVolumeRequest) throws(ServiceError) -> Creation {
        let kind: VolumeKind
        switch request.kind {
        case .unspecified, .remote: kind = .remote
        case .local: kind = .local
        default: throw ServiceError(.invalidArgument, "volume kind \(request.kind.rawValue) is unknown")
        }
        if request.size != 0 { try Self.check(size: request.size) }
        var chunkSize: ChunkSize?
        if request.chunkSize != 0 {
            guard let given = ChunkSize(bytes: request.chunkSize) else {
                throw ServiceError(
                    .invalidArgument,
                    "chunk_size \(request.chunkSize) is no power of two from 4 KiB to 4 MiB"
                )
            }
            chunkSize = given
        }
        var source: SnapshotID?
        if !request.snapshotID.isEmpty {
            guard let id = SnapshotID(bytes: request.snapshotID) else { throw ServiceError.noSuchSnapshot }
            source = id
        }
        guard request.affinity.count <= Limits.affinityKeyBytes else {
            throw ServiceError(.invalidArgument, "an affinity key has at most \(Limits.affinityKeyBytes) bytes")
        }
        try TagRules.check(idempotencyKey: request.idempotencyKey)
        return Creation(
            kind: kind,
            size: request.size,
            chunkSize: chunkSize,
            source: source,
            affinity: request.affinity,
            tags: try TagRules.check(request.tags)
        )
    }

    /// SPEC V2.
    static func check(size: UInt64) throws(ServiceError) {
        guard size >= Limits.volumeSizeMinimum, size <= Limits.volumeSizeMaximum, size.isMultiple(of: Limits.sector)
        else {
            throw ServiceError(
                .invalidVolumeSize,
                "\(size) bytes is no multiple of 512 from \(ByteCount.text(Limits.volumeSizeMinimum)) to "
                    + ByteCount.text(Limits.volumeSizeMaximum)
            )
        }
    }

    private func create(
        _ creation: Creation,
        in transaction: Transaction,
        _ context: CallContext
    ) throws(ServiceError) -> Wire.CreateVolumeResponse {
        var size = creation.size == 0 ? options.defaultVolumeSize : creation.size
        var chunkSize = creation.chunkSize ?? options.defaultChunkSize
        var source: SnapshotRecord?
        if let id = creation.source {
            let found = try self.snapshot(id, for: .use, in: transaction, context)
            if found.state == .error { throw Self.cancelled(found) }
            source = found
            size = creation.size == 0 ? found.size : creation.size
            guard size >= found.size else {
                throw ServiceError(.invalidVolumeSize, "\(size) bytes is less than the snapshot's \(found.size)")
            }
            guard creation.chunkSize == nil || creation.chunkSize == found.chunkSize else {
                throw ServiceError(.invalidArgument, "chunk_size must be the snapshot's, \(found.chunkSize.bytes)")
            }
            chunkSize = found.chunkSize
        }
        let (finalSize, finalChunkSize, finalSource) = (size, chunkSize, source)
        let volume = try storeCall { () throws(StoreError) in
            try transaction.createVolume(
                account: context.account,
                kind: creation.kind,
                size: finalSize,
                chunkSize: finalChunkSize,
                source: finalSource,
                affinity: creation.affinity,
                tags: creation.tags
            )
        }
        var response = Wire.CreateVolumeResponse()
        response.volumeID = volume.id.bytes
        response.initialSnapshotID = volume.initialSnapshot.bytes
        response.dataVersion = volume.dataVersion.rawValue
        response.size = volume.size
        response.chunkSize = UInt32(volume.chunkSize.bytes)
        return response
    }

    /// V9.
    public func deleteVolume(
        _ request: Wire.DeleteVolumeRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DeleteVolumeResponse>
    ) {
        guard let id = VolumeID(bytes: request.volumeID), let shard = shard(of: id.uuid) else {
            return answer(.failure(.noSuchVolume))
        }
        var parameters = request
        parameters.idempotencyKey = []
        delete(
            .deleteVolume,
            key: request.idempotencyKey,
            parameters: parameters,
            on: shard,
            context,
            Wire.DeleteVolumeResponse(),
            answer
        ) {
            (transaction) throws(ServiceError) in
            let volume = try self.volume(id, in: transaction, context)
            if !request.cancelSnapshots { try Self.checkNoneInProgress(of: volume, in: transaction) }
            return try storeCall { () throws(StoreError) in
                let inProgress = try transaction.outstanding(of: volume.id) + transaction.waiting(of: volume)
                let leaving = Set(inProgress.map(\.id) + [volume.initialSnapshot])
                try transaction.deleteVolume(volume)
                // Snapshots go with the volume; the initial one stays where something was cloned from it.
                var gone: [GrantResource] = [.volume(volume.id)]
                for id in leaving where try transaction.snapshot(id) == nil { gone.append(.snapshot(id)) }
                return gone
            }
        }
    }

    /// SPEC V9.
    private static func checkNoneInProgress(of volume: VolumeRecord, in reader: ManifestReader) throws(ServiceError) {
        let inProgress = try storeCall { () throws(StoreError) in
            let waiting = try reader.waiting(of: volume).filter { $0.id != volume.initialSnapshot }
            return try reader.outstanding(of: volume.id) + waiting
        }
        guard let first = inProgress.first else { return }
        throw ServiceError(
            .failedPrecondition,
            "\(inProgress.count) snapshots of the volume are in progress, the first \(first.id): cancel_snapshots cancels them"
        )
    }

    public func describeVolume(
        _ request: Wire.DescribeVolumeRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DescribeVolumeResponse>
    ) {
        guard let id = VolumeID(bytes: request.volumeID), let shard = self.shard(of: id.uuid) else {
            return answer(.failure(.noSuchVolume))
        }
        // One's own volume that was looked at lately, which is what most calls ask for: there sooner than whether anybody still waits.
        if context.mayAnswerHere, !workers.isCrowded, let volume = shard.volumeAtHand(id),
            volume.account == context.account, volume.state == .active
        {
            return answer(.success(Wire.DescribeVolumeResponse(volume: Self.describe(volume))))
        }
        lookUp(in: shard, context, answer) { (view) throws(ServiceError) in
            let volume = try self.volume(id, for: .use, in: view, context)
            var description = Self.describe(volume)
            // Whoever was granted it needs its size; what else its owner made it from and uses it for is the owner's (SPEC D5).
            if volume.account != context.account {
                (description.sourceSnapshotID, description.affinity, description.attachmentGeneration) = ([], [], 0)
            }
            return Wire.DescribeVolumeResponse(volume: description)
        }
    }

    /// R1: over all shards, oldest first.
    public func listVolumes(
        _ request: Wire.ListVolumesRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ListVolumesResponse>
    ) {
        onWorker(context, bytes: request.page.cost(each: 1024), answer) { () throws(ServiceError) in
            let count = try request.page.itemCount()
            // As many as there can be on a volume: each is looked for in each item of the page.
            _ = try TagRules.check(request.tags)
            let call = PagedCall(request, of: context.account)
            let after = try ListingCursor(call)
            var merged = MergedPage<VolumeRecord>(count: count)
            for shard in self.store.shards {
                let found = try self.view(shard) { (view) throws(ServiceError) in
                    try storeCall { () throws(StoreError) in
                        try view.volumes(
                            of: context.account,
                            after: after.map { ($0.createdMilliseconds, $0.id) },
                            limit: count,
                            bytes: Limits.pageBytes
                        )
                    }
                }
                merged.add(
                    found,
                    place: { ListingCursor(createdMilliseconds: $0.createdAt, id: $0.id.uuid) },
                    size: \.listedBytes
                )
            }
            // The page is what was looked at, not what passed the filters: so a filter that little passes costs no long walk.
            let (page, last) = merged.take()
            var response = Wire.ListVolumesResponse()
            response.volumes = page.filter {
                TagRules.matches($0.tags, request.tags)
                    && (request.state == .unspecified || Self.describe($0).state == request.state)
            }.map(Self.describe)
            response.nextPageToken = last?.token(in: call) ?? []
            return response
        }
    }

    /// R1: grows only.
    public func resizeVolume(
        _ request: Wire.ResizeVolumeRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ResizeVolumeResponse>
    ) {
        guard let id = VolumeID(bytes: request.volumeID), let shard = shard(of: id.uuid) else {
            return answer(.failure(.noSuchVolume))
        }
        change(on: shard, Footprint(), context, answer) { (transaction) throws(ServiceError) in
            let volume = try self.volume(id, in: transaction, context)
            try Self.check(size: request.size)
            guard request.size >= volume.size else {
                throw ServiceError(
                    .invalidVolumeSize,
                    "\(request.size) bytes is less than the volume's \(volume.size): volumes only grow"
                )
            }
            try storeCall { () throws(StoreError) in try transaction.resizeVolume(volume, to: request.size) }
            return Wire.ResizeVolumeResponse(size: request.size)
        }
    }

    static func describe(_ volume: VolumeRecord) -> Wire.VolumeDescription {
        var description = Wire.VolumeDescription()
        description.volumeID = volume.id.bytes
        description.account = volume.account.name
        description.kind = volume.kind == .remote ? .remote : .local
        description.state = .available
        description.size = volume.size
        description.chunkSize = UInt32(volume.chunkSize.bytes)
        description.dataVersion = volume.dataVersion.rawValue
        description.initialSnapshotID = volume.initialSnapshot.bytes
        description.sourceSnapshotID = volume.sourceSnapshot?.bytes ?? []
        description.affinity = volume.affinity
        description.tags = TagRules.wire(volume.tags)
        description.createdAtMs = volume.createdAt
        description.attachmentGeneration = volume.attachment
        return description
    }
}
