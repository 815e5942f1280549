public import CairnCore
import CairnCrypto
import CairnLog

/// What is read: a volume at its present version, or a snapshot.
public struct ReadSource: Sendable, Hashable {
    public let lineage: LineageID
    public let version: DataVersion
    public let size: UInt64
    public let chunkSize: ChunkSize

    public init(_ volume: VolumeRecord) {
        (lineage, version, size, chunkSize) = (volume.lineage, volume.dataVersion, volume.size, volume.chunkSize)
    }
    public init(_ snapshot: SnapshotRecord) {
        (lineage, version, size, chunkSize) = (snapshot.lineage, snapshot.version, snapshot.size, snapshot.chunkSize)
    }
}

/// A part of what was read, within one chunk.
public struct ReadPiece: Sendable {
    public enum Content: Sendable {
        case hole
        case zeros
        /// The reader named its fingerprint as known.
        case known
        /// The bytes, and their CRC32C where it was at hand.
        case plain(BufferSlice, checksum: UInt32?)
        /// A whole chunk as stored, and the CRC32C of its uncompressed bytes.
        case lz4(BufferSlice, checksum: UInt32)

        /// What is in memory for it.
        var bytes: BufferSlice? {
            get {
                switch self {
                case .hole, .zeros, .known: nil
                case .plain(let bytes, _), .lz4(let bytes, _): bytes
                }
            }
            set {
                guard let newValue else { return }
                switch self {
                case .hole, .zeros, .known: break
                case .plain(_, let checksum): self = .plain(newValue, checksum: checksum)
                case .lz4(_, let checksum): self = .lz4(newValue, checksum: checksum)
                }
            }
        }
    }
    /// Bytes from the volume's start.
    public let offset: UInt64
    public let length: Int
    public internal(set) var content: Content
    /// The chunk's, where the piece is all of it and no parts wait to be merged.
    public let fingerprint: Fingerprint?
}

/// Reads chunks: index, then records, then bytes. Any thread; blocks on the disk.
struct ChunkReading: Sendable {
    let shard: Shard
    let source: ReadSource
    /// Whether whole chunks may be given as stored.
    var acceptsLZ4 = false
    /// Whole chunks with these fingerprints are not read.
    var known: Set<Fingerprint> = []
    /// Which data the reader may have; nil: all.
    var rule: ExportRule?
    /// Records that were not to be had before the view was made that is asked: if it names them still, they are not anywhere else.
    var gone: Set<RecordLocation> = []
    /// Whether records are first looked for where the manifest's entries say that they were (``ManifestEntry/hint``).
    var followsHints = true
    /// Never waits for the disk.
    var inMemory = false
    /// Told of waits for the disk.
    var waits: (any DiskWaits)?
    /// The most that is read and checked while others wait: some tens of microseconds.
    private static let bytesInMemory = 96 << 10

    /// The chunks that are in memory at a time, with their parts, in bytes: ranges may be a sector each of many chunks. One chunk at least;
    /// and more than the longest answer, so that what is read as a whole is read at once.
    static let bytesAtOnce = 2 * Limits.payloadBytes

    /// A part of one chunk that is to be read, and what the index says of it.
    fileprivate struct Wanted: Sendable {
        /// Its place in the order of the ranges.
        let place: Int
        let index: ChunkIndex
        let offset: UInt64
        let length: Int
        let isWhole: Bool
        let chunk: ResolvedChunk
        /// Where the chunk's record is; nil of what has none.
        let location: RecordLocation?
        /// Whether that is what the entry says, not the dictionary.
        let isHint: Bool

        func names(_ location: RecordLocation) -> Bool {
            self.location == location || chunk.patches.contains { $0.location == location }
        }
    }

    /// How far a read is.
    struct Progress: Sendable {
        /// Chunk by chunk, whatever the order of the ranges.
        fileprivate var wanted: ArraySlice<Wanted>
        /// By their places; nil where they are yet to be read.
        fileprivate var read: [ReadPiece?]

        var isComplete: Bool { wanted.isEmpty }
        /// In the order of the ranges.
        var pieces: [ReadPiece] { read.compactMap(\.self) }
    }

    enum Failure: Error {
        /// A segment was recycled between the index's answer and the read: a newer view knows where the bytes are now.
        case recycled(RecordLocation)
        /// Something is not as it should be where a hint has led: the dictionary knows better.
        case misled
        case failed(StoreError)
    }

