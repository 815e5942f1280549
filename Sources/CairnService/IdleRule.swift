import CairnStore

/// When nobody has done anything for a snapshot in progress for too long (SPEC S11).
///
/// A touch is not written down with every upload but at most once in a *grain*; so the limit counts from the last touch that was
/// written, and a grain later: never too early, and at most a grain too late.
struct IdleRule: Sendable {
    /// Milliseconds.
    let limit: UInt64
    let grain: UInt64

    init(limitMilliseconds: UInt64) {
        limit = limitMilliseconds
        grain = min(60_000, limitMilliseconds / 8)
    }

    func wantsTouch(_ snapshot: SnapshotRecord, at now: UInt64) -> Bool { now >= snapshot.touchedAt + grain }
    func isIdle(_ snapshot: SnapshotRecord, at now: UInt64) -> Bool { now >= snapshot.touchedAt + limit + grain }
}
