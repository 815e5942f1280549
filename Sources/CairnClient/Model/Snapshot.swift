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
    /// Only of a complete snapshot, and only where the caller may export all of it (SPEC D5).
    public let seal: SnapshotSeal?
    /// Opaque: finds the snapshot from any server of the installation (SPEC S7).
    public let token: [UInt8]
    /// Whether an earlier snapshot, whose data this one was counting on, was cancelled: it completes only when the client
    /// has declared that what changed since the last complete one is in (SPEC S4).
    public let needsRebase: Bool
    /// Percent, 0–100, that the client last answered to a prompt; nil: never (SPEC S10).
    public let promptedProgress: Int?
    /// Whether the last prompt got no answer, and nothing was reported since (SPEC S10).
    public let isPromptUnanswered: Bool
    /// How much of it is whose; empty unless the snapshot is the caller's account's own, complete and sealed (SPEC D5).
    public let owners: [OwnerShare]
    /// How many expected chunks are still to come (SPEC S5).
    public let missing: UInt64

    /// Whether the seal is not told because the snapshot holds data that the caller may not export (SPEC D5).
    public var isSealWithheld: Bool { state == .complete && seal == nil }

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
        needsRebase = wire.needsRebase
        promptedProgress = wire.promptedProgress.map { Int($0.percent) }
        isPromptUnanswered = wire.promptUnanswered
        owners = wire.owners.map { OwnerShare(account: $0.account, bytes: $0.bytes, isExportable: $0.exportable) }
        missing = wire.missing
    }
}

/// How much of a snapshot's data an account owns (SPEC V8, D5).
public struct OwnerShare: Sendable, Hashable {
    public let account: String
    /// Of the snapshot, uncompressed.
    public let bytes: UInt64
    /// Whether the caller may download them now: they are its own, or EXPORT was granted.
    public let isExportable: Bool

    public init(account: String, bytes: UInt64, isExportable: Bool) {
        self.account = account
        self.bytes = bytes
        self.isExportable = isExportable
    }
}

/// A chunk and where it goes (SPEC S5).
public struct ChunkPlacement: Sendable, Hashable {
    /// Bytes: a multiple of the volume's chunk size.
    public var offset: UInt64
    public var token: Fingerprint

    public init(offset: UInt64, token: Fingerprint) {
        self.offset = offset
        self.token = token
    }

    var wire: Wire.ChunkPlacement { Wire.ChunkPlacement(offset: offset, token: token.bytes) }

    init(_ wire: Wire.ChunkPlacement, in message: String) throws(ClientError) {
        offset = wire.offset
        token = try Contract.require(Fingerprint(bytes: wire.token), "token", in: message)
    }
}

/// What a snapshot is to begin with, and what is to come (SPEC S1, S5).
public struct NewSnapshot: Sendable, Hashable {
    /// Chunks that the account has on the server already: the snapshot holds them from the start. At most 2^20; a long
    /// list goes by pointer, which the library sees to.
    public var chunks: [ChunkPlacement] = []
    /// Chunks that will come: completion is refused while one is missing. At most
    /// ``Client/mostExpectedChunks``.
    public var expected: [ChunkPlacement] = []
    /// For people; at most 1,024 bytes.
    public var note = ""
    /// At most 64; keys 1–256 bytes, values at most 256 bytes.
    public var tags: [String: String] = [:]
    public init() {}
}

/// Where a snapshot is after a progress report (SPEC S9).
public struct SnapshotProgressResult: Sendable, Hashable {
    /// `complete` after 100, unless an incomplete ancestor keeps it waiting (SPEC V5).
    public let state: SnapshotState
    /// 0–100.
    public let percent: Int
    /// Of a complete snapshot.
    public let seal: SnapshotSeal?

    init(_ wire: Wire.SnapshotProgressResponse) throws(ClientError) {
        state = SnapshotState(wire.state)
        percent = Int(wire.percent)
        seal = try SnapshotSeal(wire.seal)
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
