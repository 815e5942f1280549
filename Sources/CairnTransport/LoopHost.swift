/// What a loop runs on.
public enum LoopKind: Sendable {
    /// A thread of its own, which sleeps in `epoll_wait` alone.
    case thread
    /// A serial Dispatch queue, with one source on the epoll descriptor: each wake-up passes Dispatch's own threads. Only measured
    /// beside the other (tools/compare/pollers).
    case dispatch
}

/// The seam behind which a loop runs: it takes turns when a socket is ready, work was handed over, or its time has come.
protocol LoopHost: AnyObject, Sendable {
    var sockets: SocketSet { get }
    /// Whether the caller runs within one of the loop's turns.
    var isCurrent: Bool { get }
    /// From any thread, once for each time that the loop went to sleep: it is to take a turn, and stays alive until then.
    func wake(_ loop: EventLoop)
    /// The loop is gone.
    func stop()
}
