internal import CairnCore

/// A segment and one of its lives.
struct SegmentLife: Hashable, Sendable {
    let segment: SegmentID
    let incarnation: Incarnation
}

/// The first 4096 bytes of a segment, written when it is opened.
///
/// | offset | size | field |
/// | 0 | 8 | magic `CAIRNSEG` |
/// | 8 | 4 | CRC32C of bytes 12 ..< 4096 |
/// | 12 | 4 | format version |
/// | 16 | 24 | store UUID, shard, zeros |
/// | 40 | 4 | segment |
/// | 44 | 4 | the segment that is opened when this one is full |
/// | 48 | 8 | incarnation |
/// | 56 | 8 | epoch |
/// | 64 | 8 | the incarnation that the next segment will have |
/// | 72 | 8 | LSN of its first group |
struct SegmentHeader: Hashable, Sendable {
    let identity: LogIdentity
    let life: SegmentLife
    let epoch: Epoch
    let next: SegmentLife
    let firstLSN: LSN

    var seed: UInt32 { Format.seed(identity, life.segment, life.incarnation, epoch) }
    /// The seed of the successor, which is opened in the same epoch.
    var nextSeed: UInt32 { Format.seed(identity, next.segment, next.incarnation, epoch) }

    var bytes: [UInt8] {
        var body = ByteWriter(capacity: Format.block)
        body.put(Format.version)
        body.put(identity)
        body.put(life.segment.rawValue)
        body.put(next.segment.rawValue)
        body.put(life.incarnation.rawValue)
        body.put(epoch.rawValue)
        body.put(next.incarnation.rawValue)
        body.put(firstLSN.rawValue)
        return Format.sealedBlock(magic: Format.segmentMagic, body: body)
    }

    /// Nil where these bytes are not the whole header of `segment` in this log.
    init?(_ bytes: UnsafeRawBufferPointer, of segment: SegmentID, identity: LogIdentity) {
        guard var reader = Format.openBlock(magic: Format.segmentMagic, bytes),
            reader.take(UInt32.self) == Format.version,
            reader.takeIdentity() == identity, reader.take(UInt32.self) == segment.rawValue,
            let next = reader.take(UInt32.self), let incarnation = reader.take(UInt64.self),
            let epoch = reader.take(UInt64.self),
            let nextIncarnation = reader.take(UInt64.self), let firstLSN = reader.take(UInt64.self)
        else { return nil }
        self.init(
            identity: identity,
            life: SegmentLife(segment: segment, incarnation: Incarnation(incarnation)),
            epoch: Epoch(epoch),
            next: SegmentLife(segment: SegmentID(next), incarnation: Incarnation(nextIncarnation)),
            firstLSN: LSN(firstLSN)
        )
    }

    init(identity: LogIdentity, life: SegmentLife, epoch: Epoch, next: SegmentLife, firstLSN: LSN) {
        self.identity = identity
        self.life = life
        self.epoch = epoch
        self.next = next
        self.firstLSN = firstLSN
    }

    /// The header of `segment` as it is on the disk; nil where it is none, or is damaged.
    static func read(
        _ segment: SegmentID,
        identity: LogIdentity,
        from storage: any SegmentStorage
    ) throws(LogError) -> SegmentHeader? {
        let buffer = BufferPool.shared.buffer(capacity: Format.block)
        defer { withExtendedLifetime(buffer) {} }
        let block = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<Format.block])
        guard try storage.fill(block, from: segment, at: 0) == Format.block else { return nil }
        return SegmentHeader(UnsafeRawBufferPointer(block), of: segment, identity: identity)
    }
}
