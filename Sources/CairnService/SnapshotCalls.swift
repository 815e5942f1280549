import CairnCore
import CairnStore
import CairnWire

/// CreateSnapshot, DeleteSnapshot, DescribeSnapshot, ListSnapshots (SPEC section 3).
extension Service {
    /// S1–S3, S5: of a REMOTE volume complete when it answers (but V5), of a LOCAL one in progress.
    public func createSnapshot(
        _ request: Wire.CreateSnapshotRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.CreateSnapshotResponse>
    ) {
        let tags: [String: String]
        do throws(ServiceError) {
            try TagRules.check(description: request.description)
            tags = try TagRules.check(request.tags)
        } catch { return answer(.failure(error)) }
        guard let id = VolumeID(bytes: request.volumeID), let shard = shard(of: id.uuid) else {
            return answer(.failure(.noSuchVolume))
        }
        var parameters = request
        parameters.idempotencyKey = []
        once(.createSnapshot, key: request.idempotencyKey, parameters: parameters, context, answer) { receipt, answer in
            self.beginOnWorker(context, answer) { () throws(ServiceError) in
                let volume = try self.view(shard) { (view) throws(ServiceError) in
                    try self.volume(id, in: view, context)
                }
                if volume.kind == .local {
                    try self.creation(of: volume, request, tags, receipt, on: shard, context, answer).run()
                } else {
                    try self.createRemoteSnapshot(of: id, request, tags, receipt, on: shard, context, answer)
                }
            }
        }
    }

    /// Of a volume that was made from a snapshot in progress: its own are in progress until that is complete, and there is a bound
    /// to these as to a LOCAL volume's.
    static func checkWaiting(_ volume: VolumeRecord, in reader: ManifestReader) throws(ServiceError) {
        try checkInProgress(try storeCall { () throws(StoreError) in try reader.waitingCount(of: volume) }, volume.id)
    }

    /// - Parameter count: the volume's snapshots in progress, before another one is made.
    static func checkInProgress(_ count: Int, _ volume: VolumeID) throws(ServiceError) {
        guard count < Limits.snapshotsInProgress else {
            throw ServiceError(
                .failedPrecondition,
                "\(volume) has \(count) snapshots in progress, as many as there may be"
            )
        }
    }

    private func createRemoteSnapshot(
        of id: VolumeID,
        _ request: Wire.CreateSnapshotRequest,
        _ tags: [String: String],
        _ receipt: Receipt?,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.CreateSnapshotResponse>
    ) throws(ServiceError) {
        guard request.chunks.isEmpty, request.chunkListTokens.isEmpty, request.expected.isEmpty else {
            throw ServiceError(.wrongVolumeKind, "chunks and expected chunks belong to a snapshot of a LOCAL volume")
        }
        change(on: shard, Footprint(), context, answer) { (transaction) throws(ServiceError) in
            let volume = try self.volume(id, in: transaction, context)
            try Self.checkWaiting(volume, in: transaction)
            let snapshot = try storeCall { () throws(StoreError) in
                try transaction.createSnapshot(of: volume, description: request.description, tags: tags)
            }
            let response = Self.created(snapshot)
            try receipt?.keep(response, in: transaction)
            return response
        }
    }

    /// Runs on a worker.
    private func creation(
        of volume: VolumeRecord,
        _ request: Wire.CreateSnapshotRequest,
        _ tags: [String: String],
        _ receipt: Receipt?,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.CreateSnapshotResponse>
    ) throws(ServiceError) -> SnapshotCreation {
        var expected: [Placement] = []
        for (index, item) in request.expected.enumerated() {
            expected.append(try PlacementSource.check(item, index, volume.chunkSize, volume.size))
        }
        return SnapshotCreation(
            service: self,
            shard: shard,
            volume: volume.id,
            chunkSize: volume.chunkSize,
            volumeSize: volume.size,
            source: try PlacementSource(request, store: store, home: shard, account: context.account, volume: volume),
            expected: expected,
            description: request.description,
            tags: tags,
            receipt: receipt,
            context: context,
            answer: answer
        )
    }

    static func created(_ snapshot: SnapshotRecord) -> Wire.CreateSnapshotResponse {
        var response = Wire.CreateSnapshotResponse()
        response.snapshotID = snapshot.id.bytes
        response.dataVersion = snapshot.version.rawValue
        response.snapshotToken = SnapshotToken.token(snapshot.id)
        response.state = state(of: snapshot)
        return response
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
        delete(
            .deleteSnapshot,
            key: request.idempotencyKey,
            parameters: parameters,
            on: shard,
            context,
            Wire.DeleteSnapshotResponse(),
            answer
        ) {
            (transaction) throws(ServiceError) in
            let snapshot = try self.snapshot(id, in: transaction, context)
            try self.remove(snapshot, in: transaction)
            return [.snapshot(id), .volume(snapshot.volume)]
        }
    }

