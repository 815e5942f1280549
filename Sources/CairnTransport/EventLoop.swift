internal import CairnCore
internal import CairnCrypto
internal import Dispatch
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// Owns connections: everything about them happens in its turns, one after the other, on one thread.
///
/// A turn takes sockets that are ready, all timers that are due, and all work that others have handed over. At its end each connection
/// that has little to send is flushed once, so that the answers of a turn share their writes (DESIGN §4).
///
/// Where much comes or goes a turn ends after some of it, and the sockets are looked at again: connections that are ready wait in line,
/// those of one ``LoopShare`` behind each other, and shares take turns. So nobody who moves little waits until all who move a lot have
/// had their turn, on however many connections they do (SPEC R3).
// Safety: mutable state is only touched within turns (checked by `assertCurrent`), except the mailbox, which has a mutex.
public final class EventLoop: @unchecked Sendable {
    /// Bytes that a connection may receive, or send, before others have their turn, and that are moved in one turn of the loop.
    static let turnBytes = 256 << 10
    /// Who has less than this to send does not wait in line for it.
    private static let smallBytes: UInt64 = 64 << 10
    /// What looking at a ready connection costs, in bytes that would take as long to decrypt.
    private static let leastCost = 4 << 10
    /// Connections that keep TLS's buffers: 4 MiB of them.
    private static let keeperCount = 128
    /// How often work that makes new work is seen to before the sockets are looked at again.
    private static let rounds = 16

    private struct Mailbox {
        var works: [@Sendable () -> Void] = []
        /// Whether who puts something in must wake the loop.
        var isAsleep = true
    }

    let buffers = TLSBuffers()
    /// Where small pieces of plaintext are decrypted into.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 64)
    var timers = TimerQueue()
    /// Memory for the small bytes of whichever connection writes next.
    var spareBytes: [UInt8] = []
    /// The token of the connection to which ``buffers`` are lent for what it has just received.
    var reading: UInt64?
    private let host: any LoopHost
    private var connections: [UInt64: Connection] = [:]
    private var lastToken = SocketSet.wakeToken
    private var dirty: [Connection] = []
    /// The tokens of connections that are ready.
    private var line = FairQueue<LoopShare, UInt64>(quantum: EventLoop.turnBytes)
    /// The tokens of connections that keep TLS's buffers: those that had their first turn last. To take and give them back with each turn
    /// costs busy ones some percent, and idle ones must not have any.
    private var keepers = [UInt64](repeating: SocketSet.wakeToken, count: EventLoop.keeperCount)
    private var nextKeeper = 0
    private var isInTurn = false
    /// What was received and sent in the turn of a connection.
    var movedBytes = 0
    /// What the connections that had their turn in this one cost, see ``cost(of:)``.
    private var spent = 0
    private let mailbox = Mutex(Mailbox())

    public init(name: String = "cairn.loop", on kind: LoopKind = .thread) {
        switch kind {
        case .thread:
            let thread = LoopThread()
            host = thread
            thread.start(self, name: name)
        case .dispatch:
            let queue = LoopQueue(name: name)
            host = queue
            queue.start(self)
        }
    }

    deinit {
        host.stop()
        scratch.deallocate()
    }

    /// Uptime in nanoseconds, as `DispatchTime` counts it.
    public static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

    /// Whether the caller runs on this loop.
    public var isCurrent: Bool { host.isCurrent }
    public func assertCurrent() { precondition(host.isCurrent, "used from outside its loop") }

    /// Runs `work` on the loop, after what was handed over before. Many calls from other threads share one wake-up.
    public func execute(_ work: @escaping @Sendable () -> Void) {
        let mustWake = mailbox.withLock { mailbox in
            mailbox.works.append(work)
            defer { mailbox.isAsleep = false }
            return mailbox.isAsleep
        }
        if mustWake { host.wake(self) }
    }

    /// What was handed over. Where there was nothing at a turn's end, the loop is asleep from here on, unless connections wait.
    private func takeWorks() -> [@Sendable () -> Void] {
        mailbox.withLock { mailbox in
            mailbox.isAsleep = mailbox.works.isEmpty && line.isEmpty
            defer { mailbox.works = [] }
            return mailbox.works
        }
    }

