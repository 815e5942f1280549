internal import CEpoll
internal import Dispatch

#if canImport(Glibc)
    internal import Glibc
#endif

var processorCount: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

/// The seam behind which a loop learns of readiness. Level-triggered: what is not used up is reported again.
protocol Poller: AnyObject {
    /// Begins to watch for reading. False where the system has no room.
    func add(_ descriptor: Int32, token: UInt64) -> Bool
    func setWantsWrite(_ wants: Bool, descriptor: Int32, token: UInt64)
    /// Stops to watch, and closes the descriptor as soon as nobody looks at it any more.
    func removeAndClose(_ descriptor: Int32, token: UInt64)
    func stop()
}

/// All sockets in one epoll descriptor, which one Dispatch source watches: one wake-up for many sockets' events.
final class EpollPoller: Poller {
    private let epoll: Int32
    private let source: any DispatchSourceRead
    private unowned let loop: EventLoop
    private var events = [epoll_event](repeating: epoll_event(), count: 256)

    init(loop: EventLoop) {
        self.loop = loop
        let epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        precondition(epoll >= 0, "no epoll descriptor: \(errno)")
        self.epoll = epoll
        source = DispatchSource.makeReadSource(fileDescriptor: epoll, queue: loop.queue)
        source.setEventHandler { [weak self] in self?.poll() }
        source.setCancelHandler { close(epoll) }
        source.activate()
    }

    private func poll() {
        loop.batch {
            let count = epoll_wait(epoll, &events, Int32(events.count), 0)
            for index in 0..<max(0, Int(count)) {
                let (flags, token) = withUnsafePointer(to: &events[index]) {
                    (cairn_epoll_events($0), cairn_epoll_token($0))
                }
                // Errors and hang-ups show themselves when read.
                let writable = flags & CAIRN_EPOLLOUT != 0
                let readable = flags & ~CAIRN_EPOLLOUT != 0
                loop.ready(token: token, readable: readable, writable: writable)
            }
        }
    }

    func add(_ descriptor: Int32, token: UInt64) -> Bool {
        cairn_epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, CAIRN_EPOLLIN, token) == 0
    }
    func setWantsWrite(_ wants: Bool, descriptor: Int32, token: UInt64) {
        let events = wants ? CAIRN_EPOLLIN | CAIRN_EPOLLOUT : CAIRN_EPOLLIN
        _ = cairn_epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, events, token)
    }
    func removeAndClose(_ descriptor: Int32, token: UInt64) {
        _ = cairn_epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, 0, token)
        close(descriptor)
    }
    func stop() { source.cancel() }
}

/// A read source, and while it is needed a write source, for each socket.
final class SourcePoller: Poller {
    private struct Watch {
        let read: any DispatchSourceRead
        var write: (any DispatchSourceWrite)?
    }
    private unowned let loop: EventLoop
    private var watches: [UInt64: Watch] = [:]

    init(loop: EventLoop) { self.loop = loop }

    func add(_ descriptor: Int32, token: UInt64) -> Bool {
        let read = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: loop.queue)
        read.setEventHandler { [unowned loop] in
            loop.batch { loop.ready(token: token, readable: true, writable: false) }
        }
        read.activate()
        watches[token] = Watch(read: read)
        return true
    }

    func setWantsWrite(_ wants: Bool, descriptor: Int32, token: UInt64) {
        guard wants != (watches[token]?.write != nil) else { return }
        if wants {
            let write = DispatchSource.makeWriteSource(fileDescriptor: descriptor, queue: loop.queue)
            write.setEventHandler { [unowned loop] in
                loop.batch { loop.ready(token: token, readable: false, writable: true) }
            }
            write.activate()
            watches[token]?.write = write
        } else {
            watches[token]?.write?.cancel()
            watches[token]?.write = nil
        }
    }

    func removeAndClose(_ descriptor: Int32, token: UInt64) {
        guard let watch = watches.removeValue(forKey: token) else { return }
        // Dispatch must have let go of the descriptor before its number is used again.
        watch.write?.cancel()
        watch.read.setCancelHandler { close(descriptor) }
        watch.read.cancel()
    }

    func stop() {
        for watch in watches.values {
            watch.write?.cancel()
            watch.read.cancel()
        }
    }
}
