import CairnCore
import CairnStore
import CairnWire

/// CreateSnapshot, DeleteSnapshot, DescribeSnapshot, ListSnapshots (SPEC section 3) of REMOTE volumes.
extension Service {
    /// S1, S2: complete when it answers.
    public func createSnapshot(
        _ request: Wire.CreateSnapshotRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.CreateSnapshotResponse>
    ) {
        let tags: [String: String]
        do throws(ServiceError) {
            guard request.chunks.isEmpty, request.chunkListTokens.isEmpty, request.expected.isEmpty else {
                throw ServiceError(
                    .wrongVolumeKind,
                    "chunks and expected chunks belong to a snapshot of a LOCAL volume"
                )
            }
            try TagRules.check(description: request.description)
            tags = try TagRules.check(request.tags)
        } catch { return answer(.failure(error)) }
        guard let id = VolumeID(bytes: request.volumeID), let shard = shard(of: id.uuid) else {
            return answer(.failure(.noSuchVolume))
        }
        var parameters = request
        parameters.idempotencyKey = []
        idempotent(.createSnapshot, key: request.idempotencyKey, parameters: parameters, on: shard, context, answer) {
            (transaction) throws(ServiceError) in
            let volume = try self.volume(id, in: transaction, context)
            let snapshot = try storeCall { () throws(StoreError) in
                try transaction.createSnapshot(of: volume, description: request.description, tags: tags)
            }
            var response = Wire.CreateSnapshotResponse()
            response.snapshotID = snapshot.id.bytes
            response.dataVersion = snapshot.version.rawValue
            response.snapshotToken = SnapshotToken(snapshot).bytes
            response.state = .complete
            return response
        }
    }

    /// S8.
    public func deleteSnapshot(
        _ request: Wire.DeleteSnapshotRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DeleteSnapshotResponse>
    ) {
        guard let id = SnapshotID(bytes: request.snapshotID), let shard = shard(of: id.uuid) else {
            return answer(.failure(.noSuchSnapshot))
        }
        var parameters = request
        parameters.idempotencyKey = []
        idempotent(
            .deleteSnapshot,
            key: request.idempotencyKey,
            parameters: parameters,
            on: shard,
            reclaims: true,
            context,
            answer
        ) {
            (transaction) throws(ServiceError) in
            let snapshot = try self.snapshot(id, in: transaction, context)
            try storeCall { () throws(StoreError) in try transaction.deleteSnapshot(snapshot) }
            return Wire.DeleteSnapshotResponse()
        }
    }

    public func describeSnapshot(
        _ request: Wire.DescribeSnapshotRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DescribeSnapshotResponse>
    ) {
        onWorker(context, answer) { () throws(ServiceError) in
            let id: SnapshotID
            switch request.target {
            case .snapshotID(let bytes):
                guard let named = SnapshotID(bytes: bytes) else { throw ServiceError.noSuchSnapshot }
                id = named
            case .snapshotToken(let bytes): id = try SnapshotToken.id(bytes)
            case nil: throw ServiceError(.invalidArgument, "neither snapshot_id nor snapshot_token is given")
            }
            guard let shard = self.shard(of: id.uuid) else { throw ServiceError.noSuchSnapshot }
            var response = Wire.DescribeSnapshotResponse()
            response.snapshot = try self.view(shard) { (view) throws(ServiceError) in
                Self.describe(try self.snapshot(id, in: view, context))
            }
            return response
        }
    }

    /// R1: over all shards, or of one volume; oldest first.
    public func listSnapshots(
        _ request: Wire.ListSnapshotsRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ListSnapshotsResponse>
    ) {
        onWorker(context, answer) { () throws(ServiceError) in
            let count = try request.page.itemCount()
            let after = try ListingCursor(token: request.page.token)
            var volume: VolumeID?
            if !request.volumeID.isEmpty {
                guard let id = VolumeID(bytes: request.volumeID) else { throw ServiceError.noSuchVolume }
                volume = id
            }
            // Snapshots live on their volume's shard.
            let shards = volume.map { self.shard(of: $0.uuid).map { [$0] } ?? [] } ?? self.store.shards
            var found: [SnapshotRecord] = []
            for shard in shards {
                found += try self.view(shard) { (view) throws(ServiceError) in
                    try storeCall { () throws(StoreError) in
                        try view.snapshots(
                            of: context.account,
                            volume: volume,
                            after: after.map { ($0.createdMilliseconds, $0.id) },
                            limit: count
                        )
                    }
                }
            }
            let page = found.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.prefix(count)
            var response = Wire.ListSnapshotsResponse()
            response.snapshots = page.map(Self.describe).filter {
                (request.state == .unspecified || $0.state == request.state)
                    && request.tags.allSatisfy($0.tags.contains)
            }
            if page.count == count, let last = page.last {
                response.nextPageToken = ListingCursor(createdMilliseconds: last.createdAt, id: last.id.uuid).token
            }
            return response
        }
    }

    static func describe(_ snapshot: SnapshotRecord) -> Wire.SnapshotDescription {
        var description = Wire.SnapshotDescription()
        description.snapshotID = snapshot.id.bytes
        description.volumeID = snapshot.volume.bytes
        description.account = snapshot.account.name
        switch snapshot.state {
        case .pending, .waiting, .creating: description.state = .inProgress
        case .complete: description.state = .complete
        case .error: description.state = .error
        case .deleting: description.state = .deleting
        }
        description.dataVersion = snapshot.version.rawValue
        description.size = snapshot.size
        description.chunkSize = UInt32(snapshot.chunkSize.bytes)
        description.progress = UInt32(snapshot.progress)
        description.description = snapshot.description
        description.tags = TagRules.wire(snapshot.tags)
        description.createdAtMs = snapshot.createdAt
        description.completedAtMs = snapshot.completedAt
        description.snapshotToken = SnapshotToken(snapshot).bytes
        if snapshot.state == .complete {
            description.seal = Wire.Seal(pending: snapshot.seal == nil, value: snapshot.seal?.bytes ?? [])
        }
        return description
    }
}

/// The address of a snapshot's manifest (SPEC S7): opaque to clients, and no permission.
///
/// A version byte, the snapshot's ID (whose last bytes name the shard), its lineage and version, a CRC.
struct SnapshotToken {
    let bytes: [UInt8]

    init(_ snapshot: SnapshotRecord) {
        var writer = ByteWriter(capacity: 37)
        writer.put(UInt8(1))
        writer.put(bytes: snapshot.id.bytes)
        writer.put(snapshot.lineage.rawValue)
        writer.put(snapshot.version.rawValue)
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) })
        bytes = writer.bytes
    }

    /// Throws INVALID_SNAPSHOT_ID for what is no token.
    static func id(_ token: [UInt8]) throws(ServiceError) -> SnapshotID {
        let id = token.withUnsafeBytes { bytes -> SnapshotID? in
            var reader = ByteReader(bytes)
            guard bytes.count == 37, reader.take(UInt8.self) == 1, let id = reader.take(bytes: 16),
                reader.take(raw: 16) != nil,
                reader.take(UInt32.self) == CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: bytes[0..<33]))
            else { return nil }
            return SnapshotID(bytes: id)
        }
        guard let id else { throw ServiceError.noSuchSnapshot }
        return id
    }
}
