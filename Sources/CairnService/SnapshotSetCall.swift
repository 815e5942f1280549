import CairnCore
import CairnStore
import CairnWire

/// CreateSnapshots (SPEC R6).
extension Service {
    /// R6: all or none, also across a crash; complete when it answers (but V5).
    public func createSnapshots(
        _ request: Wire.CreateSnapshotsRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.CreateSnapshotsResponse>
    ) {
        let volumes: [VolumeID]
        let tags: [String: String]
        do throws(ServiceError) {
            volumes = try Self.distinct(request.volumeIDs)
            try TagRules.check(description: request.description)
            tags = try TagRules.check(request.tags)
        } catch { return answer(.failure(error)) }
        var parameters = request
        parameters.idempotencyKey = []
        once(.createSnapshots, key: request.idempotencyKey, parameters: parameters, context, answer) {
            receipt,
            answer in
            self.beginOnWorker(context, answer) { () throws(ServiceError) in
                try SnapshotSet(
                    service: self,
                    volumes: volumes,
                    description: request.description,
                    tags: tags,
                    receipt: receipt,
                    context: context,
                    answer: answer
                ).run()
            }
        }
    }

    private static func distinct(_ ids: [[UInt8]]) throws(ServiceError) -> [VolumeID] {
        guard (1...Limits.volumesPerCall).contains(ids.count) else {
            throw ServiceError(
                .invalidArgument,
                "1 to \(Limits.volumesPerCall) volumes are snapshotted at a time, not \(ids.count)"
            )
        }
        var volumes: [VolumeID] = []
        for (index, bytes) in ids.enumerated() {
            guard let id = VolumeID(bytes: bytes) else { throw ServiceError.noSuchVolume.at(index) }
            if volumes.contains(id) {
                throw ServiceError(.invalidArgument, "\(id) is named twice", blockIndex: index)
            }
            volumes.append(id)
        }
        return volumes
    }
}

/// One CreateSnapshots: of volumes of one shard a transaction, else in steps.
///
/// ```
/// intend   the snapshots' IDs are written down in the account's home shard
/// make     all shards stand still, and each makes its snapshots before anything else
/// end      the intent goes, and the receipt is kept, in one commit: from here on all of them stay
/// ```
/// Where a step fails what the ones before made is removed, and then the intent; after a crash, or where a shard fails meanwhile, the store does that.
private struct SnapshotSet: Sendable {
    typealias Made = Result<[Wire.CreateSnapshotResponse], ServiceError>

    let service: Service
    let volumes: [VolumeID]
    let description: String
    let tags: [String: String]
    let receipt: Service.Receipt?
    let context: CallContext
    let answer: Answer<Wire.CreateSnapshotsResponse>

    /// The volumes of one shard: their places in the call, and the IDs that their snapshots will have.
    private struct Part: Sendable {
        let shard: Shard
        var places: [Int] = []
        var ids: [SnapshotID] = []
    }

    /// Records of the index that one snapshot changes.
    private static let entries = 12

    /// Runs on a worker.
    func run() throws(ServiceError) {
        var parts: [Part] = []
        for (place, volume) in volumes.enumerated() {
            guard let shard = service.shard(of: volume.uuid) else { throw ServiceError.noSuchVolume.at(place) }
            _ = try service.view(shard) { (view) throws(ServiceError) in try check(place, in: view) }
            // Not by identity: a shard that recovers meanwhile becomes another object, and its part then fails as a whole.
            let index = parts.firstIndex { $0.shard.index == shard.index } ?? parts.count
            if index == parts.count { parts.append(Part(shard: shard)) }
            parts[index].places.append(place)
            parts[index].ids.append(SnapshotID(.random(shard: shard.index)))
        }
        if parts.count == 1 { makeAtOnce(parts[0]) } else { intend(parts) }
    }

    private func check(_ place: Int, in reader: ManifestReader) throws(ServiceError) -> VolumeRecord {
        do throws(ServiceError) {
            let volume = try service.volume(volumes[place], in: reader, context)
            try Service.checkRemote(volume)
            return volume
        } catch { throw error.at(place) }
    }

    private func make(_ part: Part, _ transaction: Transaction) throws(ServiceError) -> [Wire.CreateSnapshotResponse] {
        var responses: [Wire.CreateSnapshotResponse] = []
        for (place, id) in zip(part.places, part.ids) {
            let volume = try check(place, in: transaction)
            try Service.checkWaiting(volume, in: transaction)
            let snapshot = try storeCall { () throws(StoreError) in
                try transaction.createSnapshot(of: volume, id: id, description: description, tags: tags)
            }
            responses.append(Service.created(snapshot))
        }
        return responses
    }

