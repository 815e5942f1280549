import CairnCore

@testable import CairnLog

/// A small log to damage: three segments of one epoch, the last of them not opened yet, five groups; and the means to make the
/// checksums right again, so that damage goes deeper than the first of them.
enum LogImage {
    static let identity = LogIdentity(
        store: UUID128(bytes: (0..<16).map { UInt8($0 * 16 + 1) })!,
        shard: ShardIndex(3)
    )
    static let segmentSize = 1 << 20

    static let image: MemoryStorage.Image = {
        var image = MemoryStorage.Image()
        let lives = (1...3).map { SegmentLife(segment: SegmentID($0), incarnation: Incarnation(1)) }
        let epoch = Epoch(1)
        let first = SegmentHeader(identity: identity, life: lives[0], epoch: epoch, next: lives[1], firstLSN: LSN(1))
        let second = SegmentHeader(identity: identity, life: lives[1], epoch: epoch, next: lives[2], firstLSN: LSN(4))
        image.segments[first.life.segment] = first.bytes + (1...3).flatMap { group(LSN($0), in: first) }
        image.segments[second.life.segment] = second.bytes + (4...5).flatMap { group(LSN($0), in: second) }
        image.segments[lives[2].segment] = []
        let superblock = Superblock(
            identity: identity,
            sequence: 2,
            epoch: epoch,
            firstSegment: first.life.segment,
            segmentSize: segmentSize,
            firstIncarnation: first.life.incarnation,
            firstLSN: LSN(1),
            durable: .none
        )
        image.superblock = superblock.bytes + superblock.bytes
        return image
    }()

    /// A group of one block: a chunk, a part of one, and the commit.
    private static func group(_ lsn: LSN, in segment: SegmentHeader) -> [UInt8] {
        let stored = [UInt8](repeating: UInt8(lsn.rawValue), count: 40)
        let checksum = stored.withUnsafeBytes { CRC32C.extend(0, $0) }
        let chunk = ChunkHeader(
            account: 1,
            owner: 1,
            fingerprint: Fingerprint(bytes: [UInt8](repeating: 7, count: 32))!,
            codec: .raw,
            rawLength: 40,
            rawChecksum: checksum
        )
        let patch = PatchHeader(
            lineage: 1,
            chunk: ChunkIndex(2),
            version: DataVersion(3),
            start: 512,
            rawChecksum: checksum
        )
        var records: [UInt8] = []
        var commit = 0
        for header in [RecordHeader.chunk(chunk), .patch(patch), nil] {
            commit = records.count
            let encoded = stored.withUnsafeBytes {
                RecordFormat.encode(header, lsn: lsn, stored: $0, seed: segment.seed)
            }
            records += encoded + stored
            records += [UInt8](repeating: 0, count: Format.align(records.count, to: 8) - records.count)
        }
        let header = GroupHeader(
            length: Format.groupHeader + records.count,
            lsn: lsn,
            epoch: segment.epoch,
            incarnation: segment.life.incarnation,
            durable: LSN(lsn.rawValue - 1),
            records: 3,
            commitOffset: Format.groupHeader + commit
        )
        let bytes = header.bytes(seed: segment.seed) + records
        return bytes + [UInt8](repeating: 0, count: Format.block - bytes.count)
    }

    // MARK: Checksums

    static func repair(_ image: inout MemoryStorage.Image) {
        for slot in 0..<image.superblock.count / Format.block {
            seal(&image.superblock, at: slot * Format.block, from: 12, count: Format.block - 12, seed: 0, sum: 8)
        }
        for segment in image.segments.keys.sorted() where image.segments[segment]!.count >= Format.block {
            repair(&image.segments[segment]!, segment)
        }
    }

    private static func repair(_ bytes: inout [UInt8], _ segment: SegmentID) {
        seal(&bytes, at: 0, from: 12, count: Format.block - 12, seed: 0, sum: 8)
        let header = bytes.withUnsafeBytes {
            SegmentHeader(UnsafeRawBufferPointer(rebasing: $0[..<Format.block]), of: segment, identity: identity)
        }
        guard let header else { return }
        for block in stride(from: Format.block, to: bytes.count - Format.groupHeader, by: Format.block) {
            repairRecords(&bytes, from: block + Format.groupHeader, seed: header.seed)
            seal(&bytes, at: block, from: 12, count: Format.groupHeader - 12, seed: header.seed, sum: 8)
        }
    }

    private static func repairRecords(_ bytes: inout [UInt8], from start: Int, seed: UInt32) {
        var at = start
        while at < bytes.count {
            let record = bytes.withUnsafeBytes { RecordFormat.decode(UnsafeRawBufferPointer(rebasing: $0[at...])) }
            guard let record else { return }
            let length = record.headerLength + record.storedLength
            seal(&bytes, at: at, from: 4, count: length - 4, seed: seed, sum: 0)
            if record.header == nil { return }
            at += record.alignedLength
        }
    }

    /// Writes at `at + sum` the CRC32C of `count` bytes from `at + from` on, if they are there.
    private static func seal(_ bytes: inout [UInt8], at: Int, from: Int, count: Int, seed: UInt32, sum: Int) {
        guard at + from + count <= bytes.count else { return }
        let value = bytes.withUnsafeBytes {
            CRC32C.extend(seed, UnsafeRawBufferPointer(rebasing: $0[at + from..<at + from + count]))
        }
        withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(at + sum..<at + sum + 4, with: $0) }
    }
}
