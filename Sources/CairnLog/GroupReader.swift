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

    /// Whether this life of a segment holds, at `offset` or later, the header of a group which says that `lsn` was durable.
    /// Where `lsn` is not to be found whole, that tells damage from a torn tail.
    func wasDurable(_ lsn: LSN, in life: SegmentLife, epoch: Epoch, seed: UInt32, from offset: Int) throws(LogError)
        -> Bool
    {
        let buffer = pool.buffer(capacity: 1 << 20)
        defer { withExtendedLifetime(buffer) {} }
        var at = offset
        while at < segmentSize {
            let piece = UnsafeMutableRawBufferPointer(
                rebasing: buffer.memory[..<min(buffer.memory.count, segmentSize - at)]
            )
            let count = try read(life.segment, at: at, into: piece)
            for block in stride(from: 0, to: count, by: Format.block) where count - block >= Format.groupHeader {
                guard let header = GroupHeader(UnsafeRawBufferPointer(rebasing: piece[block..<count]), seed: seed),
                    header.epoch == epoch, header.incarnation == life.incarnation
                else { continue }
                if header.durable >= lsn { return true }
            }
            guard count == piece.count else { return false }
            at += count
        }
        return false
    }

    private func read(_ segment: SegmentID, at offset: Int, count: Int, into buffer: Buffer) throws(LogError) -> Bool {
        buffer.count = try read(
            segment,
            at: offset,
            into: UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<count])
        )
        return buffer.count == count
    }

    private func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(LogError)
        -> Int
    {
        do { return try storage.read(segment, at: offset, into: target) } catch { throw .io(error) }
    }
}
