internal import CairnCore

/// The first 64 bytes of a group, at a multiple of 4096 in its segment.
///
/// | offset | size | field |
/// | 0 | 8 | magic `CAIRNGRP` |
/// | 8 | 4 | CRC32C of bytes 12 ..< 64, from the segment's seed |
/// | 12 | 4 | group length: this header and all records, without the zeros up to the next 4096 |
/// | 16 | 8 | LSN |
/// | 24 | 8 | epoch |
/// | 32 | 8 | incarnation |
/// | 40 | 8 | every group up to this LSN was durable when this one was written |
/// | 48 | 4 | number of records |
/// | 52 | 4 | offset of the commit record (the last) in the group |
/// | 56 | 8 | zeros |
struct GroupHeader: Hashable, Sendable {
    let length: Int
    let lsn: LSN
    let epoch: Epoch
    let incarnation: Incarnation
    let durable: LSN
    let records: Int
    let commitOffset: Int

    func bytes(seed: UInt32) -> [UInt8] {
        var body = ByteWriter(capacity: Format.groupHeader)
        body.put(UInt32(length))
        body.put(lsn.rawValue)
        body.put(epoch.rawValue)
        body.put(incarnation.rawValue)
        body.put(durable.rawValue)
        body.put(UInt32(records))
        body.put(UInt32(commitOffset))
        body.put(UInt64(0))
        var writer = ByteWriter(capacity: Format.groupHeader)
        writer.put(bytes: Format.groupMagic)
        writer.put(body.bytes.withUnsafeBytes { CRC32C.extend(seed, $0) })
        writer.put(bytes: body.bytes)
        return writer.bytes
    }

    /// Nil where the first 64 of `bytes` are no whole group header of the life of a segment that `seed` stands for.
    init?(_ bytes: UnsafeRawBufferPointer, seed: UInt32) {
        guard bytes.count >= Format.groupHeader, bytes.starts(with: Format.groupMagic) else { return nil }
        var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[8..<Format.groupHeader]))
        let sum = CRC32C.extend(seed, UnsafeRawBufferPointer(rebasing: bytes[12..<Format.groupHeader]))
        guard reader.take(UInt32.self) == sum, let length = reader.take(UInt32.self),
            let lsn = reader.take(UInt64.self),
            let epoch = reader.take(UInt64.self), let incarnation = reader.take(UInt64.self),
            let durable = reader.take(UInt64.self), let records = reader.take(UInt32.self),
            let commitOffset = reader.take(UInt32.self), commitOffset < length
        else { return nil }
        self.init(
            length: Int(length),
            lsn: LSN(lsn),
            epoch: Epoch(epoch),
            incarnation: Incarnation(incarnation),
            durable: LSN(durable),
            records: Int(records),
            commitOffset: Int(commitOffset)
        )
    }

    init(length: Int, lsn: LSN, epoch: Epoch, incarnation: Incarnation, durable: LSN, records: Int, commitOffset: Int) {
        self.length = length
        self.lsn = lsn
        self.epoch = epoch
        self.incarnation = incarnation
        self.durable = durable
        self.records = records
        self.commitOffset = commitOffset
    }
}
