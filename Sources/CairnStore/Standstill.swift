import DequeModule
import Synchronization

/// Standing still, so that several shards can be changed at one point in time (SPEC R6).
///
/// ```
/// stand still   no group is begun; the one on its way is finished, and its calls are answered
/// release       a call goes in front of all that wait, and groups are begun again
/// ```
/// What was answered before all of the shards stood still is seen by the calls in front, and what was not begun then is not: so a
/// write to one shard that was made after the answer of one to another is never seen without that one. Several may hold a shard at a
/// time: it goes on when the last has let it go, and so they never wait for each other.
struct Standstill {
    private var holders = 0
    private var waiting: [@Sendable () -> Void] = []
    /// What goes before everything that waits.
    var front = Deque<PendingCall>()

    var isHeld: Bool { holders > 0 }

    /// - Parameter reached: called when no group is on its way any more.
    mutating func hold(_ reached: @escaping @Sendable () -> Void) {
        holders += 1
        waiting.append(reached)
    }

    /// No group is on its way: gives what waited for that.
    mutating func takeReached() -> [@Sendable () -> Void] {
        defer { waiting = [] }
        return waiting
    }

    mutating func release(_ call: PendingCall) {
        precondition(holders > 0)
        holders -= 1
        front.append(call)
    }
}

/// Changes on several shards at one point in time; each for itself may succeed or fail.
// Safety: everything is constant or in a mutex.
public final class PointInTime<Value: Sendable>: Sendable {
    private let shards: [Shard]
    private let entries: Int
    private let body: @Sendable (_ place: Int, Transaction) throws(StoreError) -> Value
    private let completion: @Sendable ([Result<Value, StoreError>]) -> Void
    private let standing = Mutex(0)
    private let results: Mutex<[Result<Value, StoreError>?]>

    private init(
        _ shards: [Shard],
        _ entries: Int,
        _ body: @escaping @Sendable (_ place: Int, Transaction) throws(StoreError) -> Value,
        _ completion: @escaping @Sendable ([Result<Value, StoreError>]) -> Void
    ) {
        (self.shards, self.entries, self.body, self.completion) = (shards, entries, body, completion)
        results = Mutex(Array(repeating: nil, count: shards.count))
    }

    /// Carries `body` out as a durable transaction of each of `shards`, when all stand still, before whatever else waits there.
    /// - Parameters:
    ///   - shards: each once.
    ///   - entries: index entries that `body` may change on a shard.
    ///   - body: as that of ``Shard/submit(for:durability:records:bytes:entries:reclaims:_:completion:)``; gets the shard's place.
    ///   - completion: every shard's result, in their order; called on any thread, must not block.
    public static func submit(
        to shards: [Shard],
        entries: Int,
        _ body: @escaping @Sendable (_ place: Int, Transaction) throws(StoreError) -> Value,
        completion: @escaping @Sendable ([Result<Value, StoreError>]) -> Void
    ) {
        precondition(!shards.isEmpty && Set(shards.map(\.index)).count == shards.count)
        let change = PointInTime(shards, entries, body, completion)
        for shard in shards { shard.standStill { change.reached() } }
    }

    private func reached() {
        let isLast = standing.withLock { standing in
            standing += 1
            return standing == shards.count
        }
        guard isLast else { return }
        for (place, shard) in shards.enumerated() {
            let call = PendingCall(entries: entries) { (transaction) throws(StoreError) in
                try self.body(place, transaction)
            } completion: { result in
                self.add(result, at: place)
            }
            shard.goOn(with: call)
        }
    }

    private func add(_ result: Result<Value, StoreError>, at place: Int) {
        let all = results.withLock { results in
            results[place] = result
            return results.compactMap(\.self)
        }
        if all.count == shards.count { completion(all) }
    }
}
