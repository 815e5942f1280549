import CairnCore

/// The chunks that any of some versions wrote, in order, by the written maps: what lies in between is not looked at.
struct WrittenSince {
    /// Runs of chunks that are gathered at a time: bounds the memory, and lets each version be looked up once for many runs.
    private static let windowRuns: UInt64 = 256

    private let view: ReadView
    private var ranges: [(lineage: LineageID, versions: ClosedRange<DataVersion>)] = []
    /// What is known: the runs from `start` up to `end`, of which only those are here in which something was written.
    private var window: [UInt64: WrittenMap] = [:]
    private var start: UInt64 = 0
    private var end: UInt64 = 0
    /// The first run behind the window in which something was written; nil where there is none.
    private var following: UInt64?

    init(_ view: ReadView) { self.view = view }

    mutating func add(_ lineage: LineageID, _ versions: ClosedRange<DataVersion>) {
        ranges.append((lineage, versions))
    }

    /// The first chunk from `chunk` on that one of the versions wrote.
    mutating func next(from chunk: ChunkIndex) throws(StoreError) -> ChunkIndex? {
        var run = chunk.rawValue / UInt64(WrittenMap.chunks)
        while true {
            if run < start || run >= end { try load(from: run) }
            for known in window.keys.sorted() where known >= run {
                if let found = window[known]!.chunks(of: known).first(where: { $0 >= chunk }) { return found }
            }
            guard let following else { return nil }
            run = following
        }
    }

    private mutating func load(from run: UInt64) throws(StoreError) {
        (window, start, end, following) = ([:], run, run + Self.windowRuns, nil)
        for range in ranges { try gather(range.lineage, range.versions) }
    }

    private mutating func gather(_ lineage: LineageID, _ versions: ClosedRange<DataVersion>) throws(StoreError) {
        let cursor = view.seeker
        var version = versions.lowerBound
        while version <= versions.upperBound {
            cursor.seek(Key.written(lineage, version, run: start))
            guard let found = try place(cursor, lineage), found.version <= versions.upperBound else { return }
            if found.version > version, found.run < start {
                version = found.version
                continue
            }
            version = found.version
            while let place = try place(cursor, lineage), place.version == version {
                guard place.run < end else {
                    following = min(following ?? place.run, place.run)
                    break
                }
                window[place.run, default: WrittenMap()].formUnion(try WrittenMap(cursor.value))
                cursor.next()
            }
            version = version.next
        }
    }

    private func place(_ cursor: IndexCursor, _ lineage: LineageID) throws(StoreError) -> (
        version: DataVersion, run: UInt64
    )? {
        guard try cursor.isValid(), var key = KeyReader(cursor.key, .written),
            key.take(UInt64.self) == lineage.rawValue, let version = key.take(UInt64.self),
            let run = key.take(UInt64.self)
        else { return nil }
        return (DataVersion(version), run)
    }
}

extension ManifestReader {
    /// Whether any of the lineage's versions up to this one has an entry.
    func hasWritten(_ lineage: LineageID, upTo version: DataVersion) throws(StoreError) -> Bool {
        let cursor = seeker
        cursor.seek(Key.written(lineage, DataVersion(0), run: 0))
        guard try cursor.isValid(), var key = KeyReader(cursor.key, .written),
            key.take(UInt64.self) == lineage.rawValue,
            let first = key.take(UInt64.self)
        else { return false }
        return first <= version.rawValue
    }
}

extension Key {
    fileprivate static func written(_ lineage: LineageID, _ version: DataVersion, run: UInt64) -> [UInt8] {
        Key(.written).then(lineage.rawValue).then(version.rawValue).then(run).bytes
    }
}
