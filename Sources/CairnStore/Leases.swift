import CairnCore
import Synchronization

/// Which chunks must not be purged though nothing names them, because a client was told that it need not send them (SPEC A1).
///
/// Kept in memory. A restart forgets them, so for one lease time after it nothing at all is purged: a promise outlives a crash.
final class Leases: Sendable {
    private struct State {
        var ends: [ChunkKey: UInt64] = [:]
        /// How many of them each account has.
        var counts: [AccountNumber: Int] = [:]
        /// Of accounts that had too many: until then none of their chunks is purged.
        var graceEnds: [AccountNumber: UInt64] = [:]
        /// Chunks whose removal is on its way: they may still be seen, but must not be promised any more.
        var purging: Set<ChunkKey> = []
        var sweepAt: UInt64 = 0
        /// Until then nothing is purged.
        let graceEnd: UInt64

        func isHeld(_ chunk: ChunkKey, at now: UInt64) -> UInt64? {
            let end = max(ends[chunk] ?? 0, graceEnds[chunk.account] ?? 0)
            return end > now ? end : nil
        }

        mutating func sweep(_ now: UInt64) {
            ends = ends.filter { $0.value > now }
            graceEnds = graceEnds.filter { $0.value > now }
            counts = [:]
            for chunk in ends.keys { counts[chunk.account, default: 0] += 1 }
        }

        mutating func add(_ chunk: ChunkKey, _ end: UInt64) {
            if ends.updateValue(end, forKey: chunk) == nil { counts[chunk.account, default: 0] += 1 }
        }

        mutating func remove(_ chunk: ChunkKey) {
            ends[chunk] = nil
            counts[chunk.account, default: 1] -= 1
        }
    }
    /// Beyond so many pins, of one account or in all, an account's new ones keep all of its chunks from being purged instead, and
    /// none of another's: bounds the memory, keeps every promise.
    private let pinsOfOne: Int
    private let pins: Int

    private let execution: any ShardExecution
    private let nanoseconds: UInt64
    private let state: Mutex<State>

    init(time: Duration, _ execution: any ShardExecution, pinsOfOne: Int = 1 << 18, pins: Int = 1 << 20) {
        (self.execution, self.pinsOfOne, self.pins) = (execution, pinsOfOne, pins)
        let (seconds, attoseconds) = time.components
        nanoseconds = UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
        state = Mutex(State(graceEnd: execution.uptime + nanoseconds))
    }

    /// Pins chunks, whether they are there or not.
    /// - Returns: those that cannot be, for they are being removed, and the pins' end, in nanoseconds of uptime.
    func pin(_ chunks: [ChunkKey]) -> (leaving: Set<ChunkKey>, end: UInt64) {
        let now = execution.uptime
        let end = now + nanoseconds
        return state.withLock { state in
            if now >= state.sweepAt {
                state.sweep(now)
                state.sweepAt = now + nanoseconds
            }
            for (account, chunks) in Dictionary(grouping: chunks, by: \.account) {
                let count = state.counts[account, default: 0] + chunks.count
                if count > pinsOfOne || state.ends.count + chunks.count > pins {
                    state.graceEnds[account] = end
                } else {
                    for chunk in chunks { state.add(chunk, end) }
                }
            }
            return (state.purging.isEmpty ? [] : Set(chunks.filter(state.purging.contains)), end)
        }
    }

    /// Forgets pins that were made to end at `end`, of chunks that turned out not to be there; not those made since.
    func unpin(_ chunks: [ChunkKey], end: UInt64) {
        if chunks.isEmpty { return }
        state.withLock { state in
            for chunk in chunks where state.ends[chunk] == end { state.remove(chunk) }
        }
    }

    /// Whether anything may be purged at all.
    var mayPurge: Bool {
        let now = execution.uptime
        return state.withLock { $0.graceEnd <= now }
    }

    /// Those of `chunks` that no lease holds now. And when the first of the others may be looked at again, in nanoseconds of uptime;
    /// nil where there are none.
    func unheld(_ chunks: [ChunkKey]) -> (free: [ChunkKey], end: UInt64?) {
        let now = execution.uptime
        return state.withLock { state in
            guard state.graceEnd <= now else { return ([], state.graceEnd) }
            var free: [ChunkKey] = []
            var earliest: UInt64?
            for chunk in chunks {
                if let end = state.isHeld(chunk, at: now) {
                    earliest = min(earliest ?? end, end)
                } else {
                    free.append(chunk)
                }
            }
            return (free, earliest)
        }
    }

    /// Within the transaction that removes a chunk: whether no lease holds it. Then it cannot be pinned until ``endPurge(_:)``.
    ///
    /// Not before: who stages a chunk, or names it, while its removal only waits finds it in the index, and is answered; from then on it
    /// must be able to pin it.
    func beginPurge(_ chunk: ChunkKey) -> Bool {
        let now = execution.uptime
        return state.withLock { state in
            guard state.graceEnd <= now, state.isHeld(chunk, at: now) == nil else { return false }
            state.purging.insert(chunk)
            return true
        }
    }

    /// The removal is applied, or has failed; before any later group is answered.
    func endPurge(_ chunks: [ChunkKey]) {
        state.withLock { state in for chunk in chunks { state.purging.remove(chunk) } }
    }
}
