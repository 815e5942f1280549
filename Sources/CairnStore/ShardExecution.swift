import CairnCore

/// What a shard runs on: queues, waits between them, a clock, and IDs that nobody can foresee.
///
/// The server's is ``DispatchExecution``. The simulation's does one step at a time, in an order that a seed chooses, on a clock that
/// moves when it is told to; and it can end in the midst of anything, as a machine does. So whatever waits may be told that it waits
/// in vain: it throws, and its caller ends as if the shard had been closed.
protocol ShardExecution: Sendable {
    func makeQueue(_ label: String, isBackground: Bool) -> any SerialQueue
    func makeSignal() -> any ShardSignal
    /// Calls `body` on `queue` each `interval`, once it is activated.
    func makeTimer(on queue: any SerialQueue, every interval: Duration, _ body: @escaping @Sendable () -> Void)
        -> any ShardTimer
    /// Nanoseconds since some moment; never goes back.
    var uptime: UInt64 { get }
    /// Blocks the caller, who is on a queue in the background.
    /// - Throws: `.closed` where the machine has stopped.
    func rest(_ nanoseconds: UInt64) throws(StoreError)
    /// Since 1970.
    var milliseconds: UInt64 { get }
    /// An ID that was never given out before.
    func makeID(_ shard: ShardIndex) -> UUID128
    /// One of `0..<count`, each as likely as the others.
    func pick(_ count: Int) -> Int
}

/// Does one thing at a time, in the order in which it was asked to.
protocol SerialQueue: Sendable {
    func async(_ body: @escaping @Sendable () -> Void)
    /// The same, `nanoseconds` from now.
    func async(after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void)
    /// Waits until `body` is done. Not from the queue itself.
    func sync<Value>(_ body: () throws(StoreError) -> Value) throws(StoreError) -> Value
    /// Traps where the caller is not on the queue.
    func checkIsCurrent()
}

/// Given once by one, waited for once by another.
protocol ShardSignal: Sendable {
    func give()
    /// - Throws: `.closed` where it will never be given.
    func wait() throws(StoreError)
}

protocol ShardTimer: Sendable {
    func activate()
    /// `body` is not called any more, but for a call that is under way.
    func cancel()
}
