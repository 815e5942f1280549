public import CairnCore
package import CairnCrypto

#if canImport(Glibc)
    internal import Glibc
#endif

/// Who uses a connection. All calls come on the connection's loop.
package protocol ConnectionOwner: AnyObject {
    /// The connection exists; its handshake begins.
    func connectionStarted(_ connection: Connection)
    /// The handshake is done: the peer has proved who it is.
    func connectionOpened(_ connection: Connection, peer: PeerCertificate)
    /// Bytes came in; they are gone after the call.
    func connection(_ connection: Connection, received bytes: UnsafeRawBufferPointer)
    /// Where the next bytes are wanted; nil: they come by `received`.
    func readTarget(of connection: Connection) -> UnsafeMutableRawBufferPointer?
    /// `count` bytes came in at the start of the read target.
    func connection(_ connection: Connection, filled count: Int)
    /// All bytes of this event were given; what is sent now goes out together.
    func connectionPaused(_ connection: Connection)
    /// Of all bytes ever given to `send`, the first `total` are with the system.
    func connection(_ connection: Connection, sent total: UInt64)
    /// The connection has ended; nil: the peer closed it in order. The last call.
    func connectionClosed(_ connection: Connection, error: TransportError?)
}

/// A TLS connection over TCP: bytes in, bytes out. It knows no frames.
///
/// Confined to its loop; all methods are called within one of its batches. Buffers belong to the loop, so that an idle
/// connection holds next to nothing; ciphertext that the system did not take is the exception, at most 256 KiB.
public final class Connection {
    enum State {
        case handshaking, open
        /// What was given to `send` goes out, then our end is closed.
        case finishing
        /// The owner is gone; what the peer still sends is thrown away until it closes, so that our last words reach it.
        case lingering
        case closed
    }

    /// How long a peer may take to close after us.
    private static let lingerLimit: UInt64 = 2_000_000_000
    /// How long our last bytes may take to leave.
    private static let finishLimit: UInt64 = 10_000_000_000
    /// Ciphertext beyond this means that the peer makes us answer (key updates) without reading.
    private static let heldLimit = 512 << 10

    public let loop: EventLoop
    /// The peer's address, for people.
    public let peerAddress: String
    private(set) var state = State.handshaking
    private var owner: (any ConnectionOwner)?
    private var descriptor: Int32
    private(set) var token: UInt64 = 0
    /// With whom it takes its turns.
    private(set) var share = LoopShare.strangers
    /// Whether it waits for its turn, and what for.
    var isInLine = false
    private var isReadable = false
    private var isWritable = false
    /// Bytes received and sent in its last turn.
    var lastMoved = 0
    private let session: TLSSession
    private var outbox = Outbox()
    /// Ciphertext that the system did not take yet.
    private var held: ArraySlice<UInt8> = []
    private var wantsWrite = false
    /// Whether it is flushed without being told that it is writable.
    private(set) var isDirty = false
    private var given: UInt64 = 0
    private var encrypted: UInt64 = 0
    private var reported: UInt64 = 0
    private var sending = SendWatch()
    private var timer: LoopTimer!
    private var atEnd: (() -> Void)?

    /// Takes over `descriptor`, a connected socket. `atEnd` runs when the descriptor is closed, after lingering.
    init(
        loop: EventLoop,
        descriptor: Int32,
        peerAddress: String,
        session: TLSSession,
        owner: any ConnectionOwner,
        atEnd: (() -> Void)?
    ) {
        self.loop = loop
        self.descriptor = descriptor
        self.peerAddress = peerAddress
        self.session = session
        self.owner = owner
        self.atEnd = atEnd
        // Not weak: that would make all counting of references to the connection dearer, for good.
        timer = LoopTimer(loop: loop) { [unowned self] in timeIsUp() }
    }

    deinit { timer.invalidate() }