    private func makeAtOnce(_ part: Part) {
        let footprint = Service.Footprint(entries: volumes.count * Self.entries)
        service.change(on: part.shard, footprint, context, answer) { (transaction) throws(ServiceError) in
            let response = Wire.CreateSnapshotsResponse(snapshots: try make(part, transaction))
            try receipt?.keep(response, in: transaction)
            return response
        }
    }

    // MARK: Steps

    private func intend(_ parts: [Part]) {
        let home = service.homeShard(of: context.account)
        let intent = UUID128.random(shard: home.index)
        service.store.begin(intent: intent)
        let done: Answer<Void> = { result in
            switch result {
            case .success: make(parts, intent, home)
            // Refused, or on a shard that failed: then it may be written.
            case .failure(let error): leave(intent, .failure(error))
            }
        }
        service.change(on: home, Service.Footprint(), context, done) { (transaction) throws(ServiceError) in
            transaction.putIntent(intent, snapshots: parts.flatMap(\.ids))
        }
    }

    private func make(_ parts: [Part], _ intent: UUID128, _ home: Shard) {
        let holds = parts.map { service.quotaHold(of: context.account, on: $0.shard) }
        PointInTime<Made>.submit(to: parts.map(\.shard), entries: volumes.count * Self.entries) {
            (place, transaction) throws(StoreError) -> Made in
            do throws(ServiceError) {
                guard let hold = holds[place] else { return .success(try make(parts[place], transaction)) }
                return .success(
                    try hold.judge(transaction) { (transaction) throws(ServiceError) in
                        try make(parts[place], transaction)
                    }
                )
            } catch {
                transaction.abort()
                return .failure(error)
            }
        } completion: { results in
            for hold in holds { hold?.settle() }
            let made = results.map { $0.mapError { ServiceError($0) }.flatMap { $0 } }
            var responses = [Wire.CreateSnapshotResponse](repeating: .init(), count: volumes.count)
            for (part, result) in zip(parts, made) {
                switch result {
                case .failure(let error): return undo(parts, intent, home, error)
                case .success(let snapshots):
                    for (place, snapshot) in zip(part.places, snapshots) { responses[place] = snapshot }
                }
            }
            end(Wire.CreateSnapshotsResponse(snapshots: responses), parts, intent, home)
        }
    }

    private func end(_ response: Wire.CreateSnapshotsResponse, _ parts: [Part], _ intent: UUID128, _ home: Shard) {
        home.submit { (transaction) throws(StoreError) -> Result<Void, ServiceError> in
            transaction.endIntent(intent)
            return Result { () throws(ServiceError) in try receipt?.keep(response, in: transaction) }
        } completion: { result in
            switch result {
            case .success:
                service.store.end(intent: intent, isLeft: false)
                answer(.success(response))
            case .failure(let error) where error.code == .full || error.code == .invalid:
                undo(parts, intent, home, ServiceError(error))
            // It may be written or not: only the shard's recovery can tell, and makes it so that all are there or none.
            case .failure(let error): leave(intent, .failure(ServiceError(error)))
            }
        }
    }

    /// Ends the call where the intent may stay behind: the store undoes it, if it is there, as soon as all shards take changes.
    private func leave(_ intent: UUID128, _ result: Result<Wire.CreateSnapshotsResponse, ServiceError>) {
        service.store.end(intent: intent, isLeft: true)
        answer(result)
    }

    /// Removes what was made, shard by shard, and then the intent: that stays where a shard took no changes.
    private func undo(
        _ parts: [Part],
        _ intent: UUID128,
        _ home: Shard,
        _ error: ServiceError,
        isWhole: Bool = true
    ) {
        guard let part = parts.first else {
            guard isWhole else { return leave(intent, .failure(error)) }
            return home.submit(entries: 1, reclaims: true) { (transaction) throws(StoreError) in
                transaction.endIntent(intent)
            } completion: { _ in
                leave(intent, .failure(error))
            }
        }
        part.shard.submit(entries: part.ids.count * Self.entries, reclaims: true) { (transaction) throws(StoreError) in
            for id in part.ids {
                if let snapshot = try transaction.snapshot(id) { try transaction.deleteSnapshot(snapshot) }
            }
        } completion: { result in
            let isDone = if case .success = result { true } else { false }
            undo(Array(parts.dropFirst()), intent, home, error, isWhole: isWhole && isDone)
        }
    }
}