    /// Does what there is to do, as far as it fits into a turn.
    /// - Returns: when the next turn is due if nothing happens: uptime in nanoseconds; 0: at once, `.max`: never.
    func takeTurn() -> UInt64 {
        assertCurrent()
        isInTurn = true
        defer { isInTurn = false }
        spent = 0
        host.sockets.forEachReady(ready)
        if let next = timers.next {
            let now = EventLoop.now
            if next <= now { for timer in timers.due(now) { timer.fire(now) } }
        }
        serveLine()
        for _ in 0..<EventLoop.rounds {
            flushConnections()
            let works = takeWorks()
            if works.isEmpty { return line.isEmpty ? timers.next ?? .max : 0 }
            for work in works { work() }
        }
        flushConnections()
        return 0
    }

    private func ready(token: UInt64, readable: Bool, writable: Bool) {
        // A connection that was closed earlier in this turn is no longer there; nor is one for a wake-up.
        guard let connection = connections[token] else { return }
        connection.becameReady(readable: readable, writable: writable)
        // While little comes there is no line.
        if line.isEmpty, spent < EventLoop.turnBytes {
            serve(connection)
        } else {
            lineUp(connection)
        }
    }

    private func serveLine() {
        while spent < EventLoop.turnBytes, let token = line.popFirst() {
            // Closed while it waited?
            if let connection = connections[token] { serve(connection) }
        }
    }

    private func serve(_ connection: Connection) {
        let (share, paid) = (connection.share, cost(of: connection))
        movedBytes = 0
        connection.haveTurn()
        connection.lastMoved = movedBytes
        if movedBytes > paid { line.charge(movedBytes - paid, to: share) }
        spent += max(movedBytes, paid)
    }

    /// What a turn of `connection` costs, about: what it moved last tells what it will, and more is paid for afterwards. A handshake
    /// takes longer than what it moves.
    private func cost(of connection: Connection) -> Int {
        let moved = connection.share == .strangers ? EventLoop.turnBytes : connection.lastMoved
        return min(max(moved, EventLoop.leastCost), EventLoop.turnBytes)
    }

    /// Flushing tells owners about progress, who may have more to send: until all is quiet. Who is sent much waits in line.
    private func flushConnections() {
        while !dirty.isEmpty {
            let connections = dirty
            dirty = []
            for connection in connections where connection.isDirty {
                if connection.waitingBytes < EventLoop.smallBytes {
                    connection.flush()
                } else {
                    lineUp(connection)
                }
            }
        }
    }

    /// `connection` has its turn when it is the next: now or in a later turn of the loop.
    func lineUp(_ connection: Connection) {
        guard !connection.isInLine else { return }
        connection.isInLine = true
        line.append(connection.token, of: connection.share, cost: cost(of: connection))
    }

    /// `connection` is flushed at the end of the turn.
    func markDirty(_ connection: Connection) {
        precondition(isInTurn, "connections are used from within a turn")
        assertCurrent()
        dirty.append(connection)
    }

    func add(_ connection: Connection, descriptor: Int32) -> UInt64? {
        lastToken += 1
        connections[lastToken] = connection
        guard host.sockets.add(descriptor, token: lastToken) else {
            connections[lastToken] = nil
            return nil
        }
        return lastToken
    }

    /// `connection` keeps TLS's buffers, and the one that has kept them for longest no longer does.
    func letKeepBuffers(_ connection: Connection) {
        connections[keepers[nextKeeper]]?.keepsBuffers = false
        keepers[nextKeeper] = connection.token
        nextKeeper = (nextKeeper + 1) % keepers.count
        connection.keepsBuffers = true
    }

    func setWantsWrite(_ wants: Bool, descriptor: Int32, token: UInt64) {
        host.sockets.setWantsWrite(wants, descriptor: descriptor, token: token)
    }

    /// Lets go of the connection and closes its descriptor.
    func remove(descriptor: Int32, token: UInt64) {
        connections[token] = nil
        host.sockets.removeAndClose(descriptor)
    }
}

/// Loops that connections are spread over, round-robin.
public final class EventLoops: Sendable {
    private let loops: [EventLoop]
    private let turn = Atomic<Int>(0)

    public init(count: Int, on kind: LoopKind = .thread) {
        precondition(count > 0)
        loops = (0..<count).map { EventLoop(name: "cairn.loop.\($0)", on: kind) }
    }

    /// One loop alone.
    public init(_ loop: EventLoop) { loops = [loop] }

    /// The loops of this process: one for every two processors, at most 8. The others hash and compress, or are the peer's; and of
    /// small calls fewer loops carry more, for each finds more of them when it looks.
    public static let shared = EventLoops(count: min(8, max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)) / 2)))

    /// The loop for the next connection.
    public func next() -> EventLoop {
        let turn = UInt(bitPattern: turn.add(1, ordering: .relaxed).oldValue)
        return loops[Int(turn % UInt(loops.count))]
    }
}