    /// Begins the handshake.
    func start(handshakeLimit: Duration) {
        timer.set(EventLoop.now + handshakeLimit.nanoseconds)
        owner?.connectionStarted(self)
        guard state == .handshaking else {
            // The owner has thought better of it.
            return
        }
        guard let token = loop.add(self, descriptor: descriptor) else {
            end(TransportError(.broken, "epoll", errno: errno))
            return
        }
        self.token = token
        // A client speaks first.
        advance { () throws(TLSError) in try self.shakeHands() }
    }

    /// Ends the connection when the peer takes nothing of what is sent to it for `stall`, or takes it slower than `rate` bytes a
    /// second beyond that.
    package func limitSending(stall: Duration, rate: Int) {
        sending.stallLimit = stall.nanoseconds
        sending.rate = UInt64(max(1, rate))
    }

    /// All connections of one party, whatever that is, share their turns.
    package func belongs(to party: Int) { share = .party(party) }

    // MARK: Turns

    func becameReady(readable: Bool, writable: Bool) {
        isReadable = isReadable || readable
        isWritable = isWritable || writable
    }

    /// See ``TLSSession/keepsBuffers``.
    var keepsBuffers: Bool {
        get { session.keepsBuffers }
        set { session.keepsBuffers = newValue }
    }

    func haveTurn() {
        isInLine = false
        if state == .open, !keepsBuffers { loop.letKeepBuffers(self) }
        let (readable, writable) = (isReadable, isWritable)
        (isReadable, isWritable) = (false, false)
        if writable { writeReady() } else if isDirty { flush() }
        if readable { readReady() }
    }

    // MARK: Sending

    /// All bytes that were ever given to `send`.
    public var givenBytes: UInt64 { given }
    /// Those of them that are not encrypted yet.
    var waitingBytes: UInt64 { given - encrypted }

    /// Appends bytes to what is sent at the end of the batch.
    public func send(_ fill: (inout [UInt8]) -> Void) {
        guard state == .open else { return }
        outbox.borrow(&loop.spareBytes)
        var count = 0
        outbox.append { bytes in
            let before = bytes.count
            fill(&bytes)
            count = bytes.count - before
        }
        given += UInt64(count)
        markDirty()
    }

    /// Appends a buffer's bytes, without copying large ones: nobody may change them until they are sent.
    public func send(_ slice: BufferSlice) {
        guard state == .open else { return }
        outbox.borrow(&loop.spareBytes)
        outbox.append(slice)
        given += UInt64(slice.count)
        markDirty()
    }

    /// Sends what was given so far before the turn ends: so that the peer has something to do meanwhile.
    package func flushEarly() {
        // The buffers are lent to the connection whose event this is.
        guard isDirty, state == .open, held.isEmpty, loop.reading.map({ $0 == token }) ?? true else { return }
        flush()
    }

    private func markDirty() {
        guard !isDirty else { return }
        isDirty = true
        loop.markDirty(self)
    }

    /// Encrypts and sends what there is, as far as the system takes it.
    func flush() {
        isDirty = false
        guard state == .open || state == .finishing else { return }
        var budget = EventLoop.turnBytes
        while held.isEmpty, !outbox.isEmpty, budget > 0 {
            // Within our own event the input is still in use, and TLS may have something to say that goes first.
            if loop.reading == nil { loop.buffers.reset() }
            let before = encrypted
            do throws(TLSError) {
                try outbox.drain { bytes throws(TLSError) in
                    let taken = try session.write(bytes)
                    encrypted += UInt64(taken)
                    return taken
                }
            } catch {
                fail(TransportError(error))
                return
            }
            budget -= Int(encrypted - before)
            loop.movedBytes += Int(encrypted - before)
            guard sendOutput() else { return }
        }
        if outbox.isEmpty {
            outbox.giveBack(&loop.spareBytes)
        } else if held.isEmpty {
            // The system would take more, but it is others' turn.
            isDirty = true
            loop.lineUp(self)
        }
        reportProgress()
        watchSending()
        updateWantsWrite()
        if state == .finishing, outbox.isEmpty, held.isEmpty { sayGoodbye() }
    }

