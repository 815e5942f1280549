import CairnCore
import CairnCrypto
import CairnLog

/// Why a chunk counts as damaged.
public enum DamageCause: UInt8, Sendable, Hashable, CaseIterable {
    /// Its record fails its checksum, or is not there.
    case checksum = 1
    /// Where its record should be there is one of something else.
    case foreign = 2
    /// Its record is whole, but does not hold what its fingerprint says.
    case content = 3
    /// The disk gives an error where it lies.
    case unreadable = 4
    /// A manifest names it, and the dictionary does not know it.
    case missing = 5

    /// For people.
    public var text: String {
        switch self {
        case .checksum: "its record fails its checksum"
        case .foreign: "its record is of something else"
        case .content: "its record does not hold what its fingerprint says"
        case .unreadable: "the disk cannot read it"
        case .missing: "it is not in the dictionary"
        }
    }
}

/// That a chunk of the dictionary is damaged. It counts as long as the chunk lies where it lay then.
struct ChunkDamage: StoredRecord, Hashable {
    /// Milliseconds since 1970.
    let since: UInt64
    let cause: DamageCause
    /// Nil where the dictionary does not know the chunk.
    let location: RecordLocation?

    init(since: UInt64, cause: DamageCause, location: RecordLocation?) {
        (self.since, self.cause, self.location) = (since, cause, location)
    }

    func write(to writer: inout ByteWriter) {
        writer.put(since)
        writer.put(cause.rawValue)
        writer.put(UInt8(location == nil ? 0 : 1))
        location?.write(to: &writer)
    }

    init?(_ reader: inout ByteReader) {
        guard let since = reader.take(UInt64.self), let cause = reader.take(UInt8.self).flatMap(DamageCause.init),
            let isThere = reader.take(UInt8.self)
        else { return nil }
        if isThere == 0 {
            location = nil
        } else {
            guard let found = RecordLocation(&reader) else { return nil }
            location = found
        }
        (self.since, self.cause) = (since, cause)
    }
}

/// That a part of a chunk is damaged, and whose it is.
struct PartDamage: StoredRecord, Hashable {
    /// Milliseconds since 1970.
    let since: UInt64
    let cause: DamageCause
    let place: PatchedPlace

    init(since: UInt64, cause: DamageCause, place: PatchedPlace) {
        (self.since, self.cause, self.place) = (since, cause, place)
    }

    func write(to writer: inout ByteWriter) {
        writer.put(since)
        writer.put(cause.rawValue)
        writer.put(place.lineage.rawValue)
        writer.put(place.version.rawValue)
        writer.put(place.chunk.rawValue)
    }

    init?(_ reader: inout ByteReader) {
        guard let since = reader.take(UInt64.self), let cause = reader.take(UInt8.self).flatMap(DamageCause.init),
            let lineage = reader.take(UInt64.self), let version = reader.take(UInt64.self),
            let chunk = reader.take(UInt64.self)
        else { return nil }
        (self.since, self.cause) = (since, cause)
        place = PatchedPlace(lineage: LineageID(lineage), version: DataVersion(version), chunk: ChunkIndex(chunk))
    }
}

extension Key {
    static func damaged(_ chunk: ChunkKey) -> [UInt8] {
        Key(.damagedChunks).then(chunk).bytes
    }

    static func damaged(_ part: RecordLocation) -> [UInt8] {
        Key(.damagedParts).then(part.segment.rawValue).then(part.offset).then(part.seed).bytes
    }

    static var scrub: [UInt8] { Key(.scrub).bytes }
}

extension ManifestReader {
    /// Whether it is known that the chunk cannot be read.
    /// - Parameter record: what the dictionary says of the chunk; nil: it does not know it.
    func damage(of chunk: ChunkKey, _ record: ChunkRecord?) throws(StoreError) -> ChunkDamage? {
        guard mayHaveDamage, let bytes = try index.get(Key.damaged(chunk)) else { return nil }
        let damage = try ChunkDamage.decode(bytes)
        return damage.location == record?.location ? damage : nil
    }

    /// Whether it is known that the part cannot be read.
    func damage(of part: RecordLocation) throws(StoreError) -> PartDamage? {
        guard mayHaveDamage, let bytes = try index.get(Key.damaged(part)) else { return nil }
        return try PartDamage.decode(bytes)
    }

    /// The chunk, unless it is known to be damaged: what may be promised to a client, and named by it.
    func soundChunk(_ key: ChunkKey) throws(StoreError) -> ChunkRecord? {
        guard let record = try chunk(key), try damage(of: key, record) == nil else { return nil }
        return record
    }
}
