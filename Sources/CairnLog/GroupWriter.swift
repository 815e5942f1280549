internal import CairnCore

/// Brings a group to the storage: gathers headers and bytes in one aligned buffer, which goes out whenever it is full.
/// So the buffer stays in the processor's cache, and its size does not depend on the group's.
struct GroupWriter {
    /// Large enough for the disk's full throughput (DESIGN §5), small enough for the cache.
    static let bufferBytes = 1 << 20

    private let storage: any SegmentStorage
    private let segment: SegmentID
    private let buffer: Buffer
    private var offset: Int

    /// - Parameter offset: where in the segment the first byte goes, a multiple of 4096.
    private init(_ storage: any SegmentStorage, _ segment: SegmentID, offset: Int, buffer: Buffer) {
        self.storage = storage
        self.segment = segment
        self.offset = offset
        self.buffer = buffer
        buffer.count = 0
    }

    /// Writes a finished group, and before it the header of the segment that it opens. Nothing is synced.
    /// - Parameters:
    ///   - durable: the LSN up to which everything is known to be durable.
    ///   - buffer: at least 4096 bytes, a multiple of them.
    static func write(
        _ group: LogGroup,
        opening header: SegmentHeader?,
        durable: LSN,
        to storage: any SegmentStorage,
        buffer: Buffer
    ) throws(StorageError) {
        let place = group.place
        let start = header == nil ? place.offset : 0
        var writer = GroupWriter(storage, place.life.segment, offset: start, buffer: buffer)
        if let header { try writer.put(header.bytes) }
        let groupHeader = GroupHeader(
            length: group.length,
            lsn: place.lsn,
            epoch: place.epoch,
            incarnation: place.life.incarnation,
            durable: durable,
            records: group.entries.count + 1,
            commitOffset: group.end
        )
        try writer.put(groupHeader.bytes(seed: place.seed))
        for entry in group.entries {
            let bytes = entry.bytes.bytes
            try writer.put(RecordFormat.encode(entry.header, lsn: place.lsn, stored: bytes, seed: place.seed))
            try writer.put(bytes)
            try writer.pad(to: 8)
        }
        guard let commit = group.commit else { preconditionFailure("the group is not finished") }
        let commitHeader = commit.withUnsafeBytes {
            RecordFormat.encode(nil, lsn: place.lsn, stored: $0, seed: place.seed)
        }
        try writer.put(commitHeader)
        try writer.put(commit)
        try writer.pad(to: Format.block)
        try writer.flush()
    }

    private mutating func put(_ bytes: [UInt8]) throws(StorageError) {
        var at = 0
        while at < bytes.count {
            let count = min(bytes.count - at, buffer.memory.count - buffer.count)
            bytes.withUnsafeBytes { copy(UnsafeRawBufferPointer(rebasing: $0[at..<at + count])) }
            at += count
            try flushIfFull()
        }
    }

    private mutating func put(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        var at = 0
        while at < bytes.count {
            let count = min(bytes.count - at, buffer.memory.count - buffer.count)
            copy(UnsafeRawBufferPointer(rebasing: bytes[at..<at + count]))
            at += count
            try flushIfFull()
        }
    }

    private mutating func pad(to unit: Int) throws(StorageError) {
        let count = Format.align(buffer.count, to: unit) - buffer.count
        UnsafeMutableRawBufferPointer(rebasing: buffer.memory[buffer.count..<buffer.count + count]).initializeMemory(
            as: UInt8.self,
            repeating: 0
        )
        buffer.count += count
        try flushIfFull()
    }

    private func copy(_ bytes: UnsafeRawBufferPointer) {
        UnsafeMutableRawBufferPointer(rebasing: buffer.memory[buffer.count...]).copyMemory(from: bytes)
        buffer.count += bytes.count
    }

    private mutating func flushIfFull() throws(StorageError) {
        if buffer.count == buffer.memory.count { try flush() }
    }

    private mutating func flush() throws(StorageError) {
        guard buffer.count > 0 else { return }
        try storage.write(segment, at: offset, buffer.bytes)
        offset += buffer.count
        buffer.count = 0
    }
}
