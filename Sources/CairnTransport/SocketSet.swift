internal import CEpoll

#if canImport(Glibc)
    internal import Glibc
#endif

/// All of a loop's sockets in one epoll descriptor. Level-triggered: what is not used up is reported again.
// Safety: the descriptor's number does not change; `events` is only touched by the loop's turns.
final class SocketSet: @unchecked Sendable {
    /// Tokens of sockets count up from 1.
    static let wakeToken: UInt64 = 0
    private static let eventCount = 256

    let descriptor: Int32
    private let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: eventCount)
    private var count = 0

    init() {
        descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
        precondition(descriptor >= 0, "no epoll descriptor: \(errno)")
    }

    deinit {
        close(descriptor)
        events.deallocate()
    }

    /// Waits at most `milliseconds` (-1: without limit) for sockets to be ready.
    func wait(milliseconds: Int32) {
        // An interruption by a signal is a wake-up without events.
        count = max(0, Int(epoll_wait(descriptor, events, Int32(SocketSet.eventCount), milliseconds)))
    }

    /// Gives what the last wait brought, once.
    func forEachReady(_ body: (_ token: UInt64, _ readable: Bool, _ writable: Bool) -> Void) {
        let count = self.count
        self.count = 0
        for index in 0..<count {
            let flags = cairn_epoll_events(events + index)
            // Errors and hang-ups show themselves when read.
            body(
                cairn_epoll_token(events + index),
                flags & ~CAIRN_EPOLLOUT != 0,
                flags & CAIRN_EPOLLOUT != 0
            )
        }
    }

    /// Begins to watch for reading. False where the system has no room.
    func add(_ descriptor: Int32, token: UInt64) -> Bool {
        cairn_epoll_ctl(self.descriptor, EPOLL_CTL_ADD, descriptor, CAIRN_EPOLLIN, token) == 0
    }

    func setWantsWrite(_ wants: Bool, descriptor: Int32, token: UInt64) {
        let events = wants ? CAIRN_EPOLLIN | CAIRN_EPOLLOUT : CAIRN_EPOLLIN
        _ = cairn_epoll_ctl(self.descriptor, EPOLL_CTL_MOD, descriptor, events, token)
    }

    func removeAndClose(_ descriptor: Int32) {
        _ = cairn_epoll_ctl(self.descriptor, EPOLL_CTL_DEL, descriptor, 0, 0)
        close(descriptor)
    }
}
