public import CairnCore
import CairnLog

/// A read of ranges of a volume or snapshot, a bounded part of it at a time: they may be a sector each of thousands of chunks. A value: it
/// may go on on another thread. All of it is as the index has it at one point of time.
public struct RangeRead: Sendable {
    private let ranges: [Range<UInt64>]
    private var reading: ChunkReading
    /// Nil: it begins, or begins anew.
    private var progress: ChunkReading.Progress?
    private var views = 0
    private var isSynced = false
    /// Data moves while it is read: so often it is looked for where it is now.
    private static let viewLimit = 8

    /// - Parameters:
    ///   - ranges: bytes, within the source's size.
    ///   - acceptsLZ4: whether whole chunks may be given as they are stored.
    ///   - known: whole chunks with these fingerprints are only named.
    ///   - rule: which data the reader may have; nil: all.
    ///   - inMemory: never waits for the disk: what is not in memory, or much, is refused with `.notInMemory`.
    ///   - waits: told of waits for the disk.
    ///   - followsHints: whether the manifest's word for where a chunk is may do: all but those who look into what the dictionary says.
    public init(
        _ shard: Shard,
        _ source: ReadSource,
        _ ranges: [Range<UInt64>],
        acceptsLZ4: Bool,
        known: Set<Fingerprint> = [],
        rule: ExportRule? = nil,
        inMemory: Bool = false,
        waits: (any DiskWaits)? = nil,
        followsHints: Bool = true
    ) {
        self.ranges = ranges
        reading = ChunkReading(
            shard: shard,
            source: source,
            acceptsLZ4: acceptsLZ4,
            known: known,
            rule: rule,
            followsHints: followsHints,
            inMemory: inMemory,
            waits: waits
        )
    }

    /// What was read, in the order of the ranges: complete once ``step()`` has said so.
    public var pieces: [ReadPiece] { progress?.pieces ?? [] }

    /// The most that a step reads of chunks, in bytes, if they have no parts. More than the longest answer: so what is read as a whole is
    /// one step.
    public static let stepBytes = ChunkReading.bytesAtOnce

    /// Reads on. Any thread; blocks on the disk.
    /// - Returns: whether that was all.
    /// - Throws: `.damaged` naming offset and fingerprint (SPEC D4), `.forbidden` (D5), `.fenced`, `.io`.
    public mutating func step() throws(StoreError) -> Bool {
        let shard = reading.shard
        do throws(ChunkReading.Failure) {
            return try advance()
        } catch {
            progress = nil
            try shard.checkOpen()
            switch error {
            case .recycled(let location): reading.gone.insert(location)
            case .misled: reading.followsHints = false
            case .failed(let failure):
                // What is not synced yet may just have been lost by a sync that fails: that is no damage, but a reason to fence.
                guard failure.code == .damaged, !isSynced, !reading.inMemory else { throw failure }
                try shard.waited(shard.flush)
                isSynced = true
            }
            guard views < Self.viewLimit else {
                throw StoreError(.io, "the data moves faster than it can be read")
            }
            return false
        }
    }

    private mutating func advance() throws(ChunkReading.Failure) -> Bool {
        var progress: ChunkReading.Progress
        if let begun = self.progress {
            progress = begun
        } else {
            views += 1
            progress = try reading.begin(ranges, in: reading.shard.makeView(inMemory: reading.inMemory))
        }
        self.progress = nil
        try reading.advance(&progress)
        self.progress = progress
        return progress.isComplete
    }
}

extension Shard {
    /// Reads all of it on this thread: see ``RangeRead``.
    public func read(
        _ source: ReadSource,
        _ ranges: [Range<UInt64>],
        acceptsLZ4: Bool,
        rule: ExportRule? = nil,
        followsHints: Bool = true
    ) throws(StoreError) -> [ReadPiece] {
        var read = RangeRead(
            self,
            source,
            ranges,
            acceptsLZ4: acceptsLZ4,
            rule: rule,
            followsHints: followsHints
        )
        while try !read.step() {}
        return read.pieces
    }
}
