import CairnCore
import Synchronization

@testable import CairnStore

/// What shards of a server run on, with a clock that can be put forward: leases end without anybody waiting for them.
final class ModelClock: ShardExecution {
    private let real = DispatchExecution()
    /// In milliseconds.
    private let ahead = Atomic<UInt64>(0)

    func putForward(milliseconds: UInt64) { ahead.add(milliseconds, ordering: .relaxed) }

    var uptime: UInt64 { real.uptime + ahead.load(ordering: .relaxed) * 1_000_000 }
    var milliseconds: UInt64 { real.milliseconds + ahead.load(ordering: .relaxed) }

    func makeQueue(_ label: String, isBackground: Bool) -> any SerialQueue {
        real.makeQueue(label, isBackground: isBackground)
    }
    func makeSignal() -> any ShardSignal { real.makeSignal() }
    func makeTimer(on queue: any SerialQueue, every interval: Duration, _ body: @escaping @Sendable () -> Void)
        -> any ShardTimer
    { real.makeTimer(on: queue, every: interval, body) }
    func rest(_ nanoseconds: UInt64) throws(StoreError) { try real.rest(nanoseconds) }
    func makeID(_ shard: ShardIndex) -> UUID128 { real.makeID(shard) }
}
