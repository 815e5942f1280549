import CairnClient
import CairnCore

/// Parts of what is shown that several commands share.
enum Reports {
    static func tags(_ tags: [String: String]) -> String {
        tags.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
    }

    /// As text where it is some, else in hexadecimal.
    static func affinity(_ bytes: [UInt8]) -> String {
        guard let text = String(validating: bytes, as: UTF8.self), text.allSatisfy({ !$0.isNewline && $0 != "\0" })
        else {
            return "0x" + Hex.encode(bytes)
        }
        return text
    }

    static func state(_ snapshot: Snapshot) -> String {
        snapshot.state == .inProgress ? "in_progress \(snapshot.progress) %" : snapshot.state.rawValue
    }

    static func state(_ state: BlockDescription.State) -> String {
        switch state {
        case .data: "data"
        case .zeros: "zeros"
        case .hole: "hole"
        }
    }

    static func resource(_ resource: GrantResource) -> String {
        switch resource {
        case .account: "account"
        case .volume(let id): "\(id)"
        case .snapshot(let id): "\(id)"
        }
    }

    static func seal(_ seal: SnapshotSeal?) -> String? {
        switch seal {
        case nil: nil
        case .pending: "pending"
        case .value(let value): "\(value)"
        }
    }
}

// What `--json` shows: the names, in snake_case, are an interface.

struct CreatedVolumeReport: Encodable {
    let volumeId: String
    let initialSnapshotId: String
    let dataVersion: UInt64
    let size: UInt64
    let chunkSize: Int

    init(_ made: CreatedVolume) {
        volumeId = "\(made.id)"
        initialSnapshotId = "\(made.initialSnapshot)"
        dataVersion = made.dataVersion.rawValue
        size = made.size
        chunkSize = made.chunkSize.bytes
    }
}

struct VolumeReport: Encodable {
    let volumeId: String
    let account: String
    let kind: String
    let state: String
    let size: UInt64
    let chunkSize: Int
    let dataVersion: UInt64
    let initialSnapshotId: String?
    let sourceSnapshotId: String?
    let affinity: String?
    let tags: [String: String]
    let createdAt: String
    let attachmentGeneration: UInt64

    init(_ volume: Volume) {
        volumeId = "\(volume.id)"
        account = volume.account
        kind = volume.kind.rawValue
        state = volume.state.rawValue
        size = volume.size
        chunkSize = volume.chunkSize.bytes
        dataVersion = volume.dataVersion.rawValue
        initialSnapshotId = volume.initialSnapshot.map { "\($0)" }
        sourceSnapshotId = volume.sourceSnapshot.map { "\($0)" }
        affinity = volume.affinity.isEmpty ? nil : Reports.affinity(volume.affinity)
        tags = volume.tags
        createdAt = Output.date(volume.createdAt.milliseconds)
        attachmentGeneration = volume.attachment.generation
    }
}

struct CreatedSnapshotReport: Encodable {
    let snapshotId: String
    let volumeId: String
    let dataVersion: UInt64
    let state: String
    /// Hexadecimal.
    let token: String

    init(_ made: CreatedSnapshot, of volume: VolumeID) {
        snapshotId = "\(made.id)"
        volumeId = "\(volume)"
        dataVersion = made.dataVersion.rawValue
        state = made.state.rawValue
        token = Hex.encode(made.token)
    }
}

struct SnapshotReport: Encodable {
    let snapshotId: String
    let volumeId: String
    let account: String
    let state: String
    let progress: Int
    let dataVersion: UInt64
    let size: UInt64
    let chunkSize: Int
    let description: String
    let tags: [String: String]
    let createdAt: String
    let completedAt: String?
    /// Hexadecimal, or "pending"; absent unless complete.
    let seal: String?
    /// Hexadecimal.
    let token: String
    let needsRebase: Bool
    /// What the client last answered to a prompt; absent: never.
    let promptedProgress: Int?
    /// Whether the last prompt got no answer.
    let promptUnanswered: Bool
    /// Expected chunks that are still to come.
    let missing: UInt64
    let owners: [OwnerReport]

    init(_ snapshot: Snapshot) {
        snapshotId = "\(snapshot.id)"
        volumeId = "\(snapshot.volume)"
        account = snapshot.account
        state = snapshot.state.rawValue
        progress = snapshot.progress
        dataVersion = snapshot.dataVersion.rawValue
        size = snapshot.size
        chunkSize = snapshot.chunkSize.bytes
        description = snapshot.note
        tags = snapshot.tags
        createdAt = Output.date(snapshot.createdAt.milliseconds)
        completedAt = snapshot.completedAt.map { Output.date($0.milliseconds) }
        seal = Reports.seal(snapshot.seal)
        token = Hex.encode(snapshot.token)
        needsRebase = snapshot.needsRebase
        promptedProgress = snapshot.promptedProgress
        promptUnanswered = snapshot.isPromptUnanswered
        missing = snapshot.missing
        owners = snapshot.owners.map { OwnerReport($0) }
    }
}

/// How much of a snapshot an account owns.
struct OwnerReport: Encodable {
    let account: String
    let bytes: UInt64
    let exportable: Bool

    init(_ share: OwnerShare) {
        account = share.account
        bytes = share.bytes
        exportable = share.isExportable
    }
}

struct TagsReport: Encodable {
    let tags: [String: String]
}

struct ResizedReport: Encodable {
    let volumeId: String
    let size: UInt64
}

struct DeletedReport: Encodable {
    let deleted: String
}
