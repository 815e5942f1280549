import CairnCore
import CairnLog

extension Store {
    /// Checks the shards of a store that no server has open, and mends what is damaged of their indexes. Nothing is deleted: what is
    /// no use is moved aside. Can be killed at any point, and run again.
    ///
    /// - Parameter report: called with each shard's when it is done.
    /// - Throws: `.notAStore`, `.locked`, `.newerFormat`, `.damaged` of the store's header, `.invalid` where there is no such shard,
    ///   `.io`, `.full`. What is wrong with a shard is not thrown, but in its report.
    public static func repair(
        at folder: String,
        _ options: RepairOptions = RepairOptions(),
        report: (ShardRepair) -> Void
    ) throws(StoreError) {
        let header = try StoreHeader.read(from: folder)
        if let shard = options.shard, shard >= header.shardCount {
            throw StoreError(.invalid, "the store has \(header.shardCount) shards: there is no shard \(shard)")
        }
        let lock = try FolderLock(folder)
        defer { lock.release() }
        let opening = ShardOpening(header: header, folder: folder, options: StoreOptions())
        for number in options.shard.map({ $0...$0 }) ?? 0...(header.shardCount - 1) {
            let repair = try ShardRepairing(ShardIndex(number), opening, options)
            try repair.run()
            report(repair.report)
        }
    }
}

/// One shard's repair.
final class ShardRepairing {
    let index: ShardIndex
    let opening: ShardOpening
    let options: RepairOptions
    let folder: String
    let identity: LogIdentity
    let storage: any SegmentStorage
    let checkpoints: CheckpointFolder
    var report: ShardRepair

    init(_ index: ShardIndex, _ opening: ShardOpening, _ options: RepairOptions) throws(StoreError) {
        (self.index, self.opening, self.options) = (index, opening, options)
        folder = ShardOpening.folder(of: index, in: opening.folder)
        identity = LogIdentity(store: opening.header.id, shard: index)
        storage = opening.options.storage(index, try ShardOpening.openStorage(folder))
        checkpoints = try CheckpointFolder(shard: folder, identity: identity)
        report = ShardRepair(index.rawValue)
    }

    var indexOptions: IndexDatabase.Options { opening.indexOptions(index) }
    /// The present index.
    var indexPath: String { folder + "/index" }
    /// One that is being made, of no use before it has its name.
    var freshPath: String { folder + "/index.new" }

    func run() throws(StoreError) {
        let survey: LogSurvey
        do throws(LogError) { survey = try LogSurvey(storage, identity: identity) } catch {
            return fail("\(StoreError(error))")
        }
        if !options.dryRun { try syncLog(survey) }
        try checkLog(survey)
        if survey.epoch == Epoch(0) { return }
        if IndexDatabase.exists(indexPath) {
            do throws(StoreError) {
                if try repairInPlace(survey) { return }
            } catch {
                // RocksDB calls it an I/O error where a file is missing.
                guard error.code == .damaged || error.code == .io else { throw error }
                find("the index is damaged: \(error.text)")
            }
        } else {
            find("the index is missing")
        }
        try rebuild(survey)
    }

    /// What is read must not be taken away by a power cut any more: an index that knows of more than the log has would be no use.
    private func syncLog(_ survey: LogSurvey) throws(StoreError) {
        for segment in survey.segments.sorted() {
            do throws(StorageError) { try storage.sync(segment) } catch {
                throw StoreError(.io, "the log cannot be synced: \(error)")
            }
        }
    }

    // MARK: Saying

    func find(_ text: String) { report.findings.append(text) }

    /// Says what is done, and does it unless it is a dry run.
    func act(_ text: String, _ body: () throws(StoreError) -> Void) throws(StoreError) {
        report.actions.append(text)
        report.outcome = options.dryRun ? .repairable : .repaired
        guard !options.dryRun else { return }
        try options.step(text)
        try body()
    }

    func fail(_ text: String) {
        find(text)
        report.outcome = .beyondRepair
    }

    // MARK: The log and the copies

