import Synchronization

/// What kind of call an operation was.
public enum OperationKind: String, Sendable, CaseIterable, Codable {
    case upload, download, flush, describe
    case createSnapshot = "create-snapshot"
    case deleteSnapshot = "delete-snapshot"
    case createVolume = "create-volume"
    case deleteVolume = "delete-volume"
}

/// How one operation went.
enum Outcome: Sendable {
    /// - Parameter bytes: of data that it carried.
    case done(OperationKind, bytes: Int)
    /// - Parameter reason: for programs: the server's, or the client library's.
    case failed(reason: String)
}

/// Counts over some time.
struct Tally: Sendable {
    /// Of operations that completed in that time.
    var operations = 0
    var bytes: UInt64 = 0
    var errors: [String: Int] = [:]
    var latencies = Histogram()

    mutating func merge(_ other: Tally) {
        operations += other.operations
        bytes += other.bytes
        errors.merge(other.errors, uniquingKeysWith: +)
        latencies.merge(other.latencies)
    }
}

/// The measured time: nanoseconds of ``Time``'s clock.
struct Window: Sendable {
    var start: UInt64
    var end: UInt64
}

/// Takes what the lanes did. Each lane has one of a few shelves, so that they do not wait for each other.
///
/// Throughput counts the operations that *completed* in the window; latencies are of those that *began* in it (in an open loop:
/// were to begin), however long they took. So neither a stall at the end nor the ramps at both ends falsify anything.
final class Recorder: Sendable {
    private struct Shelf {
        var kinds: [OperationKind: Tally] = [:]
        var latencies = Histogram()
        var interval = Tally()
        /// Of operations that completed before the window.
        var warmUp = Tally()
    }
    private final class Slot: Sendable {
        let shelf = Mutex(Shelf())
    }
    private let slots: [Slot] = (0..<8).map { _ in Slot() }
    private let window: Mutex<Window>

    init(window: Window) { self.window = Mutex(window) }

    /// The measured time ends now, if it did not end before.
    func closeWindow(at now: UInt64) { window.withLock { $0.end = max($0.start, min($0.end, now)) } }

    var measured: Window { window.withLock { $0 } }

    /// - Parameters:
    ///   - start: when it began, or was to begin.
    ///   - end: when it completed.
    func record(_ outcome: Outcome, lane: Int, start: UInt64, end: UInt64) {
        let window = measured
        let completed = end >= window.start && end <= window.end
        let began = start >= window.start && start < window.end
        let taken = end > start ? end - start : 0
        slots[lane % slots.count].shelf.withLock { shelf in
            switch outcome {
            case .done(let kind, let bytes):
                if end < window.start {
                    shelf.warmUp.operations += 1
                    shelf.warmUp.bytes += UInt64(bytes)
                    shelf.warmUp.latencies.record(taken)
                }
                if completed {
                    shelf.kinds[kind, default: Tally()].operations += 1
                    shelf.kinds[kind]!.bytes += UInt64(bytes)
                    shelf.interval.operations += 1
                    shelf.interval.bytes += UInt64(bytes)
                    shelf.interval.latencies.record(taken)
                }
                if began {
                    shelf.kinds[kind, default: Tally()].latencies.record(taken)
                    shelf.latencies.record(taken)
                }
            case .failed(let reason):
                if completed || began { shelf.interval.errors[reason, default: 0] += 1 }
            }
        }
    }

    /// An operation that was to begin in the window and never did: what it had waited for by then counts as its latency, which is
    /// the least that it would have been.
    func recordUnstarted(intended: UInt64, now: UInt64) {
        guard intended >= measured.start, intended < measured.end, now > intended else { return }
        slots[0].shelf.withLock { $0.latencies.record(now - intended) }
    }

    /// What came since the last harvest.
    /// - Parameter warmUp: of the time before the window, else of the window.
    func harvest(warmUp: Bool = false) -> Tally {
        var whole = Tally()
        for slot in slots {
            slot.shelf.withLock { shelf in
                let path = warmUp ? \Shelf.warmUp : \Shelf.interval
                whole.merge(shelf[keyPath: path])
                shelf[keyPath: path] = Tally()
            }
        }
        return whole
    }

    /// All of the window: latencies of every kind together, and each kind by itself.
    func totals() -> (latencies: Histogram, kinds: [OperationKind: Tally]) {
        var latencies = Histogram()
        var kinds: [OperationKind: Tally] = [:]
        for slot in slots {
            slot.shelf.withLock { shelf in
                latencies.merge(shelf.latencies)
                for (kind, tally) in shelf.kinds { kinds[kind, default: Tally()].merge(tally) }
            }
        }
        return (latencies, kinds)
    }
}
