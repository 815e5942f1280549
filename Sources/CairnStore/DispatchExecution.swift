import CairnCore
import Dispatch
import Glibc

/// What shards of a server run on.
struct DispatchExecution: ShardExecution {
    func makeQueue(_ label: String, isBackground: Bool) -> any SerialQueue {
        DispatchSerialQueue(DispatchQueue(label: label, qos: isBackground ? .utility : .unspecified))
    }

    func makeSignal() -> any ShardSignal { DispatchSignal() }

    func makeTimer(on queue: any SerialQueue, every interval: Duration, _ body: @escaping @Sendable () -> Void)
        -> any ShardTimer
    {
        guard let queue = queue as? DispatchSerialQueue else { preconditionFailure("a queue of another execution") }
        return DispatchTimer(on: queue.queue, every: interval, body)
    }

    var uptime: UInt64 { DispatchTime.now().uptimeNanoseconds }
    func rest(_ nanoseconds: UInt64) throws(StoreError) { usleep(UInt32(min(nanoseconds / 1000, 1_000_000))) }
    var milliseconds: UInt64 { UnixTime.milliseconds }
    func makeID(_ shard: ShardIndex) -> UUID128 { .random(shard: shard) }
    func pick(_ count: Int) -> Int { .random(in: 0..<count) }
}

private final class DispatchSerialQueue: SerialQueue {
    fileprivate let queue: DispatchQueue
    init(_ queue: DispatchQueue) { self.queue = queue }

    func async(_ body: @escaping @Sendable () -> Void) { queue.async(execute: body) }
    func async(after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void) {
        queue.asyncAfter(deadline: .now() + .nanoseconds(Int(nanoseconds)), execute: body)
    }

    func sync<Value>(_ body: () throws(StoreError) -> Value) throws(StoreError) -> Value {
        var result: Result<Value, StoreError>?
        queue.sync { result = Result { () throws(StoreError) in try body() } }
        guard let result else { preconditionFailure("Dispatch did not call the body") }
        return try result.get()
    }

    func checkIsCurrent() { dispatchPrecondition(condition: .onQueue(queue)) }
}

private final class DispatchSignal: ShardSignal {
    private let semaphore = DispatchSemaphore(value: 0)
    func give() { semaphore.signal() }
    func wait() throws(StoreError) { semaphore.wait() }
}

// Safety: a dispatch source may be used from any thread.
private final class DispatchTimer: ShardTimer, @unchecked Sendable {
    private let source: any DispatchSourceTimer

    init(on queue: DispatchQueue, every interval: Duration, _ body: @escaping @Sendable () -> Void) {
        source = DispatchSource.makeTimerSource(queue: queue)
        let nanoseconds = DispatchTimeInterval.nanoseconds(Int(interval / .nanoseconds(1)))
        source.schedule(deadline: .now() + nanoseconds, repeating: nanoseconds, leeway: .milliseconds(100))
        source.setEventHandler(handler: body)
    }

    func activate() { source.activate() }

    func cancel() {
        source.cancel()
        // A source that was never activated must not be released: a store may fail to open after this shard was.
        source.activate()
    }
}