    private func checkLog(_ survey: LogSurvey) throws(StoreError) {
        if survey.wholeSlots.contains(false) {
            find("a slot of the superblock is damaged; the other one is whole")
            try act("the superblock is written again") { () throws(StoreError) in
                try logCall { () throws(LogError) in try survey.mendSuperblock(in: storage) }
            }
        }
        for segment in survey.damagedHeaders { find("segment \(segment) has a damaged header") }
        for number in checkpoints.damaged {
            find("checkpoint \(number) has damaged contents")
            try act("checkpoint \(number) is moved aside") { () throws(StoreError) in
                try checkpoints.moveAside(number)
            }
        }
        for checkpoint in checkpoints.checkpoints {
            let problems = checkpoints.verify(checkpoint)
            if problems.isEmpty { continue }
            find("checkpoint \(checkpoint.number) is damaged: \(problems.joined(separator: ", "))")
            unusable.insert(checkpoint.number)
            try act("checkpoint \(checkpoint.number) is moved aside") { () throws(StoreError) in
                try checkpoints.moveAside(checkpoint.number)
            }
        }
    }

    /// Checkpoints that are not what they were.
    private var unusable: Set<UInt32> = []

    /// Newest first.
    var usableCheckpoints: [Checkpoint] { checkpoints.checkpoints.reversed().filter { !unusable.contains($0.number) } }

    // MARK: An index that is whole

    /// Brings the present index up to date, if it is whole. False where another one is wanted.
    /// - Throws: `.damaged` where it is not whole.
    private func repairInPlace(_ survey: LogSurvey) throws(StoreError) -> Bool {
        let standing: LogPosition?
        do {
            let database = try IndexDatabase(path: indexPath, indexOptions, .readOnly)
            standing = try database.position()
            try walk(database)
            try check(database, survey)
        }
        guard let tail = try tail(survey, from: standing, "the index stands where the log does not go on") else {
            return false
        }
        guard mayGoOn(tail) else { return true }
        report.lsn = (tail.end ?? standing)?.lsn.rawValue ?? 0
        let isReached = try isReached(standing)
        // What a start does by itself is no repair; an index that must be cut or mended is brought up to date first.
        guard tail.damaged > 0 || tail.loss != nil || !isReached else { return true }
        if !isReached { find("the index is of an earlier time: a start does not go on from where it stands") }
        try act("\(tail.groups) commits are replayed over the index") { () throws(StoreError) in
            let database = try IndexDatabase(path: indexPath, indexOptions, .existing)
            try replay(survey, over: database)
            try check(database, survey)
        }
        try cut(tail, from: standing)
        return true
    }

    /// Whether a start, which reads the present epoch alone, goes on from where an index stands.
    private func isReached(_ standing: LogPosition?) throws(StoreError) -> Bool {
        do throws(LogError) {
            _ = try LogRecovery(storage, identity: identity, options: opening.logOptions, from: standing)
            return true
        } catch {
            guard case .damaged = error else { throw StoreError(error) }
            return false
        }
    }

    /// Reads all of an index, for RocksDB's checksums.
    func walk(_ database: IndexDatabase) throws(StoreError) {
        let cursor = database.makeView().makeCursor()
        cursor.seek([0])
        while try cursor.isValid() { cursor.next() }
    }

    /// What is wrong with an index in itself; a wrong one is damaged.
    func check(_ database: IndexDatabase, _ survey: LogSurvey) throws(StoreError) {
        let live = try ShardOpening.liveSegments(database)
        for segment in live.subtracting(survey.segments).sorted() {
            let text = "segment \(segment) is missing: what it held is lost, and reading that says so"
            if !report.findings.contains(text) { find(text) }
        }
        let found = try Audit.all(
            of: ReadView(database.makeView(), mayHaveDamage: true),
            segments: survey.segments.union(live)
        )
        report.audit = found.problems
        if let first = found.problems.first {
            throw StoreError(.damaged, "it does not agree with itself in \(found.problems.count) places: \(first)")
        }
    }
}
