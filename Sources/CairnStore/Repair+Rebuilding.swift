import CairnCore
import CairnLog

/// An index made anew: from a copy, or from nothing, and the log behind it.
extension ShardRepairing {
    /// Tries the copies, newest first, then the log alone.
    func rebuild(_ survey: LogSurvey) throws(StoreError) {
        for checkpoint in usableCheckpoints {
            let position = checkpoint.contents.position
            let what = "checkpoint \(checkpoint.number) (LSN \(position.lsn))"
            if try rebuild(
                survey,
                from: position,
                what,
                { () throws(StoreError) in
                    try checkpoints.restore(checkpoint, to: freshPath)
                }
            ) {
                return
            }
        }
        guard survey.reachesBeginning else {
            return fail("there is no copy of the index that can be used, and the log does not go back to its beginning")
        }
        let isDone = try rebuild(survey, from: nil, "the log from its beginning") { () throws(StoreError) in
            try Files.makeFolder(freshPath)
        }
        if !isDone { fail("the index cannot be made anew from what is there") }
    }

    /// - Parameter restore: makes what is replayed upon.
    /// - Returns: false where it gives no index that agrees with itself: nothing is changed then.
    private func rebuild(
        _ survey: LogSurvey,
        from position: LogPosition?,
        _ what: String,
        _ restore: () throws(StoreError) -> Void
    ) throws(StoreError) -> Bool {
        guard let tail = try tail(survey, from: position, what) else { return false }
        guard mayGoOn(tail) else { return true }
        if tail.loss != nil, position == nil, tail.end == nil { return false }
        let actions = report.actions.count
        do throws(StoreError) {
            try act("the index is made anew from \(what), with \(tail.groups) commits after it") {
                () throws(StoreError) in
                try Files.removeFolder(freshPath)
                try restore()
                let isNew = position == nil
                let database = try IndexDatabase(path: freshPath, indexOptions, isNew ? .create : .existing)
                try walk(database)
                try replay(survey, over: database)
                try check(database, survey)
            }
        } catch {
            guard error.code == .damaged || error.code == .io else { throw error }
            report.actions.removeLast(report.actions.count - actions)
            find("\(what): \(error.text)")
            return false
        }
        report.lsn = (tail.end ?? position)?.lsn.rawValue ?? 0
        try install()
        try cut(tail, from: position)
        return true
    }

    /// The new index takes the old one's place; that is kept.
    private func install() throws(StoreError) {
        if Files.exists(indexPath) {
            var number = 1
            while Files.exists("\(folder)/index.bad-\(number)") { number += 1 }
            try act("the old index is kept as index.bad-\(number)") { () throws(StoreError) in
                try Files.rename(indexPath, "\(folder)/index.bad-\(number)")
            }
        }
        try act("the new index is put in its place") { () throws(StoreError) in
            try Files.sync(freshPath)
            try Files.rename(freshPath, indexPath)
            try Files.sync(folder)
        }
    }
}
