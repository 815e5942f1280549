import CairnCore

/// Whether more than one account is at work on a shard: calls of another one came a short while ago, though none may wait just now.
///
/// An account that makes one call after the other is hardly ever seen waiting while a group is filled; but its next call comes while
/// that group is being written, and waits for all of it.
struct Company {
    /// For how long after its last call an account counts, in nanoseconds.
    var memory: UInt64 = 1_000_000_000

    private var latest: (account: AccountID, time: UInt64)?
    /// The last that was not the latest.
    private var other: (account: AccountID, time: UInt64)?

    mutating func came(_ account: AccountID, at now: UInt64) {
        if let latest, latest.account != account { other = latest }
        latest = (account, now)
    }

    func isShared(at now: UInt64) -> Bool {
        guard let latest, let other else { return false }
        return now < min(latest.time, other.time) + memory
    }
}
