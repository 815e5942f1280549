import CairnCore
import CairnTesting
import Synchronization

@testable import CairnStore

/// What shards of a server run on, with a clock that moves when it is put forward, and only then, and choices that a seed makes: so what is
/// answered depends on the calls alone. Queues and timers are a server's: when the background does something is up to the machine.
final class ModelClock: ShardExecution {
    private let real = DispatchExecution()
    /// Milliseconds since the start.
    private let elapsed = Atomic<UInt64>(0)
    private let random: Mutex<SeededRandom>

    init(seed: UInt64) { random = Mutex(SeededRandom(seed: seed)) }

    func putForward(milliseconds: UInt64) { elapsed.add(milliseconds, ordering: .relaxed) }

    var uptime: UInt64 { (1_000_000 + elapsed.load(ordering: .relaxed)) * 1_000_000 }
    var milliseconds: UInt64 { 1_700_000_000_000 + elapsed.load(ordering: .relaxed) }
    func pick(_ count: Int) -> Int { random.withLock { $0.below(count) } }

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
