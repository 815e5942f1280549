import CairnCore
import CairnStore
import CairnWire

/// What a call names: a volume, or a snapshot by its ID or token.
enum Named: Sendable {
    case volume(VolumeID)
    case snapshot(SnapshotID)

    /// - Throws: C2's errors for what is no ID or token; INVALID_ARGUMENT where nothing is named.
    init(_ target: Wire.Target?) throws(ServiceError) {
        switch target?.target {
        case .volumeID(let bytes):
            guard let id = VolumeID(bytes: bytes) else { throw ServiceError.noSuchVolume }
            self = .volume(id)
        case .snapshotID(let bytes):
            guard let id = SnapshotID(bytes: bytes) else { throw ServiceError.noSuchSnapshot }
            self = .snapshot(id)
        case .snapshotToken(let token): self = .snapshot(try SnapshotToken.id(token))
        case nil: throw ServiceError(.invalidArgument, "the call names neither a volume nor a snapshot")
        }
    }
}

/// Where a call writes (SPEC U1): a volume at its present version, or the snapshot that takes data.
struct Destination: Sendable {
    let target: WriteTarget
    /// Nil for a volume.
    let snapshot: SnapshotRecord?
    /// Of a volume: how often it was attached (SPEC R5).
    var attachment: UInt64 = 0
}

extension Service {
    /// The shard that holds what is named.
    func shard(of named: Named) throws(ServiceError) -> Shard {
        switch named {
        case .volume(let id):
            guard let shard = shard(of: id.uuid) else { throw ServiceError.noSuchVolume }
            return shard
        case .snapshot(let id):
            guard let shard = shard(of: id.uuid) else { throw ServiceError.noSuchSnapshot }
            return shard
        }
    }

    /// Where to write, as it is now: asked before the work, and again by the transaction.
    /// - Parameter dataVersion: of a snapshot: 0, or its version (SPEC U5).
    /// - Throws: C2's errors, WRONG_VOLUME_KIND, SNAPSHOT_ALREADY_COMPLETE, INVALID_DATA_VERSION, FAILED_PRECONDITION.
    func destination(
        _ named: Named,
        dataVersion: UInt64,
        in reader: ManifestReader,
        _ context: CallContext
    ) throws(ServiceError) -> Destination {
        switch named {
        case .volume(let id):
            let volume = try self.volume(id, in: reader, context)
            try Self.checkRemote(volume)
            return Destination(target: WriteTarget(volume), snapshot: nil, attachment: volume.attachment)
        case .snapshot(let id):
            let snapshot = try self.snapshot(id, in: reader, context)
            if let earlier = try Self.checkInProgress(snapshot, in: reader) {
                throw ServiceError(.invalidDataVersion, "\(snapshot.id) takes no data yet: \(Self.comesFirst(earlier))")
            }
            guard dataVersion == 0 || dataVersion == snapshot.version.rawValue else {
                throw ServiceError(
                    .invalidDataVersion,
                    "the snapshot's data version is \(snapshot.version), not \(dataVersion)"
                )
            }
            guard let transaction = reader as? Transaction else {
                return Destination(target: WriteTarget(snapshot), snapshot: snapshot)
            }
            let target = try storeCall { () throws(StoreError) in try transaction.target(of: snapshot) }
            return Destination(target: target, snapshot: snapshot)
        }
    }

    /// SPEC V3: the data of a LOCAL volume is not here.
    static func checkRemote(_ volume: VolumeRecord) throws(ServiceError) {
        guard volume.kind == .remote else {
            throw ServiceError(.wrongVolumeKind, "\(volume.id) is a LOCAL volume: only its snapshots have data here")
        }
    }

    /// Gives the earliest outstanding snapshot where that is another one (SPEC S4).
    /// - Throws: SNAPSHOT_ALREADY_COMPLETE, FAILED_PRECONDITION for what is not in progress.
    static func checkInProgress(_ snapshot: SnapshotRecord, in reader: ManifestReader) throws(ServiceError)
        -> SnapshotRecord?
    {
        switch snapshot.state {
        case .pending: break
        case .complete: throw ServiceError(.snapshotAlreadyComplete, "\(snapshot.id) is complete")
        case .waiting:
            throw ServiceError(
                .snapshotAlreadyComplete,
                "\(snapshot.id) has all its data, and waits for the snapshot that its volume was made from"
            )
        case .error: throw cancelled(snapshot)
        case .creating: throw ServiceError.noSuchSnapshot
        }
        let earliest = try storeCall { () throws(StoreError) in try reader.earliestOutstanding(of: snapshot.volume) }
        return earliest?.id == snapshot.id ? nil : earliest
    }

    /// SPEC S11: there is nothing to read, and nothing is taken.
    static func cancelled(_ snapshot: SnapshotRecord) -> ServiceError {
        ServiceError(.failedPrecondition, "\(snapshot.id) was cancelled, for nothing was done for it too long")
    }

    static func comesFirst(_ earlier: SnapshotRecord) -> String {
        "\(earlier.id) (data version \(earlier.version)) is the earliest outstanding snapshot of \(earlier.volume)"
    }
}
