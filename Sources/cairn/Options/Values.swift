import ArgumentParser
import CairnClient
import CairnCore

/// A size as people write it.
struct ByteSize: ExpressibleByArgument, Equatable {
    let bytes: UInt64
    init?(argument: String) {
        guard let bytes = ByteCount.parse(argument) else { return nil }
        self.bytes = bytes
    }
}

extension VolumeID: ExpressibleByArgument {
    public init?(argument: String) { self.init(text: argument) }
}

extension SnapshotID: ExpressibleByArgument {
    public init?(argument: String) { self.init(text: argument) }
}

/// A chunk size: a power of two, 4 KiB – 4 MiB.
struct ChunkSizeArgument: ExpressibleByArgument {
    let size: ChunkSize
    init?(argument: String) {
        guard let bytes = ByteCount.parse(argument), let size = ChunkSize(bytes: bytes) else { return nil }
        self.size = size
    }
}

/// `key=value`; the value may be empty, and may hold further equals signs.
struct TagArgument: ExpressibleByArgument, Equatable {
    let key: String
    let value: String
    init?(argument: String) {
        guard let equals = argument.firstIndex(of: "="), equals != argument.startIndex else { return nil }
        key = String(argument[..<equals])
        value = String(argument[argument.index(after: equals)...])
    }
}

extension [TagArgument] {
    /// The last of those with the same key.
    var dictionary: [String: String] { Dictionary(map { ($0.key, $0.value) }) { _, last in last } }
}

/// What blocks are read from: `vol-…` or `snap-…`.
struct OriginArgument: ExpressibleByArgument, Equatable {
    let target: BlockTarget
    init?(argument: String) {
        if argument.hasPrefix("vol-"), let id = VolumeID(text: argument) {
            target = .volume(id)
        } else if argument.hasPrefix("snap-"), let id = SnapshotID(text: argument) {
            target = .snapshot(id)
        } else {
            return nil
        }
    }

    var text: String {
        switch target {
        case .volume(let id): "\(id)"
        case .snapshot(let id): "\(id)"
        case .snapshotToken: "a snapshot"
        }
    }
}

/// What a grant is about: `vol-…`, `snap-…`, or `account` for all that the account has.
struct ResourceArgument: ExpressibleByArgument, Equatable {
    let resource: GrantResource
    init?(argument: String) {
        if argument == "account" {
            resource = .account
            return
        }
        switch OriginArgument(argument: argument)?.target {
        case .volume(let id): resource = .volume(id)
        case .snapshot(let id): resource = .snapshot(id)
        case .snapshotToken, nil: return nil
        }
    }
}

extension Permission: ExpressibleByArgument {}

extension SnapshotState: ExpressibleByArgument {
    /// What a listing can be asked for.
    public static var allValueStrings: [String] { allCases.filter { $0 != .unknown }.map(\.rawValue) }

    public init?(argument: String) {
        guard let state = SnapshotState(rawValue: argument), state != .unknown else { return nil }
        self = state
    }
}

/// An account's limit: a count, or `none`.
struct CountLimit: ExpressibleByArgument, Equatable {
    let value: UInt64
    init?(argument: String) {
        guard argument != "none" else {
            value = 0
            return
        }
        guard let value = UInt64(argument), value > 0 else { return nil }
        self.value = value
    }
}

/// An account's limit in bytes, or `none`.
struct ByteLimit: ExpressibleByArgument, Equatable {
    let value: UInt64
    init?(argument: String) {
        guard argument != "none" else {
            value = 0
            return
        }
        guard let value = ByteCount.parse(argument), value > 0 else { return nil }
        self.value = value
    }
}

/// A volume by its ID, or by its label `name`.
enum VolumeArgument: ExpressibleByArgument, Equatable {
    case id(VolumeID)
    case name(String)

    init?(argument: String) {
        if argument.hasPrefix("vol-") {
            guard let id = VolumeID(text: argument) else { return nil }
            self = .id(id)
        } else {
            guard !argument.isEmpty else { return nil }
            self = .name(argument)
        }
    }

    /// The volume; nil where none has this name.
    /// - Throws: `invalidRequest` where several have it.
    func find(kind: VolumeKind, _ client: Client) async throws(ClientError) -> VolumeID? {
        switch self {
        case .id(let id): return id
        case .name(let name):
            let found = try await client.volumes(tags: ["name": name], state: .available).all()
                .filter { $0.kind == kind }
            guard found.count <= 1 else {
                let all = found.map { "\($0.id)" }.joined(separator: ", ")
                throw ClientError(.invalidRequest, "several volumes are called \(name): \(all)")
            }
            return found.first?.id
        }
    }
}
