/// A 128-bit identifier: what volume and snapshot IDs are made of (SPEC C4).
///
/// The layout is an RFC 9562 version 8 (custom) UUID: random, but for the version and variant bits and the
/// last two bytes, which name the shard that holds the thing (big-endian). So an ID finds its shard without a lookup.
public struct UUID128: Hashable, Sendable, Comparable {
    /// The first eight bytes, big-endian.
    public let high: UInt64
    /// The last eight bytes, big-endian.
    public let low: UInt64

    @inlinable public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// A new random identifier that names `shard`.
    public static func random(shard: ShardIndex) -> UUID128 {
        let high = UInt64.random(in: .min ... .max) & ~0xf000 | 0x8000
        let low =
            UInt64.random(in: .min ... .max) & 0x3fff_ffff_ffff_0000 | 0x8000_0000_0000_0000 | UInt64(shard.rawValue)
        return UUID128(high: high, low: low)
    }

    /// The identifier's 16 bytes, as the wire and the index carry them; nil unless there are exactly 16.
    @inlinable public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        var (high, low): (UInt64, UInt64) = (0, 0)
        for byte in bytes {
            high = high << 8 | low >> 56
            low = low << 8 | UInt64(byte)
        }
        self.init(high: high, low: low)
    }

    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16) { buffer, count in
            let raw = UnsafeMutableRawPointer(buffer.baseAddress!)
            raw.storeBytes(of: high.bigEndian, as: UInt64.self)
            raw.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            count = 16
        }
    }

    /// The shard that the last two bytes name.
    public var shard: ShardIndex { ShardIndex(UInt16(truncatingIfNeeded: low)) }

    /// 8-4-4-4-12 lower-case hexadecimal digits.
    public var text: String {
        let digits = Array(Hex.encode(bytes).utf8)
        let groups = [0..<8, 8..<12, 12..<16, 16..<20, 20..<32]
        return groups.map { String(decoding: digits[$0], as: UTF8.self) }.joined(separator: "-")
    }

    public init?(text: some StringProtocol) {
        let groups = text.split(separator: "-", omittingEmptySubsequences: false)
        guard groups.map(\.utf8.count) == [8, 4, 4, 4, 12], let bytes = Hex.decode(groups.joined()) else { return nil }
        self.init(bytes: bytes)
    }

    public static func < (left: UUID128, right: UUID128) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}

/// Names a volume. People read `vol-` and a UUID.
public struct VolumeID: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let uuid: UUID128
    @inlinable public init(_ uuid: UUID128) { self.uuid = uuid }
    @inlinable public init?(bytes: some Collection<UInt8>) {
        guard let uuid = UUID128(bytes: bytes) else { return nil }
        self.uuid = uuid
    }
    /// Reads `vol-…`, or a bare UUID.
    public init?(text: String) {
        guard let uuid = UUID128(text: text.hasPrefix("vol-") ? text.dropFirst(4) : text[...]) else { return nil }
        self.uuid = uuid
    }
    public var bytes: [UInt8] { uuid.bytes }
    public var description: String { "vol-" + uuid.text }
    public static func < (left: VolumeID, right: VolumeID) -> Bool { left.uuid < right.uuid }
}

/// Names a snapshot. People read `snap-` and a UUID.
public struct SnapshotID: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let uuid: UUID128
    @inlinable public init(_ uuid: UUID128) { self.uuid = uuid }
    @inlinable public init?(bytes: some Collection<UInt8>) {
        guard let uuid = UUID128(bytes: bytes) else { return nil }
        self.uuid = uuid
    }
    /// Reads `snap-…`, or a bare UUID.
    public init?(text: String) {
        guard let uuid = UUID128(text: text.hasPrefix("snap-") ? text.dropFirst(5) : text[...]) else { return nil }
        self.uuid = uuid
    }
    public var bytes: [UInt8] { uuid.bytes }
    public var description: String { "snap-" + uuid.text }
    public static func < (left: SnapshotID, right: SnapshotID) -> Bool { left.uuid < right.uuid }
}

/// Names an account: 1–64 characters of `a-z 0-9 . _ -`, the first a letter or digit (SPEC C1).
public struct AccountID: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let name: String

    public init?(_ name: some StringProtocol) {
        let bytes = Array(name.utf8)
        let alphanumeric = { (byte: UInt8) in (0x61...0x7a).contains(byte) || (0x30...0x39).contains(byte) }
        guard (1...64).contains(bytes.count), alphanumeric(bytes[0]),
            bytes.allSatisfy({ alphanumeric($0) || $0 == 0x2e || $0 == 0x5f || $0 == 0x2d })
        else { return nil }
        self.name = String(name)
    }
    public var description: String { name }
    public static func < (left: AccountID, right: AccountID) -> Bool { left.name < right.name }
}

/// A SHA-256 over a chunk's uncompressed bytes, zero-padded to the chunk size. It is the chunk's token too (SPEC U6).
public struct Fingerprint: Hashable, Sendable, Comparable, CustomStringConvertible {
    public static let byteCount = 32
    /// The 32 bytes as four big-endian words.
    public let words: (UInt64, UInt64, UInt64, UInt64)

    /// Reads 32 bytes; traps when there are not exactly 32.
    public init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == Fingerprint.byteCount)
        let word = { (index: Int) in UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self))
        }
        words = (word(0), word(1), word(2), word(3))
    }

    /// Nil unless there are exactly 32 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Fingerprint.byteCount else { return nil }
        self = bytes.withUnsafeBytes { Fingerprint($0) }
    }

    public func write(to target: UnsafeMutableRawPointer) {
        target.storeBytes(of: words.0.bigEndian, as: UInt64.self)
        target.storeBytes(of: words.1.bigEndian, toByteOffset: 8, as: UInt64.self)
        target.storeBytes(of: words.2.bigEndian, toByteOffset: 16, as: UInt64.self)
        target.storeBytes(of: words.3.bigEndian, toByteOffset: 24, as: UInt64.self)
    }

    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Fingerprint.byteCount) { buffer, count in
            write(to: UnsafeMutableRawPointer(buffer.baseAddress!))
            count = Fingerprint.byteCount
        }
    }

    public static func == (left: Fingerprint, right: Fingerprint) -> Bool { left.words == right.words }
    public static func < (left: Fingerprint, right: Fingerprint) -> Bool { left.words < right.words }
    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
    public var description: String { Hex.encode(bytes) }
}

/// The place of a shard among the shards of its store: 0 ..< the number fixed when the store was made.
public struct ShardIndex: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt16
    public init(_ rawValue: UInt16) { self.rawValue = rawValue }
    public var description: String { String(rawValue) }
    public static func < (left: ShardIndex, right: ShardIndex) -> Bool { left.rawValue < right.rawValue }
}

/// A version of a volume's data. A write carries the volume's current one; CreateSnapshot gives the current one to the
/// snapshot and raises the volume's by one (SPEC S1). The initial snapshot is version 1 (SPEC V1).
public struct DataVersion: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public static let initial = DataVersion(1)
    public var next: DataVersion { DataVersion(rawValue + 1) }
    public var description: String { String(rawValue) }
    public static func < (left: DataVersion, right: DataVersion) -> Bool { left.rawValue < right.rawValue }
}

/// The place of a chunk in its volume: byte offset ÷ chunk size.
public struct ChunkIndex: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public var description: String { String(rawValue) }
    public static func < (left: ChunkIndex, right: ChunkIndex) -> Bool { left.rawValue < right.rawValue }
}
