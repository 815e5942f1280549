public import CairnCore
internal import Glibc
internal import Synchronization

extension SegmentLog {
    /// Bytes between two records that are rather read along than skipped.
    static let gapBytes = 32 << 10
    /// The most bytes read at once, unless one record is longer.
    static let runBytes = 2 << 20

    /// Reads one record, and checks it. Any thread.
    /// - Throws: `.damaged(.record)`, `.recycled`, `.io`.
    public func read(_ location: RecordLocation) throws(LogError) -> Record {
        try readRun([location][...])[0]
    }

    /// Reads many, in the order given; those that follow each other in a segment are read together, so sorted locations are
    /// cheaper, and their records share a buffer. Any thread.
    /// - Parameters:
    ///   - inMemory: never waits: what is not in memory, or not as it should be, is `.io` with EAGAIN.
    ///   - waits: told of waits for the disk.
    /// - Throws: `.damaged(.record)` or `.recycled` for the first that fails, `.io`.
    public func read(_ locations: [RecordLocation], inMemory: Bool = false, waits: (any DiskWaits)? = nil)
        throws(LogError) -> [Record]
    {
        var records: [Record] = []
        records.reserveCapacity(locations.count)
        var rest = locations[...]
        while !rest.isEmpty {
            let run = rest.prefix(SegmentLog.runLength(rest))
            records += try readRun(run, inMemory: inMemory, waits)
            rest = rest.dropFirst(run.count)
        }
        return records
    }

    /// How many of the first locations lie close enough together.
    static func runLength(_ locations: ArraySlice<RecordLocation>) -> Int {
        guard let first = locations.first else { return 0 }
        var end = first.end
        var count = 1
        for location in locations.dropFirst() {
            guard location.segment == first.segment, location.seed == first.seed,
                Int(location.offset) >= end - Format.longestHeader,
                Int(location.offset) > Int(first.offset), Int(location.offset) - end <= gapBytes,
                location.end - Int(first.offset) <= runBytes
            else { break }
            end = location.end
            count += 1
        }
        return count
    }

    private func readRun(
        _ run: ArraySlice<RecordLocation>,
        inMemory: Bool = false,
        _ waits: (any DiskWaits)? = nil
    ) throws(LogError) -> [Record] {
        guard let first = run.first, let last = run.last else { return [] }
        // Whole blocks, so that a storage may read past the page cache.
        let start = Int(first.offset) / Format.block * Format.block
        // Before anything is allocated: a location of a damaged index must not ask for gigabytes.
        guard Int(last.length) <= segmentSize, start < segmentSize else { throw .damaged(.record(first)) }
        let length = (last.end - start + Format.block - 1) / Format.block * Format.block
        let buffer = pool.buffer(capacity: length)
        defer { withExtendedLifetime(buffer) {} }
        do {
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<length])
            buffer.count =
                inMemory
                ? try storage.readCached(first.segment, at: start, into: target)
                : try fill(target, from: first.segment, at: start, waits)
        } catch {
            guard error.code == ENOENT else { throw .io(error) }
            throw state.withLock({ $0.segments[first.segment] == nil }) ? .recycled(first) : .damaged(.record(first))
        }
        var records: [Record] = []
        records.reserveCapacity(run.count)
        for location in run {
            let offset = min(Int(location.offset) - start, buffer.count)
            let bytes = UnsafeRawBufferPointer(rebasing: buffer.bytes[offset...])
            guard let decoded = RecordFormat.decode(bytes), let header = decoded.header,
                decoded.storedLength == Int(location.length), RecordFormat.isWhole(decoded, bytes, seed: location.seed)
            else {
                // To tell why takes the disk.
                if inMemory { throw .io(StorageError(operation: .read, code: EAGAIN, segment: location.segment)) }
                throw try isRecycled(location) ? .recycled(location) : .damaged(.record(location))
            }
            let range = offset + decoded.headerLength..<offset + decoded.headerLength + decoded.storedLength
            records.append(Record(location: location, header: header, bytes: BufferSlice(buffer: buffer, range: range)))
        }
        return records
    }

    private func fill(
        _ target: UnsafeMutableRawBufferPointer,
        from segment: SegmentID,
        at start: Int,
        _ waits: (any DiskWaits)?
    ) throws(StorageError) -> Int {
        // Of long reads a few are as much as the disk can do, and more would only be in each other's way.
        guard let waits, target.count < LocalSegmentStorage.directReadBytes else {
            return try storage.read(segment, at: start, into: target)
        }
        if let count = try? storage.readCached(segment, at: start, into: target), count == target.count { return count }
        waits.beginWait()
        defer { waits.endWait() }
        return try storage.read(segment, at: start, into: target)
    }

    /// Whether the segment has begun another life since `location` was given out.
    private func isRecycled(_ location: RecordLocation) throws(LogError) -> Bool {
        let (isKnown, life) = state.withLock { state in
            let segment = state.segments[location.segment]
            return (segment != nil, segment?.life)
        }
        guard isKnown else { return true }
        if let life { return life.seed != location.seed }
        guard let header = try SegmentHeader.read(location.segment, identity: identity, from: storage) else {
            return false
        }
        state.withLock { $0.note(header) }
        return header.seed != location.seed
    }

    /// Whether the segment may still be in the life in which `location` was given out, and hold what is alive: false where that is over, as
    /// far as is known without reading.
    public func mayHold(_ location: RecordLocation) -> Bool {
        state.withLock { state in
            guard let segment = state.segments[location.segment] else { return false }
            switch segment.use {
            // Nothing in it is alive.
            case .free, .next: return false
            case .open, .closed: break
            }
            return segment.life.map { $0.seed == location.seed } ?? true
        }
    }
}

extension RecordLocation {
    /// Where the record ends at the latest, if it has the longest of headers.
    fileprivate var end: Int { Int(offset) + Format.longestHeader + Int(length) }
}
