import CairnCore
import CairnStore

/// Runs a store's call, its errors turned into the service's.
func storeCall<Value>(_ body: () throws(StoreError) -> Value) throws(ServiceError) -> Value {
    do throws(StoreError) { return try body() } catch { throw ServiceError(error) }
}

/// Finding what a caller names, and changing it: the same for every call.
extension Service {
    /// SPEC C2: one lookup, whether the volume is missing or another account's.
    func volume(_ id: VolumeID, in view: ManifestReader, _ context: CallContext) throws(ServiceError) -> VolumeRecord {
        let record = try storeCall { () throws(StoreError) in try view.volume(id, for: context.account) }
        guard let record, record.account == context.account, record.state == .active else {
            throw ServiceError.noSuchVolume
        }
        return record
    }

    /// SPEC C2, for snapshots.
    func snapshot(_ id: SnapshotID, in view: ManifestReader, _ context: CallContext) throws(ServiceError)
        -> SnapshotRecord
    {
        let record = try storeCall { () throws(StoreError) in try view.snapshot(id) }
        guard let record, record.account == context.account, record.state != .creating else {
            throw ServiceError.noSuchSnapshot
        }
        return try storeCall { () throws(StoreError) in try view.settled(record) }
    }

    /// Reads from one consistent view of a shard's index, on the calling thread.
    func view<Value>(_ shard: Shard, _ body: (ReadView) throws(ServiceError) -> Value) throws(ServiceError) -> Value {
        try body(shard.makeView())
    }

    /// Answers with what `body` finds by one look-up in a shard's index.
    ///
    /// Right here, where the caller's thread allows it, the entry is in memory, and no job waits for a worker: the hand-over would
    /// cost several times what the look-up does. Else on a worker, where accounts take turns (SPEC R3). `body` may run twice.
    func lookUp<Value>(
        in shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable (ManifestReader) throws(ServiceError) -> Value
    ) {
        if context.mayAnswerHere, !workers.isCrowded {
            do throws(ServiceError) {
                try context.checkWanted()
                return answer(.success(try body(shard.makePeek())))
            } catch {
                guard error.code == .notInMemory else { return answer(.failure(error)) }
            }
        }
        onWorker(context, answer) { () throws(ServiceError) in try body(shard.makeView()) }
    }
}

extension ServiceError {
    /// What a store's failure is to a caller. Damage names the place (SPEC D4).
    init(_ error: StoreError) {
        switch error.code {
        case .damaged: self.init(.dataLoss, error.text)
        case .full: self.init(.storeFull, error.text)
        // It recovers by itself.
        case .fenced: self.init(.unavailable, error.text, retryAfter: .seconds(1))
        case .closed: self.init(.unavailable, error.text)
        case .notInMemory: self.init(.notInMemory, error.text)
        case .invalid: self.init(.invalidArgument, error.text)
        case .limited: self.init(.failedPrecondition, error.text)
        case .forbidden: self.init(.permissionDenied, error.text)
        case .notAStore, .exists, .locked, .newerFormat, .io, .aborted: self.init(.internalFailure, error.text)
        }
    }
}
