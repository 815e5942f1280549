import CairnCore
import CairnTesting
import Synchronization

@testable import CairnStore

/// What shards of a server run on, with a clock that moves when it is put forward, and only then, and choices that a seed makes:
/// so what is answered depends on the calls alone. Queues and timers are a server's: when the background does something is up to
/// the machine.
///
/// With a *drift* it moves by itself as well: within a step of the model whoever looks at it moves it a little, or not, and when the
/// step ends all of the drift has passed. So when steps begin and end is the seed's; what a call in between finds it at is not.
final class ModelClock: ShardExecution {
    /// Milliseconds since the start.
    private struct Times {
        var earliest: UInt64 = 0
        var now: UInt64 = 0
        var latest: UInt64 = 0
        /// How far it moves at a look.
        var random: SeededRandom

        mutating func look() -> UInt64 {
            if now < latest, random.chance(25) { now = min(latest, now + 1 + UInt64(random.below(4))) }
            return now
        }
    }
    /// Of the first millisecond, since 1970.
    private static let start: UInt64 = 1_700_000_000_000

    private let real = DispatchExecution()
    /// Milliseconds that pass by themselves within a step.
    let drift: UInt64
    private let times: Mutex<Times>
    private let random: Mutex<SeededRandom>

    init(seed: UInt64, drift: UInt64) {
        self.drift = drift
        times = Mutex(Times(random: SeededRandom(seed: ~seed)))
        random = Mutex(SeededRandom(seed: seed))
    }

    /// All of the drift has passed, and a millisecond more.
    func beginStep() {
        times.withLock { times in
            times.earliest = times.latest + 1
            times.now = times.earliest
            times.latest = times.earliest + drift
        }
    }

    func putForward(milliseconds: UInt64) {
        times.withLock { times in
            times.earliest += milliseconds
            times.now += milliseconds
            times.latest += milliseconds
        }
    }

    /// Milliseconds since 1970: what a look in this step finds at least, and at most.
    var earliest: UInt64 { Self.start + times.withLock { $0.earliest } }
    var latest: UInt64 { Self.start + times.withLock { $0.latest } }

    var uptime: UInt64 { (1_000_000 + times.withLock { $0.look() }) * 1_000_000 }
    var milliseconds: UInt64 { Self.start + times.withLock { $0.look() } }
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
