import CairnCore
import CairnLog

/// A manifest's own number in its shard: a volume has one, and every clone another.
public struct LineageID: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
    public var description: String { String(rawValue) }
    public static func < (left: LineageID, right: LineageID) -> Bool { left.rawValue < right.rawValue }
}

/// An account's number in its shard: keeps keys short.
struct AccountNumber: Hashable, Sendable {
    let rawValue: UInt32
}

/// A chunk of the dictionary. An account's own data has itself as owner; where parts were merged over another account's data,
/// that one is the owner (SPEC V8), and the chunk is kept apart from the account's own: naming one never reaches the other.
struct ChunkKey: Hashable, Sendable {
    let account: AccountNumber
    let owner: AccountNumber
    let fingerprint: Fingerprint

    init(account: AccountNumber, owner: AccountNumber, _ fingerprint: Fingerprint) {
        (self.account, self.owner, self.fingerprint) = (account, owner, fingerprint)
    }
    /// Of the account's own data.
    init(own account: AccountNumber, _ fingerprint: Fingerprint) {
        self.init(account: account, owner: account, fingerprint)
    }
}

/// An entry of the manifest that has, or had, parts.
struct PatchedPlace: Hashable, Sendable {
    let lineage: LineageID
    let version: DataVersion
    let chunk: ChunkIndex
}

/// The tables of the index: the first byte of every key. FORMAT.md lists them with their values.
enum Table: UInt8 {
    case accounts = 0x61  // a
    case accountLimits = 0x41  // A
    case waiting = 0x62  // b
    case chunks = 0x63  // c
    case dead = 0x64  // d
    case leases = 0x65  // e
    case leaseEnds = 0x45  // E
    case segments = 0x67  // g
    case grants = 0x47  // G
    case receivedGrants = 0x68  // h
    case idempotency = 0x6b  // k
    case idempotencyAges = 0x4b  // K
    case intents = 0x69  // i
    case lineages = 0x6c  // l
    case manifests = 0x6d  // m
    case outstanding = 0x6f  // o
    case patched = 0x70  // p
    case work = 0x71  // q
    case retained = 0x72  // r
    case snapshots = 0x73  // s
    case snapshotListing = 0x53  // S
    case healed = 0x74  // t
    case volumeSnapshots = 0x54  // T
    case usage = 0x75  // u
    case volumes = 0x76  // v
    case volumeListing = 0x56  // V
    case written = 0x77  // w
    case expected = 0x78  // x
    case children = 0x79  // y
    case unreferenced = 0x7a  // z
    case sealNodes = 0x6e  // n
    case sealBases = 0x6a  // j
    case position = 0x4c  // L
    case counters = 0x4e  // N
    case logBytes = 0x42  // B
    case damagedChunks = 0x44  // D
    case damagedParts = 0x66  // f
    case scrub = 0x46  // F
}

/// Builds keys: integers big-endian, so that keys sort as their numbers do.
struct Key {
    private(set) var bytes: [UInt8]

    init(_ table: Table) {
        bytes = []
        bytes.reserveCapacity(40)
        bytes.append(table.rawValue)
    }

    consuming func then<T: FixedWidthInteger>(_ value: T) -> Key {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
        return self
    }

    consuming func then(bytes more: some Sequence<UInt8>) -> Key {
        bytes.append(contentsOf: more)
        return self
    }

    consuming func then(_ fingerprint: Fingerprint) -> Key {
        then(fingerprint.words.0).then(fingerprint.words.1).then(fingerprint.words.2).then(fingerprint.words.3)
    }

    consuming func then(_ chunk: ChunkKey) -> Key {
        then(chunk.account.rawValue).then(chunk.owner.rawValue).then(chunk.fingerprint)
    }

    consuming func then(_ id: UUID128) -> Key { then(id.high).then(id.low) }
}

extension Key {
    static var position: [UInt8] { Key(.position).bytes }
    static var logBytes: [UInt8] { Key(.logBytes).bytes }
    static func counter(_ name: UInt8) -> [UInt8] { Key(.counters).then(name).bytes }
    static func account(_ account: AccountID) -> [UInt8] { Key(.accounts).then(bytes: account.name.utf8).bytes }
    static func usage(_ account: AccountNumber) -> [UInt8] { Key(.usage).then(account.rawValue).bytes }
    static func volume(_ id: VolumeID) -> [UInt8] { Key(.volumes).then(id.uuid).bytes }
    static func snapshot(_ id: SnapshotID) -> [UInt8] { Key(.snapshots).then(id.uuid).bytes }
    static func lineage(_ id: LineageID) -> [UInt8] { Key(.lineages).then(id.rawValue).bytes }

    static func retained(_ lineage: LineageID, _ version: DataVersion) -> [UInt8] {
        Key(.retained).then(lineage.rawValue).then(version.rawValue).bytes
    }

    /// Newer versions of a chunk sort before older ones.
    static func manifest(_ lineage: LineageID, _ chunk: ChunkIndex, _ version: DataVersion) -> [UInt8] {
        Key(.manifests).then(lineage.rawValue).then(chunk.rawValue).then(~version.rawValue).bytes
    }