    /// Asks the index about all that is to be read.
    /// - Parameter ranges: within the source's size.
    func begin(_ ranges: [Range<UInt64>], in view: ManifestReader) throws(Failure) -> Progress {
        var wanted: [Wanted]
        do throws(StoreError) { wanted = try plan(ranges, view) } catch { throw .failed(error) }
        let isInOrder = zip(wanted, wanted.dropFirst()).allSatisfy { $0.index <= $1.index }
        if !isInOrder { wanted.sort { ($0.index, $0.place) < ($1.index, $1.place) } }
        return Progress(wanted: wanted[...], read: Array(repeating: nil, count: wanted.count))
    }

    /// Reads as much as is in memory at a time.
    func advance(_ progress: inout Progress) throws(Failure) {
        let group = progress.wanted.prefix(countAtOnce(progress.wanted))
        var pieces: [ReadPiece] = []
        pieces.reserveCapacity(group.count)
        do throws(Failure) {
            let records = try load(group)
            let expanded = ExpandedChunk()
            for want in group { pieces.append(try piece(want, records, expanded)) }
        } catch {
            throw group.contains(where: \.isHint) && !inMemory ? .misled : error
        }
        Self.compact(&pieces)
        for (want, piece) in zip(group, pieces) { progress.read[want.place] = piece }
        progress.wanted = progress.wanted.dropFirst(group.count)
    }

    private func countAtOnce(_ wanted: ArraySlice<Wanted>) -> Int {
        var (count, bytes): (Int, UInt64) = (0, 0)
        var last: ChunkIndex?
        for want in wanted {
            if want.index != last, !isKnown(want) {
                bytes += want.location == nil && want.chunk.patches.isEmpty ? 0 : UInt64(source.chunkSize.bytes)
                bytes += want.chunk.patches.reduce(0) { $0 + UInt64($1.location?.length ?? 0) }
                guard bytes <= UInt64(Self.bytesAtOnce) || count == 0 else { break }
                last = want.index
            }
            count += 1
        }
        return count
    }

    /// Copies what would keep more in memory than it has itself until the answer has left: small parts of chunks, and of what was read
    /// together.
    private static func compact(_ pieces: inout [ReadPiece]) {
        var used: [ObjectIdentifier: Int] = [:]
        for bytes in pieces.lazy.compactMap(\.content.bytes) {
            used[ObjectIdentifier(bytes.buffer), default: 0] += bytes.count
        }
        func isSparse(_ bytes: BufferSlice) -> Bool { used[ObjectIdentifier(bytes.buffer)]! < bytes.buffer.count / 2 }
        let total = pieces.lazy.compactMap(\.content.bytes).filter(isSparse).reduce(0) { $0 + $1.count }
        guard total > 0 else { return }
        let target = BufferPool.shared.buffer(capacity: total)
        for index in pieces.indices {
            guard let bytes = pieces[index].content.bytes, isSparse(bytes) else { continue }
            let place = target.count..<target.count + bytes.count
            withExtendedLifetime(bytes) {
                UnsafeMutableRawBufferPointer(rebasing: target.memory[place]).copyMemory(from: bytes.bytes)
            }
            target.count = place.upperBound
            pieces[index].content.bytes = BufferSlice(buffer: target, range: place)
        }
    }

    /// The chunk that was put together last: the pieces of one chunk follow each other.
    private final class ExpandedChunk {
        private var last: (chunk: ChunkIndex, slice: BufferSlice)?

        func slice(of chunk: ChunkIndex, _ make: () throws(Failure) -> Buffer) throws(Failure) -> BufferSlice {
            if let last, last.chunk == chunk { return last.slice }
            let slice = try make().slice
            last = (chunk, slice)
            return slice
        }
    }

    private func plan(_ ranges: [Range<UInt64>], _ view: ManifestReader) throws(StoreError) -> [Wanted] {
        var wanted: [Wanted] = []
        for range in ranges {
            var offset = range.lowerBound
            while offset < range.upperBound {
                let index = source.chunkSize.chunk(at: offset)
                let start = source.chunkSize.offset(of: index)
                let end = min(start + UInt64(source.chunkSize.bytes), source.size)
                let stop = min(end, range.upperBound)
                let resolved = try view.resolve(source.lineage, source.version, index)
                try rule?.check(resolved)
                var (location, isHint): (RecordLocation?, Bool) = (nil, false)
                if case .data(let key, _) = resolved.base {
                    if followsHints, let hint = resolved.hint, shard.hints.mayFollow(hint, to: key) {
                        (location, isHint) = (hint, true)
                    } else if let record = try view.chunk(key) {
                        location = record.location
                    } else {
                        shard.scrubber.suspect(.missing(key))
                        throw damaged(offset, key.fingerprint, "it is not in the dictionary")
                    }
                }
                wanted.append(
                    Wanted(
                        place: wanted.count,
                        index: index,
                        offset: offset,
                        length: Int(stop - offset),
                        isWhole: offset == start && stop == end,
                        chunk: resolved,
                        location: location,
                        isHint: isHint
                    )
                )
                offset = stop
            }
        }
        return wanted
    }

