public import CairnCore
internal import CairnWire

/// A point in time, as the service keeps it.
public struct Timestamp: Hashable, Sendable, Comparable {
    /// Since 1970-01-01 UTC.
    public let milliseconds: UInt64
    public init(milliseconds: UInt64) { self.milliseconds = milliseconds }
    public static func < (left: Timestamp, right: Timestamp) -> Bool { left.milliseconds < right.milliseconds }
}

/// What blocks are read from or written to.
public enum BlockTarget: Sendable, Hashable {
    case volume(VolumeID)
    case snapshot(SnapshotID)
    /// A snapshot by its token (SPEC S7).
    case snapshotToken([UInt8])

    var wire: Wire.Target {
        switch self {
        case .volume(let id): Wire.Target(target: .volumeID(id.bytes))
        case .snapshot(let id): Wire.Target(target: .snapshotID(id.bytes))
        case .snapshotToken(let token): Wire.Target(target: .snapshotToken(token))
        }
    }
}

/// A part of a volume or snapshot, in bytes.
public struct BlockRange: Sendable, Hashable {
    /// A multiple of 512.
    public var offset: UInt64
    /// A multiple of 512.
    public var length: UInt64
    public init(offset: UInt64, length: UInt64) {
        self.offset = offset
        self.length = length
    }

    var wire: Wire.ByteRange { Wire.ByteRange(offset: offset, length: length) }
}

/// Names one change, so that a repetition of it is not a second one (SPEC C5): 1–64 bytes.
public struct IdempotencyKey: Sendable, Hashable {
    public let bytes: [UInt8]

    /// A new key: 16 random bytes.
    public init() { bytes = (0..<16).map { _ in .random(in: 0...255) } }

    /// A key of the caller's choice; nil unless it has 1–64 bytes.
    public init?(_ bytes: some Collection<UInt8>) {
        guard (1...Limits.idempotencyKeyBytes).contains(bytes.count) else { return nil }
        self.bytes = Array(bytes)
    }
}

/// Who has a volume attached: the generation that AttachVolume gave, which goes with every write (SPEC R5).
public struct Attachment: Sendable, Hashable, Comparable, CustomStringConvertible {
    public let generation: UInt64
    public init(generation: UInt64) { self.generation = generation }
    public static func < (left: Attachment, right: Attachment) -> Bool { left.generation < right.generation }
    public var description: String { String(generation) }
}

enum Tags {
    /// In the order of their keys, so that a repeated call is the same call (SPEC C5).
    static func wire(_ tags: [String: String]) -> [Wire.Tag] {
        tags.sorted { $0.key < $1.key }.map { Wire.Tag(key: $0.key, value: $0.value) }
    }
    static func value(_ tags: [Wire.Tag]) -> [String: String] {
        Dictionary(tags.map { ($0.key, $0.value) }, uniquingKeysWith: { _, last in last })
    }
}

enum Contract {
    /// What `body` reads from an answer, or an error that names the answer: a field that the contract promises is missing.
    static func require<Value>(_ value: Value?, _ field: String, in message: String) throws(ClientError) -> Value {
        guard let value else { throw ClientError(.protocolViolation, "\(message) without a valid \(field)") }
        return value
    }
}