    /// The next one of its volume, if it was the earliest in progress, takes data from now on.
    private func remove(_ snapshot: SnapshotRecord, in transaction: Transaction) throws(ServiceError) {
        try storeCall { () throws(StoreError) in
            try transaction.deleteSnapshot(snapshot)
            guard snapshot.state == .pending else { return }
            if let next = try transaction.earliestOutstanding(of: snapshot.volume), next.version > snapshot.version {
                try transaction.touch(next, at: now)
            }
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
            case .snapshotID(let bytes): id = try Self.snapshotID(bytes)
            case .snapshotToken(let bytes): id = try SnapshotToken.id(bytes)
            case nil: throw ServiceError(.invalidArgument, "neither snapshot_id nor snapshot_token is given")
            }
            guard let shard = self.shard(of: id.uuid) else { throw ServiceError.noSuchSnapshot }
            var response = Wire.DescribeSnapshotResponse()
            response.snapshot = try self.view(shard) { (view) throws(ServiceError) in
                try self.describe(try self.snapshot(id, for: .use, in: view, context), in: view, context)
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
        onWorker(context, bytes: request.page.cost(each: 4096), answer) { () throws(ServiceError) in
            let count = try request.page.itemCount()
            // As many as there can be on a snapshot: each is looked for in each item of the page.
            _ = try TagRules.check(request.tags)
            let call = PagedCall(request, of: context.account)
            let after = try ListingCursor(call)
            var volume: VolumeID?
            if !request.volumeID.isEmpty {
                guard let id = VolumeID(bytes: request.volumeID) else { throw ServiceError.noSuchVolume }
                volume = id
            }
            // Snapshots live on their volume's shard.
            let shards = volume.map { self.shard(of: $0.uuid).map { [$0] } ?? [] } ?? self.store.shards
            var merged = MergedPage<(record: SnapshotRecord, view: ReadView)>(count: count)
            for shard in shards {
                let view = shard.makeView()
                let records = try storeCall { () throws(StoreError) in
                    try view.snapshots(
                        of: context.account,
                        volume: volume,
                        after: after.map { ($0.createdMilliseconds, $0.id) },
                        limit: count,
                        bytes: Limits.pageBytes
                    )
                }
                merged.add(
                    records.map { ($0, view) },
                    place: { ListingCursor(createdMilliseconds: $0.record.createdAt, id: $0.record.id.uuid) },
                    size: \.record.listedBytes
                )
            }
            let (page, end) = merged.take()
            let (described, last) = try self.describe(page, context)
            var response = Wire.ListSnapshotsResponse()
            response.snapshots = described.filter {
                (request.state == .unspecified || $0.state == request.state)
                    && request.tags.allSatisfy($0.tags.contains)
            }
            response.nextPageToken = (last ?? end)?.token(in: call) ?? []
            return response
        }
    }

    /// As many of a page's snapshots, one at least, as take no more look-ups than one job may make.
    /// - Returns: them, and the place of the last one where that is not the page's.
    private func describe(_ page: [(record: SnapshotRecord, view: ReadView)], _ context: CallContext)
        throws(ServiceError) -> (descriptions: [Wire.SnapshotDescription], last: ListingCursor?)
    {
        var (descriptions, lookUps): ([Wire.SnapshotDescription], Int) = ([], 0)
        for (snapshot, view) in page {
            try context.checkWanted()
            // As it was when it was found: it may be gone by now, with all that it stood on.
            let (description, levels) = try describeCounting(snapshot, in: view, context)
            descriptions.append(description)
            lookUps += levels * Self.lookUpsPerLevel
            if lookUps > Self.lookUpsPerPage, descriptions.count < page.count {
                return (
                    descriptions, ListingCursor(createdMilliseconds: snapshot.createdAt, id: snapshot.id.uuid)
                )
            }
        }
        return (descriptions, nil)
    }

    /// The level itself, and two permissions for each of account, volume and snapshot.
    private static let lookUpsPerLevel = 7
    /// After so many look-ups a page of snapshots ends: some tens of milliseconds.
    private static let lookUpsPerPage = 1 << 15

    static func state(of snapshot: SnapshotRecord) -> Wire.SnapshotState {
        switch snapshot.state {
        case .pending, .waiting, .creating: .inProgress
        case .complete: .complete
        case .error: .error
        }
    }

    /// As the caller may know it: what follows from other accounts' data is told only where they permitted EXPORT (SPEC D5).
    func describe(_ snapshot: SnapshotRecord, in view: ManifestReader, _ context: CallContext) throws(ServiceError)
        -> Wire.SnapshotDescription
    {
        try describeCounting(snapshot, in: view, context).description
    }

    /// - Returns: it, and the levels whose permissions were looked up for it.
    private func describeCounting(_ snapshot: SnapshotRecord, in view: ManifestReader, _ context: CallContext)
        throws(ServiceError) -> (description: Wire.SnapshotDescription, levels: Int)
    {
        var description = Self.describe(snapshot)
        // It holds no data any more, and what it was part of may be gone.
        if snapshot.state == .error { return (description, 0) }
        let isOwn = snapshot.account == context.account
        let rule = try exportRule(
            of: ReadSource(snapshot),
            snapshot: snapshot.id,
            volume: snapshot.volume,
            in: view,
            context
        )
        if !Self.tellsSeal(snapshot, rule, isOwn: isOwn) { description.seal = nil }
        if isOwn {
            description.owners = snapshot.owners.map { share in
                Wire.OwnerShare(
                    account: share.owner.name,
                    bytes: share.bytes,
                    exportable: rule.allowsAll(of: share.owner)
                )
            }
        }
        return (description, rule.levelCount)
    }

    /// The seal of one's own snapshot, pending while it is computed; nil where its data is not all the caller's to have.
    func toldSeal(of snapshot: SnapshotRecord, in view: ManifestReader, _ context: CallContext) throws(ServiceError)
        -> Wire.Seal?
    {
        let source = ReadSource(snapshot)
        let rule = try exportRule(of: source, snapshot: snapshot.id, volume: snapshot.volume, in: view, context)
        guard Self.tellsSeal(snapshot, rule, isOwn: true) else { return nil }
        return Wire.Seal(pending: snapshot.seal == nil, value: snapshot.seal?.bytes ?? [])
    }

    /// A seal proves what the data is: it is told to who may have all of the data.
    private static func tellsSeal(_ snapshot: SnapshotRecord, _ rule: ExportRule, isOwn: Bool) -> Bool {
        if rule.isOpen { return true }
        guard isOwn else { return false }
        // Whose data is in it is known with the seal; until then it is pending, which tells nothing.
        return snapshot.seal == nil || snapshot.owners.allSatisfy { rule.allowsAll(of: $0.owner) }
    }

    static func describe(_ snapshot: SnapshotRecord) -> Wire.SnapshotDescription {
        var description = Wire.SnapshotDescription()
        description.snapshotID = snapshot.id.bytes
        description.volumeID = snapshot.volume.bytes
        description.account = snapshot.account.name
        description.state = state(of: snapshot)
        description.dataVersion = snapshot.version.rawValue
        description.size = snapshot.size
        description.chunkSize = UInt32(snapshot.chunkSize.bytes)
        description.progress = UInt32(snapshot.progress)
        description.description = snapshot.description
        description.tags = TagRules.wire(snapshot.tags)
        description.createdAtMs = snapshot.createdAt
        description.completedAtMs = snapshot.completedAt
        description.snapshotToken = SnapshotToken.token(snapshot.id)
        if snapshot.state == .complete {
            description.seal = Wire.Seal(pending: snapshot.seal == nil, value: snapshot.seal?.bytes ?? [])
        }
        description.needsRebase = snapshot.needsRebase
        description.promptedProgress = snapshot.promptedProgress.map { Wire.Progress(percent: UInt32($0)) }
        description.promptUnanswered = snapshot.isPromptUnanswered
        description.missing = snapshot.missing
        return description
    }
}

/// The address of a snapshot's manifest (SPEC S7): opaque to clients, and no permission.
///
/// Its content is the snapshot's ID, whose last bytes name the shard, where all else of it is. Nothing in it counts what others do
/// (SPEC C3).
enum SnapshotToken {
    private static let version: UInt8 = 1

    static func token(_ id: SnapshotID) -> [UInt8] {
        SealedToken.seal(version: version) { $0.put(bytes: id.bytes) }
    }

    /// Throws INVALID_SNAPSHOT_ID for what is no token.
    static func id(_ token: [UInt8]) throws(ServiceError) -> SnapshotID {
        let id = SealedToken.open(token, version: version) { $0.take(bytes: 16).flatMap { SnapshotID(bytes: $0) } }
        guard let id else { throw ServiceError.noSuchSnapshot }
        return id
    }
}
