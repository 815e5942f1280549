import CairnCore
import CairnLog

/// What a walk through all of a shard's index found.
public struct AuditReport: Sendable {
    /// For people; each names the place. Empty where everything agrees.
    public internal(set) var problems: [String] = []
    public internal(set) var volumes = 0
    public internal(set) var snapshots = 0
    /// Entries of manifests.
    public internal(set) var entries = 0
    /// Chunks of the dictionary, and how many of them nothing names.
    public internal(set) var chunks = 0
    public internal(set) var unreferencedChunks = 0
    /// Chunks that are kept by a lease, whether a manifest names them or not.
    public internal(set) var leases = 0
    /// Bytes of chunk and patch records that are in use.
    public internal(set) var liveBytes: UInt64 = 0

    /// A damaged index must not fill the memory with what is wrong with it.
    static let maximumProblems = 1000

    mutating func note(_ problem: @autoclosure () -> String) {
        if problems.count < Self.maximumProblems { problems.append(problem()) }
    }
}

extension Shard {
    /// Counts everything again that the index keeps count of, as it is at this moment, and names each difference. Any thread;
    /// changes go on meanwhile. Reads the index only, no record.
    ///
    /// Takes about 150 bytes of memory for each chunk of the dictionary.
    /// - Throws: `.damaged` where a value does not decode, `.io`.
    public func audit() throws(StoreError) -> AuditReport {
        let before = segmentsInUse
        var audit = Audit(view: makeView())
        try audit.index()
        // The log goes on: what was in use before the view or after it may be named by it.
        try audit.segments(before.union(segmentsInUse))
        return audit.report
    }

    private var segmentsInUse: Set<SegmentID> { Set(log.segments.filter { $0.use != .free }.map(\.id)) }
}

/// One walk; its steps build on each other, in the order in which they stand here and in `Audit+Records`.
struct Audit {
    let view: ReadView
    var report = AuditReport()
    var lineages: [LineageID: LineageRecord] = [:]
    /// Of each lineage, what is retained, in rising order.
    var retained: [LineageID: [DataVersion]] = [:]
    var retainedRecords: [VersionKey: RetainedRecord] = [:]
    /// Lineages for which work is written down: what it will free is still there.
    var busy: Set<LineageID> = []
    var references: [ChunkKey: UInt64] = [:]
    var liveBytes: [SegmentID: UInt64] = [:]
    /// Places of records, each of which one chunk or part names.
    var places: Set<UInt64> = []
    var patched: [PatchedPlace: Int] = [:]
    /// What the written maps say; marks are taken out as entries are found.
    var written: [WrittenPlace: WrittenMap] = [:]
    /// What accounts have, as far as it was found.
    var counted: [AccountNumber: AccountUsage] = [:]
    /// Of each entry on the dead list, the earliest version that covered it.
    var deaths: [PatchedPlace: DataVersion] = [:]

    struct VersionKey: Hashable {
        let lineage: LineageID
        let version: DataVersion
    }

    init(view: ReadView) { self.view = view }

    /// Goes through a table in the order of its keys.
    func walk(
        _ table: Table,
        _ body: (inout KeyReader, UnsafeRawBufferPointer) throws(StoreError) -> Void
    ) throws(StoreError) {
        let cursor = view.index.makeCursor()
        cursor.seek(Key(table).bytes)
        while try cursor.isValid(), var key = KeyReader(cursor.key, table) {
            try body(&key, cursor.value)
            cursor.next()
        }
    }

    // MARK: Lineages

    mutating func lineagesAndVersions() throws(StoreError) {
        var found: [LineageID: LineageRecord] = [:]
        try walk(.lineages) { (key, value) throws(StoreError) in
            if let id = key.take(UInt64.self) { found[LineageID(id)] = try LineageRecord.decode(value) }
        }
        lineages = found
        var versions: [VersionKey: RetainedRecord] = [:]
        var order: [LineageID: [DataVersion]] = [:]
        try walk(.retained) { (key, value) throws(StoreError) in
            guard let lineage = key.take(UInt64.self), let version = key.take(UInt64.self) else { return }
            let place = VersionKey(lineage: LineageID(lineage), version: DataVersion(version))
            versions[place] = try RetainedRecord.decode(value)
            order[place.lineage, default: []].append(place.version)
        }
        retainedRecords = versions
        retained = order
        var working: Set<LineageID> = []
        try walk(.work) { (_, value) throws(StoreError) in
            switch try WorkItem.decode(value) {
            case .releaseVersion(let lineage, _), .trimHead(let lineage), .cancelVersion(let lineage, _):
                working.insert(lineage)
            case .seal, .settle, .forgetExpected: break
            }
        }
        busy = working
        checkClones()
    }