    /// Sends the loop's output buffer; keeps what the system does not take. False when that ended the connection.
    private func sendOutput() -> Bool {
        let output = loop.buffers.output
        defer { loop.buffers.clearOutput() }
        guard !output.isEmpty else { return true }
        var sent = 0
        if held.isEmpty {
            guard let count = write(output) else { return false }
            sent = count
        }
        if sent < output.count {
            held.append(contentsOf: output[sent...])
            guard held.count <= Connection.heldLimit else {
                fail(TransportError(.stuck, "the peer does not read"))
                return false
            }
        }
        return true
    }

    /// What the system took; nil when the connection is broken, and ended.
    private func write(_ bytes: UnsafeRawBufferPointer) -> Int? {
        while true {
            let count = Glibc.send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if count > 0, sending.isWatching { sending.took(now: EventLoop.now) }
            if count >= 0 { return count }
            if errno == EINTR { continue }
            if errno == EAGAIN { return 0 }
            fail(TransportError(.broken, "send", errno: errno))
            return nil
        }
    }

    private func reportProgress() {
        guard held.isEmpty, reported < encrypted else { return }
        reported = encrypted
        owner?.connection(self, sent: reported)
    }

    /// What waits now has a time to leave in.
    private func watchSending() {
        guard state == .open else { return }
        let before = sending.nextCheck
        if reported < given {
            sending.waits(given: given, sent: reported, now: EventLoop.now)
            // Later checks follow from the first.
            if before == nil, let next = sending.nextCheck { timer.set(next) }
        } else if before != nil {
            sending.isDone()
            timer.cancel()
        }
    }

    private func updateWantsWrite() {
        guard state != .closed else { return }
        let wants = !held.isEmpty || (!outbox.isEmpty && !isDirty)
        guard wants != wantsWrite else { return }
        wantsWrite = wants
        loop.setWantsWrite(wants, descriptor: descriptor, token: token)
    }

    private func writeReady() {
        if !held.isEmpty {
            guard let count = held.withUnsafeBytes({ write($0) }) else { return }
            held.removeFirst(count)
            if held.isEmpty {
                held = []
                // Before more is encrypted: a slow peer's socket is seldom empty afterwards.
                if state == .open || state == .finishing { reportProgress() }
            }
        }
        switch state {
        case .open, .finishing: flush()
        case .handshaking, .lingering:
            updateWantsWrite()
            if state == .lingering, held.isEmpty { shutdown(descriptor, Int32(SHUT_WR)) }
        case .closed: break
        }
    }

    // MARK: Receiving

    private func readReady() {
        var budget = EventLoop.turnBytes
        while budget > 0, state != .closed {
            loop.buffers.reset()
            let input = loop.buffers.input
            let count = recv(descriptor, input.baseAddress, input.count, 0)
            if count < 0 {
                if errno == EINTR { continue }
                if errno != EAGAIN { fail(TransportError(.broken, "receive", errno: errno)) }
                break
            }
            guard count > 0 else {
                ended()
                break
            }
            budget -= count
            loop.movedBytes += count
            if state != .lingering {
                loop.buffers.received(count)
                loop.reading = token
                advance { () throws(TLSError) in
                    try self.shakeHands()
                    try self.decrypt()
                }
                loop.reading = nil
            }
            // Less than there was room for: the socket is empty, and will be reported if it fills again.
            if count < input.count { break }
        }
        if state == .open { owner?.connectionPaused(self) }
    }

    /// Runs a step of TLS, and sends what TLS itself has to say: an alert, too.
    private func advance(_ step: () throws(TLSError) -> Void) {
        do throws(TLSError) {
            try step()
            guard state != .closed, state != .lingering else { return }
            guard sendOutput() else { return }
            updateWantsWrite()
        } catch {
            fail(TransportError(error))
        }
    }

