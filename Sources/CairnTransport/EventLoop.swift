internal import CairnCrypto
internal import Dispatch
internal import Synchronization

/// How a loop learns that its sockets are ready.
public enum PollerKind: Sendable {
    /// One Dispatch source on an epoll descriptor that holds all of the loop's sockets.
    case epoll
    /// A Dispatch source for each socket.
    case sources
}

/// A serial queue that owns connections: everything about them happens there, in batches.
///
/// A batch is all events of one wake-up, or all work that other threads have handed over. At a batch's end each connection
/// that has something to send is flushed once, so that the answers of a batch share their writes (DESIGN §4).
// Safety: mutable state is only touched on `queue` (checked by `assertCurrent`), except the mailbox, which has a mutex.
public final class EventLoop: @unchecked Sendable {
    /// Bytes that a connection may receive, or send, in one event before others have their turn.
    static let eventBytes = 1 << 20
    private static let current = DispatchSpecificKey<ObjectIdentifier>()

    let queue: DispatchQueue
    let buffers = TLSBuffers()
    /// Where small pieces of plaintext are decrypted into.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 64)
    var timers: TimerQueue
    /// Memory for the small bytes of whichever connection writes next.
    var spareBytes: [UInt8] = []
    private var poller: (any Poller)!
    private var connections: [UInt64: Connection] = [:]
    private var lastToken: UInt64 = 0
    private var dirty: [Connection] = []
    private var isInBatch = false
    private let mailbox = Mutex<[@Sendable () -> Void]>([])

    public init(name: String = "cairn.loop", poller kind: PollerKind = .epoll) {
        queue = DispatchQueue(label: name)
        timers = TimerQueue(queue: queue)
        queue.setSpecific(key: EventLoop.current, value: ObjectIdentifier(self))
        timers.source.setEventHandler { [weak self] in self?.runTimers() }
        timers.source.activate()
        poller =
            switch kind {
            case .epoll: EpollPoller(loop: self)
            case .sources: SourcePoller(loop: self)
            }
    }

    deinit {
        timers.source.cancel()
        poller.stop()
        scratch.deallocate()
    }

    /// Uptime in nanoseconds, as `DispatchTime` counts it.
    public static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

    /// Whether the caller runs on this loop.
    public var isCurrent: Bool { DispatchQueue.getSpecific(key: EventLoop.current) == ObjectIdentifier(self) }
    public func assertCurrent() { dispatchPrecondition(condition: .onQueue(queue)) }

    /// Runs `work` on the loop, after what was handed over before. Many calls from other threads share one wake-up.
    public func execute(_ work: @escaping @Sendable () -> Void) {
        let wasEmpty = mailbox.withLock { mailbox in
            mailbox.append(work)
            return mailbox.count == 1
        }
        if wasEmpty { queue.async { self.openMailbox() } }
    }

    private func openMailbox() {
        let works = mailbox.withLock { mailbox in
            let works = mailbox
            mailbox = []
            return works
        }
        batch { for work in works { work() } }
    }

    /// Runs `body`, then flushes what it gave connections to send.
    func batch(_ body: () -> Void) {
        assertCurrent()
        isInBatch = true
        body()
        // Flushing tells owners about progress, who may have more to send: until all is quiet.
        while !dirty.isEmpty {
            let connections = dirty
            dirty = []
            for connection in connections { connection.flush() }
        }
        isInBatch = false
    }

    private func runTimers() {
        batch { for action in timers.due(EventLoop.now) { action() } }
    }

    /// `connection` is flushed at the end of the batch.
    func markDirty(_ connection: Connection) {
        assertCurrent()
        precondition(isInBatch, "connections are used from within a batch")
        dirty.append(connection)
    }

    func add(_ connection: Connection, descriptor: Int32) -> UInt64? {
        lastToken += 1
        connections[lastToken] = connection
        guard poller.add(descriptor, token: lastToken) else {
            connections[lastToken] = nil
            return nil
        }
        return lastToken
    }

    func setWantsWrite(_ wants: Bool, descriptor: Int32, token: UInt64) {
        poller.setWantsWrite(wants, descriptor: descriptor, token: token)
    }

    /// Lets go of the connection and closes its descriptor.
    func remove(descriptor: Int32, token: UInt64) {
        connections[token] = nil
        poller.removeAndClose(descriptor, token: token)
    }

    /// One socket's readiness, from the poller, in a batch.
    func ready(token: UInt64, readable: Bool, writable: Bool) {
        // A connection that was closed earlier in this batch is no longer there.
        guard let connection = connections[token] else { return }
        if writable { connection.writeReady() }
        if readable { connection.readReady() }
    }
}

/// Loops that connections are spread over, round-robin.
public final class EventLoops: Sendable {
    private let loops: [EventLoop]
    private let turn = Atomic<Int>(0)

    public init(count: Int, poller: PollerKind = .epoll) {
        precondition(count > 0)
        loops = (0..<count).map { EventLoop(name: "cairn.loop.\($0)", poller: poller) }
    }

    /// The loops of this process: one for each processor, at most 8.
    public static let shared = EventLoops(count: min(8, processorCount))

    /// The loop for the next connection.
    public func next() -> EventLoop {
        let turn = UInt(bitPattern: turn.add(1, ordering: .relaxed).oldValue)
        return loops[Int(turn % UInt(loops.count))]
    }
}
