import CairnCore
import CairnLog

/// A manifest: of a volume and its snapshots, or of what is left of them.
struct LineageRecord: StoredRecord, Hashable {
    /// What shows through where this lineage has no entry.
    struct Parent: Hashable {
        let lineage: LineageID
        let version: DataVersion
        /// The source's size in bytes: beyond it nothing shows through.
        let size: UInt64
        /// By which snapshot, of which volume, the lineage stands on it: what grants are made for (SPEC D5). Either may be gone.
        let snapshot: SnapshotID
        let volume: VolumeID
    }

    let account: AccountNumber
    let owner: AccountID
    let chunkSize: ChunkSize
    let parent: Parent?
    /// Whether the volume is still there: its newest entries are then in use.
    var hasHead: Bool
    /// Versions of snapshots that were cancelled in progress, in rising order: their entries are shown to these versions alone,
    /// for the sake of the clones that stand on them (SPEC S4, V5).
    var cancelled: [DataVersion] = []

    func write(to writer: inout ByteWriter) {
        writer.put(account.rawValue)
        writer.put(owner.name)
        writer.put(UInt32(chunkSize.bytes))
        writer.put(UInt8(parent == nil ? 0 : 1))
        if let parent {
            writer.put(parent.lineage.rawValue)
            writer.put(parent.version.rawValue)
            writer.put(parent.size)
            writer.put(parent.snapshot.uuid)
            writer.put(parent.volume.uuid)
        }
        writer.put(UInt8(hasHead ? 1 : 0))
        writer.put(UInt32(cancelled.count))
        for version in cancelled { writer.put(version.rawValue) }
    }

    init(account: AccountNumber, owner: AccountID, chunkSize: ChunkSize, parent: Parent?) {
        self.account = account
        self.owner = owner
        self.chunkSize = chunkSize
        self.parent = parent
        hasHead = true
    }

    init?(_ reader: inout ByteReader) {
        guard let account = reader.take(UInt32.self), let owner = reader.takeAccount(),
            let chunkSize = reader.takeChunkSize(),
            let hasParent = reader.take(UInt8.self)
        else { return nil }
        var parent: Parent?
        if hasParent == 1 {
            guard let lineage = reader.take(UInt64.self), let version = reader.take(UInt64.self),
                let size = reader.take(UInt64.self), let snapshot = reader.takeID(), let volume = reader.takeID()
            else { return nil }
            parent = Parent(
                lineage: LineageID(lineage),
                version: DataVersion(version),
                size: size,
                snapshot: SnapshotID(snapshot),
                volume: VolumeID(volume)
            )
        }
        guard let hasHead = reader.take(UInt8.self), let count = reader.take(UInt32.self),
            Int(count) * 8 <= reader.remaining
        else { return nil }
        self.init(account: AccountNumber(rawValue: account), owner: owner, chunkSize: chunkSize, parent: parent)
        self.hasHead = hasHead == 1
        for _ in 0..<count {
            guard let version = reader.take(UInt64.self) else { return nil }
            cancelled.append(DataVersion(version))
        }
    }
}

/// A version of a lineage that must stay readable: a snapshot has it, clones stand on it, or later snapshots do.
struct RetainedRecord: StoredRecord, Hashable {
    var hasSnapshot = false
    var clones: UInt32 = 0
    /// Of a LOCAL volume, the last that was completed: the next ones start from it (SPEC S3, S4).
    var isBase = false
    /// Whether data may still be uploaded to it: what stands on it is in progress as well (SPEC V5).
    var isIncomplete = false
    /// When it became complete or was cancelled, in milliseconds since 1970; 0 where it was complete from the start.
    var settledAt: UInt64 = 0

    /// Whether something needs it.
    var isHeld: Bool { hasSnapshot || clones > 0 || isBase }

    func write(to writer: inout ByteWriter) {
        writer.put(UInt8(hasSnapshot ? 1 : 0))
        writer.put(clones)
        writer.put(UInt8(isBase ? 1 : 0))
        writer.put(UInt8(isIncomplete ? 1 : 0))
        writer.put(settledAt)
    }

    init() {}

    init?(_ reader: inout ByteReader) {
        guard let hasSnapshot = reader.take(UInt8.self), let clones = reader.take(UInt32.self),
            let isBase = reader.take(UInt8.self), let isIncomplete = reader.take(UInt8.self),
            let settledAt = reader.take(UInt64.self)
        else { return nil }
        (self.hasSnapshot, self.clones) = (hasSnapshot == 1, clones)
        (self.isBase, self.isIncomplete, self.settledAt) = (isBase == 1, isIncomplete == 1, settledAt)
    }
}

extension RecordLocation {
    func write(to writer: inout ByteWriter) {
        writer.put(segment.rawValue)
        writer.put(offset)
        writer.put(length)
        writer.put(seed)
    }

