import Synchronization

/// Standing still, so that several shards can be changed at one point in time (SPEC R6).
///
/// ```
/// stand still   no group is begun; the one on its way is finished, and its calls are answered
/// release       a call goes in front of all that wait, and groups are begun again
/// ```
/// What was answered before all shards stood still is in what the calls in front see, and what was not begun then is not: whoever
/// writes to one shard only after the answer of another is seen in that order. Several may have a shard stand still at a time: it
/// goes on when the last one has released it, and so they never wait for each other.
// Safety: used on the shard's queue only.
struct Standstill {
    private var holders = 0
    private var waiting: [@Sendable () -> Void] = []

    var isHeld: Bool { holders > 0 }

    /// - Returns: what to call now that the shard stands still.
    mutating func hold(isWriting: Bool, _ reached: @escaping @Sendable () -> Void) -> (@Sendable () -> Void)? {
        holders += 1
        if !isWriting { return reached }
        waiting.append(reached)
        return nil
    }

    /// The group that was on its way is finished.
    mutating func reached() -> [@Sendable () -> Void] {
        defer { waiting = [] }
        return waiting
    }

    mutating func release() {
        precondition(holders > 0)
        holders -= 1
    }
}

extension Shard {
    /// Has the shard stand still; each call of it must be followed by one of ``release(first:)``, soon.
    /// - Parameter reached: called on the shard's queue, once; must not block.
    func standStill(_ reached: @escaping @Sendable () -> Void) {
        queue.async { self.hold(reached) }
    }
}

/// Makes changes on several shards at one point in time; each for itself may succeed or fail.
public enum PointInTime {
    /// Carries `body` out as a transaction of each of `shards`, before anything else that waits there, once all stand still.
    /// - Parameter completion: every shard's result, in their order; called on any thread, must not block.
    public static func submit<Value: Sendable>(
        to shards: [Shard],
        entries: Int,
        _ body: @escaping @Sendable (_ place: Int, Transaction) throws(StoreError) -> Value,
        completion: @escaping @Sendable ([Result<Value, StoreError>]) -> Void
    ) {
        precondition(!shards.isEmpty)
        let standing = Mutex(0)
        let results = Results<Value>(count: shards.count)
        let state = Shared(standing: standing, results: results)
        for shard in shards {
            shard.standStill {
                let isLast = state.standing.withLock { standing in
                    standing += 1
                    return standing == shards.count
                }
                guard isLast else { return }
                for (place, shard) in shards.enumerated() {
                    shard.release(entries: entries) { (transaction) throws(StoreError) in
                        try body(place, transaction)
                    } completion: { result in
                        if let all = state.results.add(result, at: place) { completion(all) }
                    }
                }
            }
        }
    }

    private final class Shared<Value: Sendable>: Sendable {
        let standing: Mutex<Int>
        let results: Results<Value>
        init(standing: consuming Mutex<Int>, results: Results<Value>) {
            self.standing = standing
            self.results = results
        }
    }

    private final class Results<Value: Sendable>: Sendable {
        private let found: Mutex<[Result<Value, StoreError>?]>

        init(count: Int) { found = Mutex(Array(repeating: nil, count: count)) }

        /// All of them, once the last one is there.
        func add(_ result: Result<Value, StoreError>, at place: Int) -> [Result<Value, StoreError>]? {
            found.withLock { found in
                found[place] = result
                let all = found.compactMap(\.self)
                return all.count == found.count ? all : nil
            }
        }
    }
}
