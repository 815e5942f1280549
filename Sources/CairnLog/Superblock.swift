internal import CairnCore

/// What a shard's log knows before it reads a segment. Two slots of 4096 bytes hold the same: they are written
/// one after the other, so that one is whole whenever the power goes, and either may rot.
///
/// | offset | size | field |
/// | 0 | 8 | magic `CAIRNSUP` |
/// | 8 | 4 | CRC32C of bytes 12 ..< 4096 |
/// | 12 | 4 | format version |
/// | 16 | 24 | store UUID, shard, zeros |
/// | 40 | 8 | sequence: raised with each write |
/// | 48 | 8 | epoch |
/// | 56 | 4 | the epoch's first segment (0: none yet) |
/// | 60 | 4 | segment size |
/// | 64 | 8 | the first segment's incarnation |
/// | 72 | 8 | the epoch's first LSN |
/// | 80 | 8 | every group up to this LSN was durable when this was written |
struct Superblock: Hashable, Sendable {
    var identity: LogIdentity
    var sequence: UInt64
    var epoch: Epoch
    var firstSegment: SegmentID
    var segmentSize: Int
    var firstIncarnation: Incarnation
    var firstLSN: LSN
    var durable: LSN

    var bytes: [UInt8] {
        var body = ByteWriter(capacity: Format.block)
        body.put(Format.version)
        body.put(identity)
        body.put(sequence)
        body.put(epoch.rawValue)
        body.put(firstSegment.rawValue)
        body.put(UInt32(segmentSize))
        body.put(firstIncarnation.rawValue)
        body.put(firstLSN.rawValue)
        body.put(durable.rawValue)
        return Format.sealedBlock(magic: Format.superblockMagic, body: body)
    }

    /// A whole superblock, and where it is: 0 or 1.
    struct Slot {
        let superblock: Superblock
        let number: Int
    }

    /// The newer whole one of both slots.
    static func read(from storage: any SegmentStorage, identity: LogIdentity) throws(LogError) -> Superblock {
        // Not `try newest(in: storage)?.superblock`: optimised by Swift 6.3.1, that returns garbage after the first field.
        guard let slot = try newest(in: storage) else { throw .damaged(.superblock) }
        guard slot.superblock.identity == identity else { throw .foreign(slot.superblock.identity) }
        return slot.superblock
    }

    /// Writes both slots, one after the other: durable on return. `sequence` must be above that of what is there.
    func write(to storage: any SegmentStorage) throws(LogError) {
        // The slot with the newest content stays whole until the other one is.
        let newest = try Superblock.newest(in: storage)
        let first = newest?.number == 0 ? 1 : 0
        do {
            try storage.writeSuperblock(slot: first, bytes)
            try storage.writeSuperblock(slot: 1 - first, bytes)
        } catch { throw .io(error) }
    }

    static func newest(in storage: any SegmentStorage) throws(LogError) -> Slot? {
        let bytes: [UInt8]
        do { bytes = try storage.readSuperblock() } catch { throw .io(error) }
        var newest: Slot?
        for number in 0..<bytes.count / Format.block {
            let block = Array(bytes[number * Format.block..<(number + 1) * Format.block])
            guard let found = try decode(block) else { continue }
            if let held = newest, held.superblock.sequence >= found.sequence { continue }
            newest = Slot(superblock: found, number: number)
        }
        return newest
    }

    static func decode(_ slot: [UInt8]) throws(LogError) -> Superblock? {
        let decoded = slot.withUnsafeBytes { raw -> Result<Superblock?, LogError> in
            guard var reader = Format.openBlock(magic: Format.superblockMagic, raw),
                let version = reader.take(UInt32.self)
            else { return .success(nil) }
            guard version == Format.version else { return .failure(.unsupportedFormat(version)) }
            return .success(Superblock(&reader))
        }
        return try decoded.get()
    }

    private init?(_ reader: inout ByteReader) {
        guard let identity = reader.takeIdentity(), let sequence = reader.take(UInt64.self),
            let epoch = reader.take(UInt64.self),
            let firstSegment = reader.take(UInt32.self), let segmentSize = reader.take(UInt32.self),
            let firstIncarnation = reader.take(UInt64.self), let firstLSN = reader.take(UInt64.self),
            let durable = reader.take(UInt64.self), Format.segmentSizes.contains(Int(segmentSize))
        else { return nil }
        self.init(
            identity: identity,
            sequence: sequence,
            epoch: Epoch(epoch),
            firstSegment: SegmentID(firstSegment),
            segmentSize: Int(segmentSize),
            firstIncarnation: Incarnation(firstIncarnation),
            firstLSN: LSN(firstLSN),
            durable: LSN(durable)
        )
    }

    init(
        identity: LogIdentity,
        sequence: UInt64,
        epoch: Epoch,
        firstSegment: SegmentID,
        segmentSize: Int,
        firstIncarnation: Incarnation,
        firstLSN: LSN,
        durable: LSN
    ) {
        self.identity = identity
        self.sequence = sequence
        self.epoch = epoch
        self.firstSegment = firstSegment
        self.segmentSize = segmentSize
        self.firstIncarnation = firstIncarnation
        self.firstLSN = firstLSN
        self.durable = durable
    }
}