    init?(_ reader: inout ByteReader) {
        guard let segment = reader.take(UInt32.self), let offset = reader.take(UInt32.self),
            let length = reader.take(UInt32.self),
            let seed = reader.take(UInt32.self)
        else { return nil }
        self.init(segment: SegmentID(segment), offset: offset, length: length, seed: seed)
    }
}

/// An entry of the chunk dictionary.
struct ChunkRecord: StoredRecord, Hashable {
    let location: RecordLocation
    let rawLength: UInt32
    /// CRC32C of the bytes before compression.
    let rawChecksum: UInt32
    let codec: Codec
    /// Of the volumes that may name it: the fingerprint is over so many bytes (SPEC V6).
    let chunkSize: ChunkSize
    /// Manifest entries that name it.
    var references: UInt64

    func write(to writer: inout ByteWriter) {
        location.write(to: &writer)
        writer.put(rawLength)
        writer.put(rawChecksum)
        writer.put(codec.rawValue)
        writer.put(UInt32(chunkSize.bytes))
        writer.put(references)
    }

    init(
        location: RecordLocation,
        rawLength: UInt32,
        rawChecksum: UInt32,
        codec: Codec,
        chunkSize: ChunkSize,
        references: UInt64
    ) {
        self.location = location
        self.rawLength = rawLength
        self.rawChecksum = rawChecksum
        self.codec = codec
        self.chunkSize = chunkSize
        self.references = references
    }

    init?(_ reader: inout ByteReader) {
        guard let location = RecordLocation(&reader), let rawLength = reader.take(UInt32.self),
            let checksum = reader.take(UInt32.self), let codec = reader.take(UInt8.self).flatMap(Codec.init),
            let chunkSize = reader.takeChunkSize(), let references = reader.take(UInt64.self)
        else { return nil }
        self.init(
            location: location,
            rawLength: rawLength,
            rawChecksum: checksum,
            codec: codec,
            chunkSize: chunkSize,
            references: references
        )
    }
}

/// How much of a segment is in use, in bytes of records.
struct SegmentRecord: StoredRecord, Hashable {
    var liveBytes: UInt64 = 0

    func write(to writer: inout ByteWriter) { writer.put(liveBytes) }
    init() {}
    init?(_ reader: inout ByteReader) {
        guard let live = reader.take(UInt64.self) else { return nil }
        liveBytes = live
    }
}

/// A part of a chunk: in a record of its own, or zeros, which need none.
struct Patch: Hashable {
    /// Bytes from the chunk's start.
    let start: UInt32
    /// Bytes of the chunk that it fills.
    let length: UInt32
    /// Nil of zeros.
    let location: RecordLocation?

    init(start: UInt32, location: RecordLocation) {
        (self.start, length, self.location) = (start, location.length, location)
    }

    /// Zeros.
    init(zerosAt start: UInt32, length: UInt32) {
        (self.start, self.length, location) = (start, length, nil)
    }

    /// The bytes of the chunk that it fills.
    var range: Range<Int> { Int(start)..<Int(start) + Int(length) }
    /// What it takes of a segment.
    var storedBytes: UInt64 { UInt64(location?.length ?? 0) }

    /// Stands in a part's location for zeros: no segment has this number.
    private static let noSegment = SegmentID(.max)

    func write(to writer: inout ByteWriter) {
        writer.put(start)
        let zeros = RecordLocation(segment: Self.noSegment, offset: 0, length: length, seed: 0)
        (location ?? zeros).write(to: &writer)
    }

    init?(_ reader: inout ByteReader) {
        guard let start = reader.take(UInt32.self), let location = RecordLocation(&reader) else { return nil }
        if location.segment != Self.noSegment {
            self.init(start: start, location: location)
        } else {
            guard location.offset == 0, location.seed == 0, location.length > 0 else { return nil }
            self.init(zerosAt: start, length: location.length)
        }
    }
}

/// What one version of a chunk holds.
struct ManifestEntry: StoredRecord, Hashable {
    enum Base: Hashable {
        /// A chunk of the dictionary of the lineage's account. `owner`: whose data it is (SPEC V8).
        case data(Fingerprint, owner: AccountNumber)
        case zeros
        /// Discarded, and hides what is below (SPEC V7).
        case hole
        /// What older versions, or the parent, hold.
        case inherit
    }

    var base: Base
    /// In the order in which they were written: later ones win.
    var patches: [Patch]
    /// Of data, where its record lay when the entry was written, so that a reader need not ask the dictionary. It may have moved since, or been
    /// healed elsewhere: who reads there checks that it is the chunk's (see ``RecordHints``).
    let hint: RecordLocation?

    static var formatVersion: UInt8 { 2 }

