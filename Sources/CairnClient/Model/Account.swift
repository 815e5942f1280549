public import CairnCore
internal import CairnWire

/// What a grant permits (SPEC D5).
public enum Permission: String, Sendable, Hashable, CaseIterable {
    /// Make volumes from it, write and snapshot those, have compute hosts read them.
    case use
    /// Download it, name its chunks by token, see them in listings.
    case export

    var wire: Wire.Permission { self == .use ? .use : .export }
}

/// What a grant is about.
public enum GrantResource: Sendable, Hashable {
    /// All that the account has, and will have.
    case account
    case volume(VolumeID)
    case snapshot(SnapshotID)

    var wire: Wire.Target? {
        switch self {
        case .account: nil
        case .volume(let id): BlockTarget.volume(id).wire
        case .snapshot(let id): BlockTarget.snapshot(id).wire
        }
    }
}

/// A permission that one account gave another.
public struct Grant: Sendable, Hashable {
    public let resource: GrantResource
    /// The account that gave it.
    public let grantor: String
    /// The account that may.
    public let grantee: String
    public let permission: Permission
    public let createdAt: Timestamp

    init(_ wire: Wire.Grant) throws(ClientError) {
        let message = "a grant"
        resource =
            switch wire.resource?.target {
            case nil: .account
            case .volumeID(let id): .volume(try Contract.require(VolumeID(bytes: id), "volume ID", in: message))
            case .snapshotID(let id): .snapshot(try Contract.require(SnapshotID(bytes: id), "snapshot ID", in: message))
            case .snapshotToken: throw ClientError(.protocolViolation, "a grant on a snapshot's token")
            }
        grantor = wire.grantor
        grantee = wire.grantee
        permission =
            switch wire.permission {
            case .use: .use
            case .export: .export
            default: throw ClientError(.protocolViolation, "a grant of something unknown")
            }
        createdAt = Timestamp(milliseconds: wire.createdAtMs)
    }
}

/// How much space something takes (SPEC R2), in bytes.
public struct Usage: Sendable, Hashable {
    /// The volumes' and snapshots' sizes.
    public let logical: UInt64
    /// Distinct chunks, uncompressed.
    public let unique: UInt64
    /// What those take on disk.
    public let stored: UInt64

    init(_ wire: Wire.Usage) {
        logical = wire.logicalBytes
        unique = wire.uniqueBytes
        stored = wire.storedBytes
    }
}

/// What GetUsage tells.
public struct UsageReport: Sendable, Hashable {
    /// Of all targets together: what they share counts once.
    public let total: Usage
    /// In the targets' order.
    public let each: [Usage]
    /// What deleting all targets would free; nil unless it was asked for.
    public let freedBytes: UInt64?
    /// What the affinity key would have saved; nil unless it was asked for.
    public let affinitySavingsBytes: UInt64?
}

/// What an account may have and do (SPEC R3). 0: no limit.
public struct AccountLimits: Sendable, Hashable {
    public var volumes: UInt64 = 0
    public var snapshots: UInt64 = 0
    public var logicalBytes: UInt64 = 0
    public var storedBytes: UInt64 = 0
    public var requestsPerSecond: UInt64 = 0
    public var bytesInFlight: UInt64 = 0
    public init() {}

    init(_ wire: Wire.AccountLimits) {
        volumes = wire.volumes
        snapshots = wire.snapshots
        logicalBytes = wire.logicalBytes
        storedBytes = wire.storedBytes
        requestsPerSecond = wire.requestsPerSecond
        bytesInFlight = wire.bytesInFlight
    }

    var wire: Wire.AccountLimits {
        Wire.AccountLimits(
            volumes: volumes,
            snapshots: snapshots,
            logicalBytes: logicalBytes,
            storedBytes: storedBytes,
            requestsPerSecond: requestsPerSecond,
            bytesInFlight: bytesInFlight
        )
    }
}

/// An account as the service describes it.
public struct Account: Sendable, Hashable {
    public let name: String
    public let limits: AccountLimits
    public let usage: Usage
    public let volumes: UInt64
    public let snapshots: UInt64

    init(_ wire: Wire.DescribeAccountResponse) {
        name = wire.account
        limits = AccountLimits(wire.limits ?? Wire.AccountLimits())
        usage = Usage(wire.usage ?? Wire.Usage())
        volumes = wire.volumes
        snapshots = wire.snapshots
    }
}
