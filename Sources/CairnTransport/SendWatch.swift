/// Whether a peer takes what is sent to it: it may rest, and be slow, but not hold our memory for ever. Times are uptime in
/// nanoseconds, passed in.
///
/// Bytes that wait at some moment are to have left after ``stallLimit`` and their time at ``rate``; and as long as any wait, the
/// system must take some within ``stallLimit``.
struct SendWatch {
    /// How long a peer may take nothing, in nanoseconds.
    var stallLimit: UInt64
    /// The slowest that a peer may take what waits, in bytes a second.
    var rate: UInt64

    private var lastTaken: UInt64 = 0
    /// All bytes up to `end` must have left by `deadline`.
    private var goal: (end: UInt64, deadline: UInt64)?

    init(stallLimit: UInt64 = 30_000_000_000, rate: UInt64 = 64 << 10) {
        self.stallLimit = stallLimit
        self.rate = rate
    }

    /// Whether bytes wait.
    var isWatching: Bool { goal != nil }
    /// When to look whether the peer is stuck; nil while nothing waits.
    var nextCheck: UInt64? { goal.map { min(lastTaken &+ stallLimit, $0.deadline) } }

    /// Of `given` bytes ever to be sent, `sent` are with the system; not all are.
    mutating func waits(given: UInt64, sent: UInt64, now: UInt64) {
        if goal == nil { lastTaken = now }
        if let goal, sent < goal.end { return }
        let time = (given - sent).multipliedReportingOverflow(by: 1_000_000_000)
        let allowed = time.overflow ? UInt64.max / 4 : time.partialValue / max(1, rate)
        goal = (given, now &+ stallLimit &+ allowed)
    }

    /// The system took some bytes.
    mutating func took(now: UInt64) { lastTaken = now }
    /// Nothing waits any more.
    mutating func isDone() { goal = nil }

    func isStuck(now: UInt64) -> Bool { nextCheck.map { now >= $0 } ?? false }
}
