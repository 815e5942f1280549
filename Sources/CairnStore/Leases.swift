import CairnCore
import Synchronization

/// Which chunks must not be purged though nothing names them, because a client was told that it need not send them (SPEC A1).
///
/// Kept in memory. A restart forgets them, so for one lease time after it nothing at all is purged: a promise outlives a crash.
final class Leases: Sendable {
    private struct State {
        var ends: [ChunkKey: UInt64] = [:]
        /// Chunks whose removal is on its way: they may still be seen, but must not be promised any more.
        var purging: Set<ChunkKey> = []
        var sweepAt: UInt64 = 0
        /// Until then nothing is purged.
        var graceEnd: UInt64
    }
    /// Beyond this many pins new ones extend the time in which nothing at all is purged: bounds the memory, keeps every promise.
    private static let maximumPins = 1 << 20

    private let execution: any ShardExecution
    private let nanoseconds: UInt64
    private let state: Mutex<State>

    init(time: Duration, _ execution: any ShardExecution) {
        self.execution = execution
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
                state.ends = state.ends.filter { $0.value > now }
                state.sweepAt = now + nanoseconds
            }
            if state.ends.count + chunks.count > Self.maximumPins {
                state.graceEnd = max(state.graceEnd, end)
            } else {
                for chunk in chunks { state.ends[chunk] = end }
            }
            return (state.purging.isEmpty ? [] : Set(chunks.filter(state.purging.contains)), end)
        }
    }

    /// Forgets pins that were made to end at `end`, of chunks that turned out not to be there; not those made since.
    func unpin(_ chunks: [ChunkKey], end: UInt64) {
        if chunks.isEmpty { return }
        state.withLock { state in
            for chunk in chunks where state.ends[chunk] == end { state.ends[chunk] = nil }
        }
    }

    /// Whether anything may be purged at all.
    var mayPurge: Bool {
        let now = execution.uptime
        return state.withLock { $0.graceEnd <= now }
    }

    /// Those of `chunks` that no lease holds; from now on they cannot be pinned, until ``endPurge(_:)``. And when the first of the
    /// others may be looked at again, in nanoseconds of uptime; nil where there are none.
    func beginPurge(_ chunks: [ChunkKey]) -> (free: [ChunkKey], end: UInt64?) {
        let now = execution.uptime
        return state.withLock { state in
            guard state.graceEnd <= now else { return ([], state.graceEnd) }
            var free: [ChunkKey] = []
            var earliest: UInt64?
            for chunk in chunks {
                if let end = state.ends[chunk], end > now {
                    earliest = min(earliest ?? end, end)
                } else {
                    free.append(chunk)
                }
            }
            state.purging.formUnion(free)
            return (free, earliest)
        }
    }

    /// The removal is applied, or has failed.
    func endPurge(_ chunks: [ChunkKey]) {
        state.withLock { state in for chunk in chunks { state.purging.remove(chunk) } }
    }
}
