public import CairnCore
internal import CairnWire

/// Where a volume's primary copy lives (SPEC V3).
public enum VolumeKind: String, Sendable, Hashable, CaseIterable {
    case remote, local

    init(_ wire: Wire.VolumeKind) { self = wire == .local ? .local : .remote }
    var wire: Wire.VolumeKind { self == .local ? .local : .remote }
}

public enum VolumeState: String, Sendable, Hashable, CaseIterable {
    case available, deleting, unknown

    init(_ wire: Wire.VolumeState) {
        self = wire == .available ? .available : wire == .deleting ? .deleting : .unknown
    }
    var wire: Wire.VolumeState {
        switch self {
        case .available: .available
        case .deleting: .deleting
        case .unknown: .unspecified
        }
    }
}

/// A volume as the service describes it (SPEC V8).
public struct Volume: Sendable, Hashable {
    public let id: VolumeID
    public let account: String
    public let kind: VolumeKind
    public let state: VolumeState
    /// Bytes.
    public let size: UInt64
    public let chunkSize: ChunkSize
    /// The version that the next write will carry.
    public let dataVersion: DataVersion
    public let initialSnapshot: SnapshotID?
    /// What the volume was made from; nil: from nothing.
    public let sourceSnapshot: SnapshotID?
    public let affinity: [UInt8]
    public let tags: [String: String]
    public let createdAt: Timestamp
    /// Who attached it last; generation 0: nobody has (SPEC R5).
    public let attachment: Attachment

    init(_ wire: Wire.VolumeDescription) throws(ClientError) {
        let message = "a volume's description"
        id = try Contract.require(VolumeID(bytes: wire.volumeID), "volume ID", in: message)
        account = wire.account
        kind = VolumeKind(wire.kind)
        state = VolumeState(wire.state)
        size = wire.size
        chunkSize = try Contract.require(ChunkSize(bytes: wire.chunkSize), "chunk size", in: message)
        dataVersion = DataVersion(wire.dataVersion)
        initialSnapshot = SnapshotID(bytes: wire.initialSnapshotID)
        sourceSnapshot = SnapshotID(bytes: wire.sourceSnapshotID)
        affinity = wire.affinity
        tags = Tags.value(wire.tags)
        createdAt = Timestamp(milliseconds: wire.createdAtMs)
        attachment = Attachment(generation: wire.attachmentGeneration)
    }
}

/// What CreateVolume is to make (SPEC V1). All defaults: an empty volume of the server's default size.
public struct NewVolume: Sendable, Hashable {
    /// Bytes, a multiple of 512, 1 MiB – 64 TiB; nil: the snapshot's size, else the server's default (SPEC V2).
    public var size: UInt64?
    /// What to begin with; nil: nothing.
    public var snapshot: SnapshotID?
    /// Nil: the snapshot's, else the server's default.
    public var chunkSize: ChunkSize?
    public var kind = VolumeKind.remote
    /// Volumes with the same key share a shard, and so a deduplication dictionary (SPEC V10). At most 256 bytes.
    public var affinity: [UInt8] = []
    /// At most 64; keys 1–256 bytes, values at most 256 bytes.
    public var tags: [String: String] = [:]
    public init() {}
}

/// A volume that was made.
public struct CreatedVolume: Sendable, Hashable {
    public let id: VolumeID
    /// Complete, version 1, empty or equal to the source (SPEC V1).
    public let initialSnapshot: SnapshotID
    public let dataVersion: DataVersion
    public let size: UInt64
    public let chunkSize: ChunkSize

    init(_ wire: Wire.CreateVolumeResponse) throws(ClientError) {
        let message = "the answer to CreateVolume"
        id = try Contract.require(VolumeID(bytes: wire.volumeID), "volume ID", in: message)
        initialSnapshot = try Contract.require(SnapshotID(bytes: wire.initialSnapshotID), "snapshot ID", in: message)
        dataVersion = DataVersion(wire.dataVersion)
        size = wire.size
        chunkSize = try Contract.require(ChunkSize(bytes: wire.chunkSize), "chunk size", in: message)
    }
}
