internal import CairnCore

/// Goes through the records of a segment that is written no more, group by group: what compaction copies its live ones out of.
///
/// Only records that are whole are given. What is damaged stays where it is: whether it matters, the index knows.
public struct SegmentScan {
    private let log: SegmentLog
    private let header: SegmentHeader
    private var offset = Format.block

    /// Nil where the segment has no header of this log: it was never written, or its header is damaged.
    /// - Throws: `.io`.
    public init?(_ segment: SegmentID, of log: SegmentLog) throws(LogError) {
        guard let header = try SegmentHeader.read(segment, identity: log.identity, from: log.storage) else {
            return nil
        }
        self.log = log
        self.header = header
    }

    /// The whole chunk and patch records of the next group; nil at the segment's end. Their bytes share a buffer. Blocks.
    /// - Throws: `.io`.
    public mutating func next() throws(LogError) -> [Record]? {
        while offset + Format.block <= log.segmentSize {
            guard let group = try groupHeader() else {
                // Zeros, a group of an earlier life, or damage: the next one may begin at any block.
                offset += Format.block
                continue
            }
            let length = Format.align(group.length, to: Format.block)
            let buffer = log.pool.buffer(capacity: length)
            let start = offset
            offset += length
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<min(length, log.segmentSize - start)])
            buffer.count = try log.storage.fill(target, from: header.life.segment, at: start)
            return records(of: group, at: start, in: buffer)
        }
        return nil
    }

    private func groupHeader() throws(LogError) -> GroupHeader? {
        let block = log.pool.buffer(capacity: Format.block)
        defer { withExtendedLifetime(block) {} }
        let window = UnsafeMutableRawBufferPointer(rebasing: block.memory[..<Format.block])
        guard try log.storage.fill(window, from: header.life.segment, at: offset) == Format.block,
            let group = GroupHeader(UnsafeRawBufferPointer(window), seed: header.seed),
            group.epoch == header.epoch, group.incarnation == header.life.incarnation,
            offset + group.length <= log.segmentSize
        else { return nil }
        return group
    }

    private func records(of group: GroupHeader, at start: Int, in buffer: Buffer) -> [Record] {
        var records: [Record] = []
        var at = Format.groupHeader
        while at < min(group.length, buffer.count) {
            let rest = UnsafeRawBufferPointer(rebasing: buffer.bytes[at...])
            // Where a header cannot be read, nor can what follows it be found.
            guard let decoded = RecordFormat.decode(rest), decoded.lsn == group.lsn else { break }
            if let header = decoded.header, RecordFormat.isWhole(decoded, rest, seed: self.header.seed) {
                let bytes = at + decoded.headerLength..<at + decoded.headerLength + decoded.storedLength
                let location = RecordLocation(
                    segment: self.header.life.segment,
                    offset: UInt32(start + at),
                    length: UInt32(decoded.storedLength),
                    seed: self.header.seed
                )
                records.append(
                    Record(location: location, header: header, bytes: BufferSlice(buffer: buffer, range: bytes))
                )
            }
            at += decoded.alignedLength
        }
        return records
    }
}