    private func isKnown(_ want: Wanted) -> Bool {
        guard want.isWhole, want.chunk.patches.isEmpty, case .data(let key, _) = want.chunk.base else { return false }
        return known.contains(key.fingerprint)
    }

    /// All records that are wanted, in the order in which they lie on the disk.
    private func load(_ wanted: ArraySlice<Wanted>) throws(Failure) -> [RecordLocation: Record] {
        var locations: Set<RecordLocation> = []
        for want in wanted where !isKnown(want) {
            if let location = want.location { locations.insert(location) }
            for patch in want.chunk.patches { if let location = patch.location { locations.insert(location) } }
        }
        if inMemory, locations.reduce(0, { $0 + Int($1.length) }) > Self.bytesInMemory {
            throw .failed(StoreError(.notInMemory, "it takes long"))
        }
        let sorted = locations.sorted { ($0.segment, $0.offset) < ($1.segment, $1.offset) }
        do throws(LogError) {
            var records: [RecordLocation: Record] = [:]
            for record in try shard.log.read(sorted, inMemory: inMemory, waits: waits) {
                records[record.location] = record
            }
            return records
        } catch {
            switch error {
            case .recycled(let location):
                throw gone.contains(location) ? .failed(blame(location, wanted)) : .recycled(location)
            case .damaged(.record(let location)): throw .failed(blame(location, wanted))
            default: throw .failed(StoreError(error))
            }
        }
    }

    /// Names the chunk whose record is damaged (SPEC D4).
    private func blame(_ location: RecordLocation, _ wanted: ArraySlice<Wanted>) -> StoreError {
        let victim = wanted.first { $0.names(location) }
        guard let victim else { return StoreError(.damaged, "a record is damaged: \(location)") }
        guard victim.location == location, case .data(let key, _) = victim.chunk.base else {
            suspectParts(of: victim)
            return damaged(victim.offset, nil, "a part of it is damaged")
        }
        if !victim.isHint { shard.scrubber.suspect(.chunk(key)) }
        return damaged(victim.offset, key.fingerprint, "its record fails its checksum")
    }

    /// A chunk that cannot be given out though its records are whole.
    private func lost(_ want: Wanted, _ fingerprint: Fingerprint?, _ what: String) -> Failure {
        if case .data(let key, _) = want.chunk.base, fingerprint != nil {
            if !want.isHint { shard.scrubber.suspect(.chunk(key)) }
        } else {
            suspectParts(of: want)
        }
        return .failed(damaged(want.offset, fingerprint, what))
    }

    private func suspectParts(of want: Wanted) {
        shard.scrubber.suspect(.parts(source.lineage, source.version, want.index))
    }

    private func damaged(_ offset: UInt64, _ fingerprint: Fingerprint?, _ what: String) -> StoreError {
        StoreError(
            .damaged,
            "data lost at offset \(offset), fingerprint \(fingerprint.map(\.description) ?? "unknown"): \(what)"
        )
    }

    private func piece(
        _ want: Wanted,
        _ records: [RecordLocation: Record],
        _ expanded: ExpandedChunk
    ) throws(Failure) -> ReadPiece {
        var fingerprint: Fingerprint?
        if want.isWhole, want.chunk.patches.isEmpty, case .data(let key, _) = want.chunk.base {
            fingerprint = key.fingerprint
        }
        let content: ReadPiece.Content
        if isKnown(want) {
            content = .known
        } else if want.chunk.patches.isEmpty {
            switch want.chunk.base {
            case .hole: content = .hole
            case .zeros: content = .zeros
            case .data(let key, _): content = try stored(want, key.fingerprint, records, expanded)
            }
        } else {
            let whole = try expanded.slice(of: want.index) { () throws(Failure) in try patched(want, records) }
            content = .plain(part(of: whole, want), checksum: nil)
        }
        return ReadPiece(offset: want.offset, length: want.length, content: content, fingerprint: fingerprint)
    }