    private func shakeHands() throws(TLSError) {
        guard state == .handshaking, try session.handshake() else { return }
        guard let peer = session.peerCertificate else {
            throw TLSError(.certificate, "the peer's certificate cannot be read")
        }
        // The last handshake message goes out before anything that the owner sends.
        guard sendOutput() else { return }
        timer.cancel()
        state = .open
        share = .connection(token)
        owner?.connectionOpened(self, peer: peer)
    }

    private func decrypt() throws(TLSError) {
        while state == .open || state == .finishing {
            let target = state == .open ? owner?.readTarget(of: self) : nil
            switch try session.read(into: target ?? loop.scratch) {
            case .needsInput: return
            case .closed:
                peerClosed()
                return
            case .bytes(let count):
                guard state == .open else { continue }
                if target != nil {
                    owner?.connection(self, filled: count)
                } else {
                    owner?.connection(self, received: UnsafeRawBufferPointer(rebasing: loop.scratch[..<count]))
                }
            }
        }
    }

    // MARK: The end

    /// Sends what was given, then closes.
    public func finish() {
        switch state {
        case .open:
            state = .finishing
            timer.set(EventLoop.now + Connection.finishLimit)
            markDirty()
        case .handshaking: end(nil)
        case .finishing, .lingering, .closed: break
        }
    }

    /// Closes at once; what was not sent is dropped.
    public func abort() {
        guard state != .closed else { return }
        end(nil)
    }

    /// The peer said that it sends nothing more: in Cairn neither side goes on alone.
    private func peerClosed() {
        tellOwner(nil)
        sayGoodbye()
    }

    private func ended() {
        switch state {
        case .lingering, .finishing: end(nil)
        case .handshaking, .open: end(TransportError(.truncated, "the peer closed the connection"))
        case .closed: break
        }
    }

    private func sayGoodbye() {
        loop.buffers.reset()
        session.shutDown()
        linger(nil)
    }

    /// The connection is of no use any more. What TLS has to say about it still goes out.
    private func fail(_ error: TransportError) {
        guard state != .closed, state != .lingering else {
            end(error)
            return
        }
        if error.code == .tls { linger(error) } else { end(error) }
    }

    /// Sends the loop's output and our end, and waits for the peer's: closing a socket with unread bytes would make the
    /// system reset the connection, and our last words might be lost.
    private func linger(_ error: TransportError?) {
        state = .lingering
        let output = loop.buffers.output
        if !output.isEmpty {
            let sent = held.isEmpty ? Glibc.send(descriptor, output.baseAddress, output.count, Int32(MSG_NOSIGNAL)) : 0
            if sent < output.count { held.append(contentsOf: output[max(0, sent)...]) }
        }
        loop.buffers.reset()
        outbox = Outbox()
        if held.isEmpty { shutdown(descriptor, Int32(SHUT_WR)) }
        timer.set(EventLoop.now + Connection.lingerLimit)
        updateWantsWrite()
        tellOwner(error)
    }

    private func timeIsUp() {
        switch state {
        case .handshaking: end(TransportError(.timedOut, "the handshake took too long"))
        case .open:
            if sending.isStuck(now: EventLoop.now) {
                end(TransportError(.stuck, "the peer does not read"))
            } else if let next = sending.nextCheck {
                timer.set(next)
            }
        case .finishing, .lingering, .closed: end(nil)
        }
    }

    private func end(_ error: TransportError?) {
        guard state != .closed else { return }
        state = .closed
        if token != 0 { loop.remove(descriptor: descriptor, token: token) } else { Glibc.close(descriptor) }
        outbox = Outbox()
        held = []
        tellOwner(error)
        finishEnd()
    }

    private func tellOwner(_ error: TransportError?) {
        let owner = self.owner
        self.owner = nil
        owner?.connectionClosed(self, error: error)
    }

    private func finishEnd() {
        timer.invalidate()
        atEnd?()
        atEnd = nil
    }
}

extension Duration {
    /// In whole nanoseconds; negative ones are none, and 292 years are the longest.
    public var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        guard seconds < Int64.max / 1_000_000_000 else { return UInt64(Int64.max) }
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }
}