    private mutating func checkClones() {
        var clones: [VersionKey: UInt32] = [:]
        for (id, lineage) in lineages {
            if let parent = lineage.parent {
                clones[VersionKey(lineage: parent.lineage, version: parent.version), default: 0] += 1
                if lineages[parent.lineage] == nil {
                    report.note("lineage \(id) stands on lineage \(parent.lineage), which is missing")
                }
            }
            if !lineage.hasHead, retained[id] == nil, !busy.contains(id) {
                report.note("lineage \(id) has no volume and no version that is retained, and nothing removes it")
            }
        }
        for (place, record) in retainedRecords {
            let count = clones.removeValue(forKey: place) ?? 0
            if lineages[place.lineage] == nil {
                report.note("a version of lineage \(place.lineage) is retained, which is missing")
            }
            if record.clones != count {
                report.note(
                    "lineage \(place.lineage) version \(place.version) counts \(record.clones) clones; there are \(count)"
                )
            }
            if !record.isHeld {
                report.note("lineage \(place.lineage) version \(place.version) is retained for nothing")
            }
        }
        for place in clones.keys {
            report.note("lineage \(place.lineage) version \(place.version) has clones and is not retained")
        }
    }

    /// Whether a version from `birth` up to, but not including, `death` is retained.
    func isRetained(_ lineage: LineageID, from birth: DataVersion, before death: DataVersion) -> Bool {
        retained[lineage]?.contains { $0 >= birth && $0 < death } ?? false
    }

    // MARK: Manifests

    mutating func manifests() throws(StoreError) {
        var walk = ManifestWalk()
        let cursor = view.index.makeCursor()
        cursor.seek(Key(.manifests).bytes)
        while try cursor.isValid(), var key = KeyReader(cursor.key, .manifests) {
            guard let lineage = key.take(UInt64.self), let chunk = key.take(UInt64.self),
                let inverted = key.take(UInt64.self)
            else { break }
            let place = PatchedPlace(
                lineage: LineageID(lineage),
                version: DataVersion(~inverted),
                chunk: ChunkIndex(chunk)
            )
            try check(place, try ManifestEntry.decode(cursor.value), &walk)
            cursor.next()
        }
    }

    /// Where the walk is: a chunk's entries come one after the other, the newest first.
    private struct ManifestWalk {
        var place: (lineage: LineageID, chunk: ChunkIndex)?
        /// The nearest newer entry that stands alone.
        var cover: DataVersion?
    }

    private mutating func check(
        _ place: PatchedPlace,
        _ entry: ManifestEntry,
        _ walk: inout ManifestWalk
    ) throws(StoreError) {
        report.entries += 1
        guard let lineage = lineages[place.lineage] else {
            return report.note("\(place) is of a lineage that is missing")
        }
        if walk.place.map({ $0 != (place.lineage, place.chunk) }) ?? true {
            walk = ManifestWalk(place: (place.lineage, place.chunk))
        }
        if case .data(let fingerprint, let owner) = entry.base {
            references[ChunkKey(account: lineage.account, owner: owner, fingerprint), default: 0] += 1
        }
        if !entry.patches.isEmpty { patched[place] = entry.patches.count }
        let run = WrittenPlace(place.lineage, place.version, place.chunk)
        if written[run]?[place.chunk] == true {
            written[run]?[place.chunk] = false
        } else {
            report.note("\(place) is not in its written map")
        }
        if entry.base == .inherit, entry.patches.isEmpty { report.note("\(place) says nothing") }
        for patch in entry.patches {
            guard let location = patch.location else { continue }
            count(location)
            counted[lineage.account, default: AccountUsage()].storedBytes += patch.storedBytes
        }
        if lineage.cancelled.contains(place.version) {
            // Shown to clones of its own version alone; covers nothing.
            if retainedRecords[VersionKey(lineage: place.lineage, version: place.version)] == nil,
                !busy.contains(place.lineage)
            {
                report.note("nothing reads \(place), which was cancelled, and nothing frees it")
            }
            return
        }
        checkReader(of: place, lineage, coveredBy: walk.cover)
        if entry.isFull { walk.cover = place.version }
    }

    /// A record that is in use.
    mutating func count(_ location: RecordLocation) {
        liveBytes[location.segment, default: 0] += UInt64(location.length)
        let place = UInt64(location.segment.rawValue) << 32 | UInt64(location.offset)
        if !places.insert(place).inserted { report.note("the record in \(location) is named twice") }
    }

    /// Whether something reads the entry, and, where a newer one covers it, whether the dead list knows that.
    private mutating func checkReader(
        of place: PatchedPlace,
        _ lineage: LineageRecord,
        coveredBy cover: DataVersion?
    ) {
        // What is being freed has no readers any more.
        if busy.contains(place.lineage) { return }
        let end = cover ?? DataVersion(.max)
        let isRead = isRetained(place.lineage, from: place.version, before: end) || (cover == nil && lineage.hasHead)
        if !isRead { return report.note("nothing reads \(place), and nothing frees it") }
        // What covered it first may be gone already: the death that was noted then frees it as well.
        guard let cover else { return }
        if deaths[place].map({ $0 > cover }) ?? true {
            report.note("\(place) is covered by version \(cover) and not on the dead list")
        }
    }
}

extension PatchedPlace: CustomStringConvertible {
    var description: String { "chunk \(chunk) of lineage \(lineage) at version \(version)" }
}