    private func stored(
        _ want: Wanted,
        _ fingerprint: Fingerprint,
        _ records: [RecordLocation: Record],
        _ expanded: ExpandedChunk
    ) throws(Failure) -> ReadPiece.Content {
        let (chunk, record) = try chunkRecord(want, fingerprint, records)
        // A chunk at a volume's old end is shorter than what it fills now: zeros follow.
        let fits = Int(chunk.rawLength) == want.length
        if want.isWhole, fits, chunk.codec == .lz4, acceptsLZ4 {
            return .lz4(record.bytes, checksum: chunk.rawChecksum)
        }
        let start = source.chunkSize.remainder(of: want.offset)
        if chunk.codec == .raw, start + want.length <= record.bytes.count {
            let isAll = want.length == record.bytes.count
            return .plain(record.bytes.part(start..<start + want.length), checksum: isAll ? chunk.rawChecksum : nil)
        }
        let whole = try expanded.slice(of: want.index) { () throws(Failure) in
            let whole = BufferPool.shared.buffer(capacity: source.chunkSize.bytes)
            try expand(want, fingerprint, chunk, record, into: whole)
            return whole
        }
        return .plain(part(of: whole, want), checksum: want.isWhole && fits ? chunk.rawChecksum : nil)
    }

    /// The bytes that are wanted of a whole chunk.
    private func part(of whole: BufferSlice, _ want: Wanted) -> BufferSlice {
        let start = source.chunkSize.remainder(of: want.offset)
        return whole.part(start..<start + want.length)
    }

    /// The record of a whole chunk. That it is whole was checked when it was read; that it is the one which the index means is
    /// checked here, for the index would lead there as surely if it were wrong. What its header says has its checksum's word.
    private func chunkRecord(
        _ want: Wanted,
        _ fingerprint: Fingerprint,
        _ records: [RecordLocation: Record]
    ) throws(Failure) -> (ChunkHeader, Record) {
        guard let location = want.location, let record = records[location] else {
            throw lost(want, fingerprint, "its record was not read")
        }
        guard case .data(let key, _) = want.chunk.base, case .chunk(let header) = record.header,
            header.fingerprint == fingerprint, header.account == key.account.rawValue,
            header.owner == key.owner.rawValue
        else { throw lost(want, fingerprint, "its record is of another chunk") }
        return (header, record)
    }

    /// The chunk's bytes, zeros behind them up to the chunk size.
    private func expand(
        _ want: Wanted,
        _ fingerprint: Fingerprint,
        _ chunk: ChunkHeader,
        _ record: Record,
        into whole: Buffer
    ) throws(Failure) {
        let rawLength = Int(chunk.rawLength)
        guard rawLength <= source.chunkSize.bytes else {
            throw lost(want, fingerprint, "it is longer than a chunk")
        }
        let target = UnsafeMutableRawBufferPointer(rebasing: whole.memory[0..<rawLength])
        switch chunk.codec {
        case .raw:
            guard record.bytes.count == rawLength else {
                throw lost(want, fingerprint, "its record has another length")
            }
            target.copyMemory(from: record.bytes.bytes)
        case .lz4:
            guard LZ4.decompress(record.bytes.bytes, into: target) else {
                throw lost(want, fingerprint, "its LZ4 data does not decode")
            }
        }
        let rest = UnsafeMutableRawBufferPointer(rebasing: whole.memory[rawLength..<source.chunkSize.bytes])
        rest.initializeMemory(as: UInt8.self, repeating: 0)
        whole.count = source.chunkSize.bytes
    }

    private func patched(_ want: Wanted, _ records: [RecordLocation: Record]) throws(Failure) -> Buffer {
        let whole = BufferPool.shared.buffer(capacity: source.chunkSize.bytes)
        if case .data(let key, _) = want.chunk.base {
            let (chunk, record) = try chunkRecord(want, key.fingerprint, records)
            try expand(want, key.fingerprint, chunk, record, into: whole)
        } else {
            whole.count = source.chunkSize.bytes
            UnsafeMutableRawBufferPointer(rebasing: whole.memory[0..<whole.count]).initializeMemory(
                as: UInt8.self,
                repeating: 0
            )
        }
        for patch in want.chunk.patches {
            guard patch.range.upperBound <= whole.count else {
                throw lost(want, nil, "a part of it is longer than a chunk")
            }
            let target = UnsafeMutableRawBufferPointer(rebasing: whole.memory[patch.range])
            guard let location = patch.location else {
                target.initializeMemory(as: UInt8.self, repeating: 0)
                continue
            }
            guard let record = records[location], record.bytes.count == target.count else {
                throw lost(want, nil, "a part of it is missing")
            }
            guard case .patch(let header) = record.header, header.start == patch.start,
                header.chunk == want.index
            else { throw lost(want, nil, "the record of a part is of something else") }
            target.copyMemory(from: record.bytes.bytes)
        }
        return whole
    }
}
