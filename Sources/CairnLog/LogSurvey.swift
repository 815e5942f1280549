internal import CairnCore
internal import Glibc

/// What the superblock and the headers of all segments tell of a log: where a repair begins.
public struct LogSurvey: Sendable {
    let superblock: Superblock
    /// The whole ones.
    let headers: [SegmentID: SegmentHeader]
    /// Which of the superblock's two slots are whole.
    public let wholeSlots: [Bool]
    /// Every one that there is, whatever it holds.
    public let segments: Set<SegmentID>
    /// Segments whose headers are neither whole nor as new as the segment.
    public let damagedHeaders: [SegmentID]

    public var epoch: Epoch { superblock.epoch }

    /// Reads one block of each segment, and nothing else.
    /// - Throws: `.damaged(.superblock)`, `.foreign`, `.unsupportedFormat`, `.io`.
    public init(_ storage: any SegmentStorage, identity: LogIdentity) throws(LogError) {
        superblock = try Superblock.read(from: storage, identity: identity)
        wholeSlots = try LogSurvey.slots(of: storage)
        var listed: [SegmentID]
        do { listed = try storage.list() } catch { throw .io(error) }
        listed.sort()
        segments = Set(listed)
        var headers: [SegmentID: SegmentHeader] = [:]
        var damaged: [SegmentID] = []
        for segment in listed {
            if let header = try SegmentHeader.read(segment, identity: identity, from: storage) {
                headers[segment] = header
            } else if try !LogSurvey.isNew(segment, storage) {
                damaged.append(segment)
            }
        }
        self.headers = headers
        damagedHeaders = damaged
    }

    private static func slots(of storage: any SegmentStorage) throws(LogError) -> [Bool] {
        let bytes: [UInt8]
        do { bytes = try storage.readSuperblock() } catch { throw .io(error) }
        var whole = [false, false]
        for slot in 0..<min(bytes.count / Format.block, 2) {
            let block = Array(bytes[slot * Format.block..<(slot + 1) * Format.block])
            whole[slot] = try Superblock.decode(block) != nil
        }
        return whole
    }

    /// A segment that was never opened begins with zeros.
    private static func isNew(_ segment: SegmentID, _ storage: any SegmentStorage) throws(LogError) -> Bool {
        let buffer = BufferPool.shared.buffer(capacity: Format.block)
        defer { withExtendedLifetime(buffer) {} }
        let block = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<Format.block])
        let count = try storage.fill(block, from: segment, at: 0)
        return block[..<count].allSatisfy { $0 == 0 }
    }

    /// Writes both slots anew from the newest whole one.
    public func mendSuperblock(in storage: any SegmentStorage) throws(LogError) {
        var mended = superblock
        mended.sequence += 1
        try mended.write(to: storage)
    }

    /// Whether replay can begin with the shard's first group.
    public var reachesBeginning: Bool {
        superblock.firstLSN == LSN.none.next || headers.values.contains { $0.firstLSN == LSN.none.next }
    }

    /// Where an epoch ended: a later one began with the next LSN. Nil for the present one.
    func end(of epoch: Epoch) -> LSN? {
        let later = headers.values.filter { $0.epoch > epoch }.map(\.firstLSN)
        let present = superblock.epoch > epoch ? [superblock.firstLSN] : []
        return (later + present).min()
    }

    /// The first segment of the epoch whose first group has this LSN, of those after `epoch`; several where a start was cut short.
    func beginnings(at lsn: LSN, after epoch: Epoch) -> (epoch: Epoch, segments: [SegmentHeader])? {
        var found = headers.values.filter { $0.epoch > epoch && $0.firstLSN == lsn }
        let present = superblock.epoch > epoch && superblock.firstLSN == lsn ? superblock.epoch : nil
        // Of those that begin at the same LSN only the last has groups.
        guard let last = (found.map(\.epoch) + [present].compactMap(\.self)).max() else { return nil }
        found = found.filter { $0.epoch == last }
        if last == superblock.epoch {
            found = found.filter {
                $0.life == SegmentLife(segment: superblock.firstSegment, incarnation: superblock.firstIncarnation)
            }
        }
        return (last, found)
    }
}
