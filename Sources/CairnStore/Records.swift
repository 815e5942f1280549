public import CairnCore

/// Whether the primary copy lives here or at the client's (SPEC V3).
public enum VolumeKind: UInt8, Sendable, Hashable {
    case remote = 1
    case local = 2
}

/// A volume is there or not: no other state is needed yet.
public enum VolumeState: UInt8, Sendable, Hashable {
    case active = 1
}

/// What the manifest says of a volume as a whole (SPEC V8).
public struct VolumeRecord: Sendable, Hashable {
    public let id: VolumeID
    public let account: AccountID
    public let kind: VolumeKind
    /// Bytes.
    public internal(set) var size: UInt64
    public let chunkSize: ChunkSize
    public let lineage: LineageID
    /// What the volume's next write carries.
    public internal(set) var dataVersion: DataVersion
    public let initialSnapshot: SnapshotID
    /// What the volume was made from.
    public let sourceSnapshot: SnapshotID?
    public let affinity: [UInt8]
    public internal(set) var tags: [String: String]
    /// Milliseconds since 1970-01-01 UTC.
    public let createdAt: UInt64
    public internal(set) var state: VolumeState
    /// Of a LOCAL volume: the version of the last completed snapshot, from which the next ones start (SPEC S3); else 0.
    public internal(set) var base = DataVersion(0)
    /// How often the volume was attached: writes of an earlier attachment are fenced out (SPEC R5).
    public internal(set) var attachment: UInt64 = 0
}

public enum SnapshotState: UInt8, Sendable, Hashable {
    /// In progress: takes data, once it is the earliest outstanding one (SPEC S4).
    case pending = 1
    case complete = 2
    /// Cancelled because nobody touched it (SPEC S11); holds no data.
    case error = 3
    /// In progress: all of its own data is in, and it waits for an ancestor that is incomplete (SPEC V5).
    case waiting = 5
    /// Not there yet for anybody: its list of chunks is being put in (SPEC S5).
    case creating = 6
}

/// How much of a snapshot is whose.
public struct OwnerBytes: Sendable, Hashable {
    public let owner: AccountID
    /// Uncompressed bytes of the chunks that it owns.
    public let bytes: UInt64

    public init(owner: AccountID, bytes: UInt64) {
        self.owner = owner
        self.bytes = bytes
    }
}

/// What the manifest says of a snapshot as a whole.
public struct SnapshotRecord: Sendable, Hashable {
    public let id: SnapshotID
    public let volume: VolumeID
    public let account: AccountID
    public let lineage: LineageID
    /// The snapshot reads, of each chunk, the newest entry of this version or older.
    public let version: DataVersion
    public let size: UInt64
    public let chunkSize: ChunkSize
    public internal(set) var state: SnapshotState
    /// Percent.
    public internal(set) var progress: UInt8
    public let description: String
    public internal(set) var tags: [String: String]
    /// Milliseconds since 1970-01-01 UTC.
    public let createdAt: UInt64
    /// 0 until complete.
    public internal(set) var completedAt: UInt64
    /// SPEC S6; nil until computed.
    public internal(set) var seal: Fingerprint?
    /// An earlier one, on whose data this one counted, was cancelled (SPEC S4).
    public internal(set) var needsRebase = false
    /// The last upload, report or answer to a prompt; milliseconds since 1970 (SPEC S11).
    public internal(set) var touchedAt: UInt64
    /// What the client last answered to a prompt, in percent (SPEC S10).
    public internal(set) var promptedProgress: UInt8?
    /// The last prompt got no answer (SPEC S10).
    public internal(set) var isPromptUnanswered = false
    /// Whether chunks were named that are to come, and how many of them are missing (SPEC S5).
    public internal(set) var isExpecting = false
    public internal(set) var missing: UInt64 = 0
    /// By account; computed with the seal.
    public internal(set) var owners: [OwnerBytes] = []

    /// Whether it was made with its volume (SPEC V1): those are not counted.
    public var isInitial: Bool { version == .initial }
}

/// A call that is carried out once for each idempotency key (SPEC C5).
public enum IdempotentCall: UInt8, Sendable, Hashable {
    case createVolume = 1
    case deleteVolume = 2
    case createSnapshot = 3
    case deleteSnapshot = 4
    case createSnapshots = 5
    case createGrant = 6
    case deleteGrant = 7
}

extension VolumeRecord {
    /// What it takes in a listing, about: bytes.
    public var listedBytes: Int { 256 + affinity.count + tags.listedBytes }
}

extension SnapshotRecord {
    /// What it takes in a listing, about: bytes.
    public var listedBytes: Int {
        256 + description.utf8.count + tags.listedBytes + owners.reduce(0) { $0 + 16 + $1.owner.name.utf8.count }
    }
}

