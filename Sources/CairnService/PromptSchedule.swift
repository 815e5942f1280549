import CairnCore

/// Which snapshots' clients are to be asked how far they are, and when (SPEC S10).
///
/// A client is asked when nothing was reported for an interval: since its first upload, its last report, or the last question.
/// Uploads alone do not put the question off. Pure: times come in, questions go out.
struct PromptSchedule<Line: Sendable>: Sendable {
    struct Question: Sendable {
        let snapshot: SnapshotID
        let account: AccountID
        let line: Line
    }
    private struct Entry: Sendable {
        let account: AccountID
        /// The one that uploaded last.
        var line: Line
        var dueAt: UInt64
        var isBeingAsked = false
    }

    /// Beyond this many snapshots the further ones are not asked about: bounds the memory.
    static var limit: Int { 1 << 16 }
    /// The same of one account, so that it takes no other's place.
    static var limitOfOne: Int { 1 << 12 }

    /// Between two questions; any unit of time.
    let interval: UInt64
    private var entries: [SnapshotID: Entry] = [:]
    private var counts = Tally<AccountID>()

    init(interval: UInt64) { self.interval = interval }

    var count: Int { entries.count }

    mutating func uploaded(to snapshot: SnapshotID, account: AccountID, by line: Line, reporting: Bool, at now: UInt64)
    {
        if entries[snapshot] != nil {
            entries[snapshot]!.line = line
            if reporting { entries[snapshot]!.dueAt = now + interval }
        } else if entries.count < Self.limit, counts[account] < Self.limitOfOne {
            entries[snapshot] = Entry(account: account, line: line, dueAt: now + interval)
            counts.add(account)
        }
    }

    mutating func reported(_ snapshot: SnapshotID, at now: UInt64) { entries[snapshot]?.dueAt = now + interval }

    /// It takes no data any more, or its client cannot be asked.
    mutating func forget(_ snapshot: SnapshotID) {
        if let entry = entries.removeValue(forKey: snapshot) { counts.remove(entry.account) }
    }

    /// What is to be asked now; each is asked once until ``answered(_:at:)``.
    mutating func due(at now: UInt64) -> [Question] {
        var questions: [Question] = []
        for (snapshot, entry) in entries where entry.dueAt <= now && !entry.isBeingAsked {
            entries[snapshot]!.isBeingAsked = true
            questions.append(Question(snapshot: snapshot, account: entry.account, line: entry.line))
        }
        return questions
    }

    /// The question has ended, one way or another.
    mutating func answered(_ snapshot: SnapshotID, at now: UInt64) {
        entries[snapshot]?.isBeingAsked = false
        entries[snapshot]?.dueAt = now + interval
    }
}
