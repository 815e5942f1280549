internal import CairnCore

/// Reads groups back, whole or not at all.
struct GroupReader {
    let storage: any SegmentStorage
    let segmentSize: Int
    let pool: BufferPool

    struct Group {
        let header: GroupHeader
        let commit: BufferSlice
        /// The group's end in its segment, a multiple of 4096.
        let end: Int
    }

    /// The group `lsn` at `offset` of the segment that has this header; nil where there is none, or it is not whole.
    func group(_ lsn: LSN, in segment: SegmentHeader, at offset: Int) throws(LogError) -> Group? {
        guard offset + Format.block <= segmentSize else { return nil }
        let first = pool.buffer(capacity: Format.block)
        defer { withExtendedLifetime(first) {} }
        guard try read(segment.life.segment, at: offset, count: Format.block, into: first),
            let header = GroupHeader(first.bytes, seed: segment.seed), header.lsn == lsn, header.epoch == segment.epoch,
            header.incarnation == segment.life.incarnation, offset + header.length <= segmentSize
        else { return nil }
        let whole = pool.buffer(capacity: header.length)
        defer { withExtendedLifetime(whole) {} }
        guard try read(segment.life.segment, at: offset, count: header.length, into: whole),
            let commit = GroupReader.commit(of: header, in: whole.bytes, seed: segment.seed)
        else { return nil }
        return Group(
            header: header,
            commit: BufferSlice(buffer: whole, range: commit),
            end: offset + Format.align(header.length, to: Format.block)
        )
    }

    /// Where in the group's bytes the commit's are; nil unless every record is whole and of this group.
    private static func commit(of header: GroupHeader, in bytes: UnsafeRawBufferPointer, seed: UInt32) -> Range<Int>? {
        guard GroupHeader(bytes, seed: seed) == header else { return nil }
        var offset = Format.groupHeader
        for number in 1...max(header.records, 1) {
            guard offset <= bytes.count else { return nil }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            guard let record = RecordFormat.decode(rest), record.lsn == header.lsn,
                RecordFormat.isWhole(record, rest, seed: seed), (record.header == nil) == (number == header.records)
            else { return nil }
            if record.header == nil {
                let start = offset + record.headerLength
                let end = start + record.storedLength
                return offset == header.commitOffset && end == header.length ? start..<end : nil
            }
            offset += record.alignedLength
        }
        return nil
    }

    /// A life of a segment, whose groups can be told from those of any other.
    struct Life {
        let life: SegmentLife
        let epoch: Epoch
        let seed: UInt32

        init(_ segment: SegmentHeader) { (life, epoch, seed) = (segment.life, segment.epoch, segment.seed) }

        /// The one that is to follow in the same epoch.
        init(after segment: SegmentHeader) {
            (life, epoch, seed) = (segment.next, segment.epoch, segment.nextSeed)
        }
    }

    /// Whether this life of a segment holds, at `offset` or later, the header of a group which says that `lsn` was durable.
    /// Where `lsn` is not to be found whole, that tells damage from a torn tail.
    func wasDurable(_ lsn: LSN, in life: Life, from offset: Int) throws(LogError) -> Bool {
        var wasDurable = false
        try forEachGroup(in: life, from: offset) { _, header in
            wasDurable = header.durable >= lsn
            return !wasDurable
        }
        return wasDurable
    }

    /// Whole group headers, wherever they are at a multiple of 4096; until `body` says no.
    func forEachGroup(in life: Life, from offset: Int, _ body: (Int, GroupHeader) -> Bool) throws(LogError) {
        let buffer = pool.buffer(capacity: 1 << 20)
        defer { withExtendedLifetime(buffer) {} }
        var at = offset
        while at < segmentSize {
            let piece = UnsafeMutableRawBufferPointer(
                rebasing: buffer.memory[..<min(buffer.memory.count, segmentSize - at)]
            )
            let count = try storage.fill(piece, from: life.life.segment, at: at)
            for block in stride(from: 0, to: count, by: Format.block) where count - block >= Format.groupHeader {
                guard let header = GroupHeader(UnsafeRawBufferPointer(rebasing: piece[block..<count]), seed: life.seed),
                    header.epoch == life.epoch, header.incarnation == life.life.incarnation
                else { continue }
                if !body(at + block, header) { return }
            }
            guard count == piece.count else { return }
            at += count
        }
    }

    private func read(_ segment: SegmentID, at offset: Int, count: Int, into buffer: Buffer) throws(LogError) -> Bool {
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<count])
        buffer.count = try storage.fill(target, from: segment, at: offset)
        return buffer.count == count
    }
}