    var isFull: Bool { base != .inherit }

    init(_ base: Base, patches: [Patch] = [], hint: RecordLocation? = nil) {
        self.base = base
        self.patches = patches
        self.hint = hint
    }

    func write(to writer: inout ByteWriter) {
        switch base {
        case .data(let fingerprint, let owner):
            writer.put(UInt8(hint == nil ? 1 : 5))
            writer.put(fingerprint)
            writer.put(owner.rawValue)
            hint?.write(to: &writer)
        case .zeros: writer.put(UInt8(2))
        case .hole: writer.put(UInt8(3))
        case .inherit: writer.put(UInt8(4))
        }
        writer.put(UInt16(patches.count))
        for patch in patches { patch.write(to: &writer) }
    }

    init?(_ reader: inout ByteReader) {
        guard let tag = reader.take(UInt8.self) else { return nil }
        var hint: RecordLocation?
        switch tag {
        case 1, 5:
            guard let fingerprint = reader.takeFingerprint(), let owner = reader.take(UInt32.self) else { return nil }
            base = .data(fingerprint, owner: AccountNumber(rawValue: owner))
            if tag == 5 {
                hint = RecordLocation(&reader)
                if hint == nil { return nil }
            }
        case 2: base = .zeros
        case 3: base = .hole
        case 4: base = .inherit
        default: return nil
        }
        self.hint = hint
        guard let count = reader.take(UInt16.self) else { return nil }
        patches = []
        for _ in 0..<count {
            guard let patch = Patch(&reader) else { return nil }
            patches.append(patch)
        }
    }
}

extension LogPosition: StoredRecord {
    func write(to writer: inout ByteWriter) {
        writer.put(lsn.rawValue)
        writer.put(epoch.rawValue)
        writer.put(segment.rawValue)
        writer.put(offset)
    }

    init?(_ reader: inout ByteReader) {
        guard let lsn = reader.take(UInt64.self), let epoch = reader.take(UInt64.self),
            let segment = reader.take(UInt32.self),
            let offset = reader.take(UInt32.self)
        else { return nil }
        self.init(lsn: LSN(lsn), epoch: Epoch(epoch), segment: SegmentID(segment), offset: offset)
    }
}

/// Work that goes on in the background, a step at a time, and after a restart.
enum WorkItem: StoredRecord, Hashable {
    /// A version of a lineage is not retained any more: what only it held is to be freed.
    case releaseVersion(LineageID, DataVersion)
    /// The volume is gone: entries newer than the newest retained version are to be freed.
    case trimHead(LineageID)
    /// The snapshot is complete: its patches are to be merged, and its seal computed.
    case seal(SnapshotID)
    /// A snapshot was cancelled in progress: what its entries covered is the top again, and they are to go.
    case cancelVersion(LineageID, DataVersion)
    /// A version was completed or cancelled: snapshots that waited for it are complete.
    case settle(LineageID, DataVersion)
    /// What was expected of the snapshot matters no more.
    case forgetExpected(SnapshotID)

    func write(to writer: inout ByteWriter) {
        switch self {
        case .releaseVersion(let lineage, let version):
            writer.put(UInt8(1))
            writer.put(lineage.rawValue)
            writer.put(version.rawValue)
        case .trimHead(let lineage):
            writer.put(UInt8(2))
            writer.put(lineage.rawValue)
        case .seal(let snapshot):
            writer.put(UInt8(3))
            writer.put(snapshot.uuid)
        case .cancelVersion(let lineage, let version):
            writer.put(UInt8(4))
            writer.put(lineage.rawValue)
            writer.put(version.rawValue)
        case .settle(let lineage, let version):
            writer.put(UInt8(5))
            writer.put(lineage.rawValue)
            writer.put(version.rawValue)
        case .forgetExpected(let snapshot):
            writer.put(UInt8(6))
            writer.put(snapshot.uuid)
        }
    }

    init?(_ reader: inout ByteReader) {
        guard let kind = reader.take(UInt8.self) else { return nil }
        switch kind {
        case 1, 4, 5:
            guard let lineage = reader.take(UInt64.self), let version = reader.take(UInt64.self) else { return nil }
            let place = (LineageID(lineage), DataVersion(version))
            switch kind {
            case 1: self = .releaseVersion(place.0, place.1)
            case 4: self = .cancelVersion(place.0, place.1)
            default: self = .settle(place.0, place.1)
            }
        case 2:
            guard let lineage = reader.take(UInt64.self) else { return nil }
            self = .trimHead(LineageID(lineage))
        case 3, 6:
            guard let id = reader.takeID().map({ SnapshotID($0) }) else { return nil }
            self = kind == 3 ? .seal(id) : .forgetExpected(id)
        default: return nil
        }
    }
}