extension [String: String] {
    fileprivate var listedBytes: Int { reduce(0) { $0 + 8 + $1.key.utf8.count + $1.value.utf8.count } }
}

public struct IdempotencyRecord: Sendable, Hashable {
    public let call: IdempotentCall
    /// SHA-256 of the call's parameters.
    public let parameters: Fingerprint
    /// The encoded answer.
    public let answer: [UInt8]
    /// Milliseconds since 1970-01-01 UTC.
    public let createdAt: UInt64

    public init(call: IdempotentCall, parameters: Fingerprint, answer: [UInt8], createdAt: UInt64) {
        self.call = call
        self.parameters = parameters
        self.answer = answer
        self.createdAt = createdAt
    }
}

/// A value of the index: a version byte, then fixed-width little-endian fields (FORMAT.md).
protocol StoredRecord {
    static var formatVersion: UInt8 { get }
    func write(to writer: inout ByteWriter)
    init?(_ reader: inout ByteReader)
}

extension StoredRecord {
    static var formatVersion: UInt8 { 1 }

    var encoded: [UInt8] {
        var writer = ByteWriter(capacity: 96)
        writer.put(Self.formatVersion)
        write(to: &writer)
        return writer.bytes
    }

    static func decode(_ bytes: UnsafeRawBufferPointer) throws(StoreError) -> Self {
        var reader = ByteReader(bytes)
        guard let version = reader.take(UInt8.self) else {
            throw StoreError(.damaged, "an empty \(Self.self) in the index")
        }
        guard version <= formatVersion else {
            throw StoreError(.newerFormat, "a \(Self.self) of format version \(version)")
        }
        guard let record = Self(&reader), reader.isAtEnd else {
            throw StoreError(.damaged, "a \(Self.self) in the index does not decode")
        }
        return record
    }

    static func decode(_ bytes: [UInt8]) throws(StoreError) -> Self {
        let result = bytes.withUnsafeBytes { bytes in Result { () throws(StoreError) in try decode(bytes) } }
        return try result.get()
    }
}

extension ByteWriter {
    fileprivate mutating func put(_ tags: [String: String]) {
        put(UInt32(tags.count))
        for (key, value) in tags.sorted(by: { $0.key < $1.key }) {
            put(key)
            put(value)
        }
    }
    mutating func put(_ owners: [OwnerBytes]) {
        put(UInt32(owners.count))
        for share in owners {
            put(share.owner.name)
            put(share.bytes)
        }
    }
    mutating func put(_ id: UUID128) {
        put(id.high)
        put(id.low)
    }
}

extension ByteReader {
    fileprivate mutating func takeTags() -> [String: String]? {
        guard let count = take(UInt32.self), count <= 1024 else { return nil }
        var tags: [String: String] = [:]
        for _ in 0..<count {
            guard let key = takeText(), let value = takeText() else { return nil }
            tags[key] = value
        }
        return tags
    }
    mutating func takeOwners() -> [OwnerBytes]? {
        guard let count = take(UInt32.self), count <= 1 << 16 else { return nil }
        var owners: [OwnerBytes] = []
        for _ in 0..<count {
            guard let owner = takeAccount(), let bytes = take(UInt64.self) else { return nil }
            owners.append(OwnerBytes(owner: owner, bytes: bytes))
        }
        return owners
    }
    mutating func takeID() -> UUID128? {
        guard let high = take(UInt64.self), let low = take(UInt64.self) else { return nil }
        return UUID128(high: high, low: low)
    }
    mutating func takeChunkSize() -> ChunkSize? { take(UInt32.self).flatMap { ChunkSize(bytes: $0) } }
    mutating func takeAccount() -> AccountID? { takeText().flatMap { AccountID($0) } }
}

extension VolumeRecord: StoredRecord {
    func write(to writer: inout ByteWriter) {
        writer.put(id.uuid)
        writer.put(account.name)
        writer.put(kind.rawValue)
        writer.put(size)
        writer.put(UInt32(chunkSize.bytes))
        writer.put(lineage.rawValue)
        writer.put(dataVersion.rawValue)
        writer.put(initialSnapshot.uuid)
        writer.put(UInt8(sourceSnapshot == nil ? 0 : 1))
        writer.put(sourceSnapshot?.uuid ?? UUID128(high: 0, low: 0))
        writer.put(lengthAnd: affinity)
        writer.put(tags)
        writer.put(createdAt)
        writer.put(state.rawValue)
        writer.put(base.rawValue)
        writer.put(attachment)
    }

