public import CairnCore
internal import CairnWire

public enum SnapshotState: String, Sendable, Hashable, CaseIterable {
    case inProgress = "in_progress"
    case complete
    /// Cancelled because nobody touched it for its idle limit (SPEC S11).
    case error
    case deleting
    case unknown

    init(_ wire: Wire.SnapshotState) {
        self =
            switch wire {
            case .inProgress: .inProgress
            case .complete: .complete
            case .error: .error
            case .deleting: .deleting
            default: .unknown
            }
    }
    var wire: Wire.SnapshotState {
        switch self {
        case .inProgress: .inProgress
        case .complete: .complete
        case .error: .error
        case .deleting: .deleting
        case .unknown: .unspecified
        }
    }
}

/// The proof of what a complete snapshot holds (SPEC S6).
public enum SnapshotSeal: Sendable, Hashable {
    /// The server has not computed it yet.
    case pending
    /// 32 bytes.
    case value(Fingerprint)

    init?(_ wire: Wire.Seal?) throws(ClientError) {
        guard let wire else { return nil }
        guard !wire.pending else {
            self = .pending
            return
        }
        self = .value(try Contract.require(Fingerprint(bytes: wire.value), "seal", in: "a snapshot's description"))
    }
}

/// A snapshot as the service describes it.
public struct Snapshot: Sendable, Hashable {
    public let id: SnapshotID
    public let volume: VolumeID
    public let account: String
    public let state: SnapshotState
    public let dataVersion: DataVersion
    /// Bytes.
    public let size: UInt64
    public let chunkSize: ChunkSize
    /// Percent, 0–100.
    public let progress: Int
    public let note: String
    public let tags: [String: String]
    public let createdAt: Timestamp
    /// Nil until complete.
    public let completedAt: Timestamp?
    /// Only of a complete snapshot.
    public let seal: SnapshotSeal?
    /// Opaque: finds the snapshot from any server of the installation (SPEC S7).
    public let token: [UInt8]

    init(_ wire: Wire.SnapshotDescription) throws(ClientError) {
        let message = "a snapshot's description"
        id = try Contract.require(SnapshotID(bytes: wire.snapshotID), "snapshot ID", in: message)
        volume = try Contract.require(VolumeID(bytes: wire.volumeID), "volume ID", in: message)
        account = wire.account
        state = SnapshotState(wire.state)
        dataVersion = DataVersion(wire.dataVersion)
        size = wire.size
        chunkSize = try Contract.require(ChunkSize(bytes: wire.chunkSize), "chunk size", in: message)
        progress = Int(wire.progress)
        note = wire.description
        tags = Tags.value(wire.tags)
        createdAt = Timestamp(milliseconds: wire.createdAtMs)
        completedAt = wire.completedAtMs == 0 ? nil : Timestamp(milliseconds: wire.completedAtMs)
        seal = try SnapshotSeal(wire.seal)
        token = wire.snapshotToken
    }
}

/// A snapshot that was made.
public struct CreatedSnapshot: Sendable, Hashable {
    public let id: SnapshotID
    /// The snapshot's version; the volume's is one higher from now on (SPEC S1).
    public let dataVersion: DataVersion
    public let token: [UInt8]
    public let state: SnapshotState

    init(_ wire: Wire.CreateSnapshotResponse) throws(ClientError) {
        id = try Contract.require(SnapshotID(bytes: wire.snapshotID), "snapshot ID", in: "the answer to CreateSnapshot")
        dataVersion = DataVersion(wire.dataVersion)
        token = wire.snapshotToken
        state = SnapshotState(wire.state)
    }
}
