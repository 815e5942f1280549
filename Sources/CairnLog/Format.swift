internal import CairnCore

/// The constants of the log's formats, as FORMAT.md describes them.
enum Format {
    static let version: UInt32 = 1
    /// Groups begin and end here, and every write is a multiple of it: what O_DIRECT wants of any disk.
    static let block = 4096
    static let segmentMagic = Array("CAIRNSEG".utf8)
    static let groupMagic = Array("CAIRNGRP".utf8)
    static let superblockMagic = Array("CAIRNSUP".utf8)
    static let groupHeader = 64
    static let recordHeader = 32
    static let chunkHeader = 72
    static let patchHeader = 64
    /// The longest of the record headers.
    static let longestHeader = 72
    static let segmentSizes = 1 << 20...1 << 30

    static func align(_ count: Int, to unit: Int) -> Int { (count + unit - 1) & ~(unit - 1) }

    /// Where every checksum inside a segment begins: the CRC32C of what makes this life of the segment unlike any other.
    static func seed(_ identity: LogIdentity, _ segment: SegmentID, _ incarnation: Incarnation, _ epoch: Epoch)
        -> UInt32
    {
        var writer = ByteWriter(capacity: 40)
        writer.put(identity)
        writer.put(segment.rawValue)
        writer.put(incarnation.rawValue)
        writer.put(epoch.rawValue)
        return writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) }
    }

    /// A 4096-byte block: magic, CRC32C of all that follows it, then `body`, then zeros.
    static func sealedBlock(magic: [UInt8], body: ByteWriter) -> [UInt8] {
        var rest = body.bytes
        precondition(rest.count <= block - 12)
        rest.append(contentsOf: repeatElement(0, count: block - 12 - rest.count))
        var writer = ByteWriter(capacity: block)
        writer.put(bytes: magic)
        writer.put(rest.withUnsafeBytes { CRC32C.extend(0, $0) })
        writer.put(bytes: rest)
        return writer.bytes
    }

    /// A reader of the body of a block that ``sealedBlock(magic:body:)`` made; nil where it is none, or is damaged.
    static func openBlock(magic: [UInt8], _ bytes: UnsafeRawBufferPointer) -> ByteReader? {
        var reader = ByteReader(bytes)
        guard bytes.count == block, reader.take(bytes: 8) == magic, let sum = reader.take(UInt32.self),
            CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: bytes[12...])) == sum
        else { return nil }
        return reader
    }
}

extension ByteWriter {
    /// 24 bytes: UUID, shard, zeros.
    mutating func put(_ identity: LogIdentity) {
        put(bytes: identity.store.bytes)
        put(identity.shard.rawValue)
        put(bytes: repeatElement(UInt8(0), count: 6))
    }
}

extension ByteReader {
    mutating func takeIdentity() -> LogIdentity? {
        guard let uuid = take(bytes: 16).flatMap(UUID128.init(bytes:)), let shard = take(UInt16.self),
            take(raw: 6) != nil
        else { return nil }
        return LogIdentity(store: uuid, shard: ShardIndex(shard))
    }
}
