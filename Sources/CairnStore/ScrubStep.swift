import CairnCore
import CairnCrypto
import CairnLog

/// One step of a scrub: the next keys of the index, RocksDB's checksums verified, and the records that they name.
///
/// The index leads, not the log: a segment that is gone, zeroed, of another place or of another time has every record in it
/// missing. Manifests must name chunks that the dictionary knows, and parts that are there.
struct ScrubStep {
    struct Result {
        /// Of records.
        var bytes = 0
        var indexBytes = 0
        /// Newly marked as damaged.
        var found = 0
        var indexProblem: String?
        /// Where to go on; nil at the end.
        var next: [UInt8]?
    }

    private static let keys = 2048
    private static let mostRecordBytes = 2 << 20
    private static let indexBytes = 1 << 20

    private let scrubber: Scrubber
    private let start: [UInt8]
    private let recordBytes: Int
    private var result = Result()
    private var chunks: [(key: ChunkKey, record: ChunkRecord)] = []
    private var parts: [StoredPart] = []
    private var missing: Set<ChunkKey> = []

    /// - Parameter rate: bytes each second: a slow scrub takes small steps.
    init(_ scrubber: Scrubber, from start: [UInt8], rate: Double) {
        (self.scrubber, self.start) = (scrubber, start)
        recordBytes = Int(min(max(rate, 65_536), Double(Self.mostRecordBytes)))
    }

    /// - Throws: where something else than the data fails.
    consuming func run() throws(StoreError) -> Result {
        try gather()
        let shard = scrubber.shard
        let (damaged, whole) = try check()
        var findings: [Scrubber.Finding] = []
        for key in damaged.chunks { findings += try scrubber.examine(.chunk(key)) }
        for key in missing { findings += try scrubber.examine(.missing(key)) }
        for part in damaged.parts {
            if let finding = try scrubber.examine(part) { findings.append(finding) }
        }
        result.found = try scrubber.mark(findings)
        guard shard.damage.isPossible else { return result }
        let view = shard.makeView()
        var back: [Damaged] = []
        for (key, record) in whole.chunks where try view.damage(of: key, record) != nil {
            back.append(.chunk(key, record.location))
        }
        for part in whole.parts where try view.damage(of: part.location) != nil {
            back.append(.part(part.place, part.location))
        }
        try scrubber.unmark(back)
        return result
    }

    // MARK: The index

    private mutating func gather() throws(StoreError) {
        let view = scrubber.shard.makeView()
        var at = start
        do throws(StoreError) {
            let cursor = view.scanCursor()
            cursor.seek(at)
            var count = 0
            while try cursor.isValid() {
                let (key, value) = (cursor.key, cursor.value)
                at = Array(key)
                guard count < Self.keys, result.bytes < recordBytes, result.indexBytes < Self.indexBytes else {
                    result.next = at
                    return
                }
                count += 1
                result.indexBytes += key.count + value.count
                do throws(StoreError) { try take(key, value, view) } catch {
                    guard error.code == .damaged else { throw error }
                    result.indexProblem = result.indexProblem ?? "key \(Hex.encode(at.prefix(64))): \(error)"
                }
                cursor.next()
            }
        } catch {
            guard error.code == .damaged else { throw error }
            // RocksDB does not say how much of the file is lost: the rest of the table is passed over.
            result.indexProblem = result.indexProblem ?? "behind key \(Hex.encode(at.prefix(64))): \(error)"
            let table = at.first ?? 0
            result.next = table == .max ? nil : [table + 1]
        }
    }

    private mutating func take(
        _ key: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        _ view: ReadView
    ) throws(StoreError) {
        if var reader = KeyReader(key, .chunks) {
            guard let chunk = reader.takeChunk() else { throw StoreError(.damaged, "no key of a chunk") }
            let record = try ChunkRecord.decode(value)
            result.bytes += Int(record.location.length)
            chunks.append((chunk, record))
        } else if var reader = KeyReader(key, .manifests) {
            guard let lineage = reader.take(UInt64.self), let chunk = reader.take(UInt64.self),
                let inverted = reader.take(UInt64.self)
            else { throw StoreError(.damaged, "no key of a manifest") }
            let place = PatchedPlace(
                lineage: LineageID(lineage),
                version: DataVersion(~inverted),
                chunk: ChunkIndex(chunk)
            )
            try take(try ManifestEntry.decode(value), of: place, view)
        }
    }

    private mutating func take(_ entry: ManifestEntry, of place: PatchedPlace, _ view: ReadView) throws(StoreError) {
        for part in entry.patches.compactMap({ StoredPart($0, of: place) }) {
            result.bytes += Int(part.location.length)
            parts.append(part)
        }
        guard case .data(let fingerprint, let owner) = entry.base else { return }
        let key = ChunkKey(account: try view.lineage(place.lineage).account, owner: owner, fingerprint)
        // In one view: a manifest that names what the dictionary lacks is damage, and no race.
        if try view.chunk(key) == nil { missing.insert(key) }
    }

    // MARK: The log

    private struct Failed {
        var chunks: Set<ChunkKey> = []
        var parts: [StoredPart] = []
    }

    private struct Whole {
        var chunks: [(ChunkKey, ChunkRecord)] = []
        var parts: [StoredPart] = []
    }

    /// Reads in the order in which the records lie on the disk: together where all are well, else one by one.
    private func check() throws(StoreError) -> (Failed, Whole) {
        let log = scrubber.shard.log
        var (failed, whole) = (Failed(), Whole())
        let order = (chunks.map(\.record.location) + parts.map(\.location))
            .sorted { ($0.segment, $0.offset) < ($1.segment, $1.offset) }
        var records: [RecordLocation: Record] = [:]
        if let read = try? log.read(order) { for record in read { records[record.location] = record } }
        let check = RecordCheck(log: log)
        for (key, record) in chunks {
            let isWhole =
                if let read = records[record.location] { RecordCheck.cause(key, record, read) == nil } else {
                    try check.cause(key, record) == nil
                }
            if isWhole { whole.chunks.append((key, record)) } else { failed.chunks.insert(key) }
        }
        for part in parts {
            let isWhole =
                if let read = records[part.location] { RecordCheck.cause(part, read) == nil } else {
                    try check.cause(part) == nil
                }
            if isWhole { whole.parts.append(part) } else { failed.parts.append(part) }
        }
        return (failed, whole)
    }
}
