internal import CEpoll
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// A loop on a thread of its own.
///
/// The thread keeps the loop alive within its turns only; a loop that is handed work while it sleeps is kept until it has done it.
final class LoopThread: LoopHost {
    private struct State {
        weak var loop: EventLoop?
        /// The loop was woken, and lives until it has had its turn.
        var woken: EventLoop?
    }
    let sockets = SocketSet()
    /// Written to wake the thread. Edge-triggered, so that nobody has to read it.
    private let bell: Int32
    private let state = Mutex(State())
    /// `pthread_self` of the thread, which no other thread has as long as it runs.
    private let thread = Atomic<UInt>(0)

    init() {
        bell = cairn_bell()
        precondition(bell >= 0, "no event descriptor: \(errno)")
        let added = cairn_epoll_ctl(
            sockets.descriptor,
            EPOLL_CTL_ADD,
            bell,
            CAIRN_EPOLLIN | CAIRN_EPOLLET,
            SocketSet.wakeToken
        )
        precondition(added == 0, "no room in an epoll descriptor: \(errno)")
    }

    deinit { close(bell) }

    /// Begins the thread.
    func start(_ loop: EventLoop, name: String) {
        state.withLock { $0.loop = loop }
        var thread = pthread_t()
        let status = pthread_create(
            &thread,
            nil,
            { host in
                Unmanaged<LoopThread>.fromOpaque(host!).takeRetainedValue().run()
                return nil
            },
            Unmanaged.passRetained(self).toOpaque()
        )
        precondition(status == 0, "no thread for a loop: \(status)")
        cairn_name(thread, String(name.prefix(15)))
        pthread_detach(thread)
    }

    private func run() {
        thread.store(UInt(pthread_self()), ordering: .relaxed)
        var next = UInt64.max
        while true {
            sockets.wait(milliseconds: LoopThread.milliseconds(until: next))
            // Nobody else wakes a loop that is gone.
            guard let turn = takeTurn() else { return }
            next = turn
        }
    }

    private func takeTurn() -> UInt64? {
        let loop = state.withLock { state in
            defer { state.woken = nil }
            return state.woken ?? state.loop
        }
        let next = loop?.takeTurn()
        // There is more to do already, and nobody will wake it for that.
        if next == 0 { state.withLock { $0.woken = loop } }
        return next
    }

    /// Rounded up, so that the time has come when it is over.
    private static func milliseconds(until deadline: UInt64) -> Int32 {
        guard deadline != .max else { return -1 }
        let now = deadline == 0 ? 0 : EventLoop.now
        guard deadline > now else { return 0 }
        return Int32(min((deadline - now + 999_999) / 1_000_000, 3_600_000))
    }

    var isCurrent: Bool { thread.load(ordering: .relaxed) == UInt(pthread_self()) }

    func wake(_ loop: EventLoop) {
        state.withLock { $0.woken = loop }
        ring()
    }

    func stop() { ring() }

    private func ring() { cairn_ring(bell) }
}