    init?(_ reader: inout ByteReader) {
        guard let id = reader.takeID(), let account = reader.takeAccount(),
            let kind = reader.take(UInt8.self).flatMap(VolumeKind.init), let size = reader.take(UInt64.self),
            let chunkSize = reader.takeChunkSize(), let lineage = reader.take(UInt64.self),
            let version = reader.take(UInt64.self), let initial = reader.takeID(),
            let hasSource = reader.take(UInt8.self),
            let source = reader.takeID(), let affinity = reader.takeLengthAndBytes(), let tags = reader.takeTags(),
            let created = reader.take(UInt64.self), let state = reader.take(UInt8.self).flatMap(VolumeState.init),
            let base = reader.take(UInt64.self), let attachment = reader.take(UInt64.self)
        else { return nil }
        self.init(
            id: VolumeID(id),
            account: account,
            kind: kind,
            size: size,
            chunkSize: chunkSize,
            lineage: LineageID(lineage),
            dataVersion: DataVersion(version),
            initialSnapshot: SnapshotID(initial),
            sourceSnapshot: hasSource == 1 ? SnapshotID(source) : nil,
            affinity: affinity,
            tags: tags,
            createdAt: created,
            state: state,
            base: DataVersion(base),
            attachment: attachment
        )
    }
}

extension SnapshotRecord: StoredRecord {
    func write(to writer: inout ByteWriter) {
        writer.put(id.uuid)
        writer.put(volume.uuid)
        writer.put(account.name)
        writer.put(lineage.rawValue)
        writer.put(version.rawValue)
        writer.put(size)
        writer.put(UInt32(chunkSize.bytes))
        writer.put(state.rawValue)
        writer.put(progress)
        writer.put(description)
        writer.put(tags)
        writer.put(createdAt)
        writer.put(completedAt)
        writer.put(UInt8(seal == nil ? 0 : 1))
        if let seal { writer.put(seal) }
        writer.put(UInt8(needsRebase ? 1 : 0))
        writer.put(touchedAt)
        writer.put(storedPrompt)
        writer.put(UInt8(isExpecting ? 1 : 0))
        writer.put(missing)
        writer.put(owners)
    }

    init?(_ reader: inout ByteReader) {
        guard let id = reader.takeID(), let volume = reader.takeID(), let account = reader.takeAccount(),
            let lineage = reader.take(UInt64.self), let version = reader.take(UInt64.self),
            let size = reader.take(UInt64.self),
            let chunkSize = reader.takeChunkSize(), let state = reader.take(UInt8.self).flatMap(SnapshotState.init),
            let progress = reader.take(UInt8.self), let description = reader.takeText(), let tags = reader.takeTags(),
            let created = reader.take(UInt64.self), let completed = reader.take(UInt64.self),
            let hasSeal = reader.take(UInt8.self)
        else { return nil }
        let seal = hasSeal == 1 ? reader.takeFingerprint() : nil
        guard hasSeal == 0 || seal != nil, let needsRebase = reader.take(UInt8.self),
            let touched = reader.take(UInt64.self), let prompted = reader.take(UInt8.self),
            let isExpecting = reader.take(UInt8.self), let missing = reader.take(UInt64.self),
            let owners = reader.takeOwners()
        else { return nil }
        self.init(
            id: SnapshotID(id),
            volume: VolumeID(volume),
            account: account,
            lineage: LineageID(lineage),
            version: DataVersion(version),
            size: size,
            chunkSize: chunkSize,
            state: state,
            progress: progress,
            description: description,
            tags: tags,
            createdAt: created,
            completedAt: completed,
            seal: seal,
            needsRebase: needsRebase == 1,
            touchedAt: touched,
            promptedProgress: [Self.neverPrompted, Self.neverAnswered].contains(prompted) ? nil : prompted & 0x7f,
            isPromptUnanswered: prompted != Self.neverPrompted && prompted & 0x80 != 0,
            isExpecting: isExpecting == 1,
            missing: missing,
            owners: owners
        )
    }
}

extension SnapshotRecord {
    private static let neverPrompted: UInt8 = 255
    private static let neverAnswered: UInt8 = 254

    /// The last answer, with the highest bit where a prompt since got none.
    private var storedPrompt: UInt8 {
        guard let promptedProgress else { return isPromptUnanswered ? Self.neverAnswered : Self.neverPrompted }
        return promptedProgress | (isPromptUnanswered ? 0x80 : 0)
    }
}

extension IdempotencyRecord: StoredRecord {
    func write(to writer: inout ByteWriter) {
        writer.put(call.rawValue)
        writer.put(parameters)
        writer.put(lengthAnd: answer)
        writer.put(createdAt)
    }

    init?(_ reader: inout ByteReader) {
        guard let call = reader.take(UInt8.self).flatMap(IdempotentCall.init),
            let parameters = reader.takeFingerprint(),
            let answer = reader.takeLengthAndBytes(), let created = reader.take(UInt64.self)
        else { return nil }
        self.init(call: call, parameters: parameters, answer: answer, createdAt: created)
    }
}