    static func chunk(_ chunk: ChunkKey) -> [UInt8] {
        Key(.chunks).then(chunk).bytes
    }

    static func unreferenced(_ chunk: ChunkKey) -> [UInt8] {
        Key(.unreferenced).then(chunk).bytes
    }

    static func dead(_ lineage: LineageID, death: DataVersion, _ chunk: ChunkIndex, birth: DataVersion) -> [UInt8] {
        Key(.dead).then(lineage.rawValue).then(death.rawValue).then(chunk.rawValue).then(birth.rawValue).bytes
    }

    static func patched(_ lineage: LineageID, _ version: DataVersion, _ chunk: ChunkIndex) -> [UInt8] {
        Key(.patched).then(lineage.rawValue).then(version.rawValue).then(chunk.rawValue).bytes
    }

    static func written(_ place: WrittenPlace) -> [UInt8] {
        Key(.written).then(place.lineage.rawValue).then(place.version.rawValue).then(place.group).bytes
    }

    static func sealNode(_ lineage: LineageID, _ group: UInt64) -> [UInt8] {
        Key(.sealNodes).then(lineage.rawValue).then(group).bytes
    }

    static func sealBase(_ lineage: LineageID) -> [UInt8] { Key(.sealBases).then(lineage.rawValue).bytes }

    static func outstanding(_ volume: VolumeID, _ version: DataVersion) -> [UInt8] {
        Key(.outstanding).then(volume.uuid).then(version.rawValue).bytes
    }

    static func waiting(_ lineage: LineageID, _ version: DataVersion) -> [UInt8] {
        Key(.waiting).then(lineage.rawValue).then(version.rawValue).bytes
    }

    static func expected(_ snapshot: SnapshotID, _ chunk: ChunkIndex) -> [UInt8] {
        Key(.expected).then(snapshot.uuid).then(chunk.rawValue).bytes
    }

    static func child(of parent: LineageID, _ version: DataVersion, _ child: LineageID) -> [UInt8] {
        Key(.children).then(parent.rawValue).then(version.rawValue).then(child.rawValue).bytes
    }

    static func segment(_ segment: SegmentID) -> [UInt8] { Key(.segments).then(segment.rawValue).bytes }
    static func work(_ number: UInt64) -> [UInt8] { Key(.work).then(number).bytes }

    static func idempotency(_ account: AccountID, _ key: [UInt8]) -> [UInt8] {
        Key(.idempotency).then(UInt8(account.name.utf8.count)).then(bytes: account.name.utf8).then(bytes: key).bytes
    }

    static func idempotencyAge(_ created: UInt64, _ key: [UInt8]) -> [UInt8] {
        Key(.idempotencyAges).then(created).then(bytes: key).bytes
    }

    static func volumeListing(_ account: AccountNumber, _ created: UInt64, _ id: UUID128) -> [UInt8] {
        Key(.volumeListing).then(account.rawValue).then(created).then(id).bytes
    }

    static func snapshotListing(_ account: AccountNumber, _ created: UInt64, _ id: UUID128) -> [UInt8] {
        Key(.snapshotListing).then(account.rawValue).then(created).then(id).bytes
    }

    static func volumeSnapshots(_ volume: VolumeID, _ created: UInt64, _ id: UUID128) -> [UInt8] {
        Key(.volumeSnapshots).then(volume.uuid).then(created).then(id).bytes
    }
}

/// Takes keys apart again.
struct KeyReader {
    private var reader: ByteReader

    /// Nil where the key is not of `table`.
    init?(_ key: UnsafeRawBufferPointer, _ table: Table) {
        guard key.first == table.rawValue else { return nil }
        reader = ByteReader(UnsafeRawBufferPointer(rebasing: key[1...]))
    }

    mutating func take<T: FixedWidthInteger>(_: T.Type = T.self) -> T? { reader.take(T.self).map(\.bigEndianReading) }
    mutating func takeFingerprint() -> Fingerprint? { reader.takeFingerprint() }
    /// The rest of a key of the dictionary.
    mutating func takeChunk() -> ChunkKey? {
        guard let account = take(UInt32.self), let owner = take(UInt32.self), let fingerprint = takeFingerprint() else {
            return nil
        }
        return ChunkKey(
            account: AccountNumber(rawValue: account),
            owner: AccountNumber(rawValue: owner),
            fingerprint
        )
    }
    mutating func takeID() -> UUID128? {
        guard let high = take(UInt64.self), let low = take(UInt64.self) else { return nil }
        return UUID128(high: high, low: low)
    }
    mutating func takeRest() -> [UInt8] { reader.take(bytes: reader.remaining) ?? [] }
}

extension FixedWidthInteger {
    /// ``ByteReader`` reads little-endian; keys are big-endian.
    fileprivate var bigEndianReading: Self { Self(bigEndian: self.littleEndian) }
}
