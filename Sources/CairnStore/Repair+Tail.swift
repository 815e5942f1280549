import CairnCore
import CairnLog

/// What a log holds behind a position.
struct TailOutcome {
    var groups = 0
    var bytes = 0
    var damaged = 0
    var loss: LogTail.Loss?
    /// The last commit that can be read; nil where there is none.
    var end: LogPosition?
}

extension ShardRepairing {
    /// Reads the log from a position to its end.
    /// - Throws: `.damaged` where it does not go on from there, `.io`.
    func scan(
        _ survey: LogSurvey,
        from position: LogPosition?,
        _ body: (LogTail.Group) throws(StoreError) -> Void = { (_) throws(StoreError) in }
    ) throws(StoreError) -> TailOutcome {
        let tail = try logCall { () throws(LogError) in try LogTail(storage, survey, from: position) }
        var outcome = TailOutcome()
        while true {
            switch try logCall({ () throws(LogError) in try tail.next() }) {
            case .group(let group):
                outcome.groups += 1
                outcome.bytes += group.bytes
                outcome.damaged += group.isDamaged ? 1 : 0
                outcome.end = group.position
                try body(group)
            case .loss(let loss):
                outcome.loss = loss
                return outcome
            case .end: return outcome
            }
        }
    }

    /// What the log holds behind a position; nil where it does not go on from there, which is said behind `what`.
    func tail(_ survey: LogSurvey, from position: LogPosition?, _ what: String) throws(StoreError) -> TailOutcome? {
        do throws(StoreError) { return try scan(survey, from: position) } catch {
            guard error.code == .damaged else { throw error }
            find("\(what): \(error.text)")
            return nil
        }
    }

    /// Says what the log lacks, and whether that is allowed.
    func mayGoOn(_ tail: TailOutcome) -> Bool {
        report.replayedCommits = tail.groups
        report.replayedBytes = tail.bytes
        report.damagedGroups = tail.damaged
        if tail.damaged > 0 {
            find(
                "\(tail.damaged) groups of the log are damaged; their commits are whole: `cairn scrub` names the chunks"
            )
        }
        guard let loss = tail.loss else { return true }
        report.lost = ShardRepair.Loss(loss)
        let place = loss.segment.map { " in segment \($0)" } ?? ""
        find(
            "\(loss.count) commits are lost, LSN \(loss.lsns.lowerBound) to \(loss.lsns.upperBound), from a damaged group\(place) on"
        )
        if options.acceptLoss { return true }
        report.outcome = .wouldLose
        return false
    }

    /// Applies the log's commits from where an index stands.
    func replay(_ survey: LogSurvey, over database: IndexDatabase) throws(StoreError) {
        var replay = IndexReplay(database, try database.logBytes(), flushBytes: indexOptions.flushBytes)
        let from = try database.position()
        _ = try scan(survey, from: from) { (group) throws(StoreError) in
            try replay.apply(group.commit, at: group.position, bytes: group.bytes)
        }
        try replay.finish()
    }

    /// After a loss: the log goes on from the last commit before it, in a new epoch.
    func cut(_ tail: TailOutcome, from standing: LogPosition?) throws(StoreError) {
        guard tail.loss != nil else { return }
        guard let end = tail.end ?? standing else { return fail("the log's first commit is lost") }
        for checkpoint in checkpoints.checkpoints where checkpoint.contents.position.lsn > end.lsn {
            try act("checkpoint \(checkpoint.number), which is of later, is moved aside") { () throws(StoreError) in
                try checkpoints.moveAside(checkpoint.number)
            }
        }
        try act("the log is cut after LSN \(end.lsn)") { () throws(StoreError) in
            let database = try IndexDatabase(path: indexPath, indexOptions, .existing)
            let live = try ShardOpening.liveSegments(database)
            let retention = checkpoints.retention
            try logCall { () throws(LogError) in
                let recovery = try LogRecovery.cut(
                    storage,
                    identity: identity,
                    options: opening.logOptions,
                    at: end
                )
                try recovery.begin(durable: end, live: live, retention: retention).close()
            }
        }
    }
}

extension Audit {
    /// - Parameter segments: those that the index may name.
    static func all(of view: ReadView, segments: Set<SegmentID>) throws(StoreError) -> AuditReport {
        var audit = Audit(view: view)
        try audit.index()
        try audit.segments(segments)
        return audit.report
    }

    /// All but the segments.
    mutating func index() throws(StoreError) {
        try lineagesAndVersions()
        try deadList()
        try writtenMaps()
        try sealNodes()
        try manifests()
        checkWrittenMaps()
        try parts()
        try leases()
        try dictionary()
        try damage()
        try volumesAndSnapshots()
        try usage()
    }
}
