package import CairnTransport
internal import CairnWire
internal import Dispatch

#if canImport(Glibc)
    internal import Glibc
#endif

/// Time, GOAWAY and the end.
extension RPCConnection {
    /// How long a peer may take to close after our GOAWAY, once nothing is in flight.
    private static let farewellLimit: UInt64 = 2_000_000_000
    /// A certificate's end is looked at this often at least: the wall clock may be set.
    private static let expiryCheck: UInt64 = 3600 * 1_000_000_000

    // MARK: Time

    func armTimer() {
        var next = UInt64.max
        if let helloDeadline { next = helloDeadline } else { next = min(liveness.nextCheck, expiryTime) }
        if let farewellDeadline { next = min(next, farewellDeadline) }
        if let deadline = outgoingDeadlines.next { next = min(next, deadline) }
        if let deadline = servedDeadlines.next { next = min(next, deadline) }
        timer.set(next)
    }

    private var wallSeconds: Int64 { Int64(Glibc.time(nil)) }

    /// When to look at the peer's certificate again.
    private var expiryTime: UInt64 {
        let left = max(0, peerCertificate.notAfter - wallSeconds)
        return EventLoop.now + min(UInt64(left) &* 1_000_000_000, RPCConnection.expiryCheck)
    }

    func timePassed() {
        guard !hasEnded else { return }
        let now = EventLoop.now
        if let helloDeadline, now >= helloDeadline {
            end(CallError(.deadlineExceeded, "HELLO took too long"), as: .unreachable)
            return
        }
        if let farewellDeadline, now >= farewellDeadline {
            transport?.finish()
            return
        }
        if session.phase == .open || session.phase == .draining {
            // The certificate's last second is still good.
            guard wallSeconds <= peerCertificate.notAfter else {
                end(CallError(.authenticationFailure, "the certificate has expired"))
                return
            }
            switch liveness.check(now: now) {
            case .fine: break
            case .ping(let number): send(FrameHeader(.ping, callID: number))
            case .dead:
                lost(RPCError(.connectionLost, delivery: .unknown, text: "the peer does not answer"))
                return
            case .slow:
                end(CallError(.protocolError, "a frame took too long"), as: .connectionLost)
                return
            }
        }
        while let token = outgoingDeadlines.pop(due: now) { giveUp(token, .deadlineExceeded) }
        while let id = servedDeadlines.pop(due: now) { peerGaveUp(id, .expired) }
        settle()
        if !hasEnded { armTimer() }
    }

    // MARK: Going away

    func beginDrain() {
        guard !hasEnded else { return }
        guard session.phase == .open || session.phase == .draining else {
            end(status: 0, detail: [])
            return
        }
        sayGoAway()
        settle()
    }

    private func sayGoAway() {
        guard session.goAway() else { return }
        facts.withLock { $0.isOpen = false }
        send(FrameHeader(.goAway))
        dropWaiting()
    }

    /// Calls that were never sent can be made on another connection.
    private func dropWaiting() {
        failCalls(.goingAway, text: "the connection is going away") { $0.id == 0 }
    }

    func beginRetirement(_ body: @escaping @Sendable () -> Void) {
        guard !served.isEmpty || awaitsDecision else {
            body()
            end(status: 0, detail: [])
            return
        }
        retireObservers.append(body)
        guard !hasEnded, !awaitsDecision else { return }
        sayGoAway()
        for id in served.keys.sorted() { peerGaveUp(id, .cancelled) }
    }

    /// The last of the peer's calls has ended.
    func tellRetired() {
        guard !retireObservers.isEmpty else { return }
        let observers = retireObservers
        retireObservers = []
        for observer in observers { observer() }
        end(status: 0, detail: [])
    }

    func peerGoesAway(_ status: UInt32, detail: [UInt8]) {
        facts.withLock { $0.isOpen = false }
        if status != 0 || session.phase == .greeting {
            let text = CallError(status: status, detail: detail).description
            finishTransport(RPCError(.refused, delivery: .unknown, status: status, detail: detail, text: text))
        } else {
            dropWaiting()
        }
    }

    /// Going away, and nothing is in flight any more: who was told to go closes, who told waits for that, but not for long.
    func sayFarewell() {
        if session.hasReceivedGoAway {
            finishTransport(nil)
        } else if farewellDeadline == nil {
            farewellDeadline = EventLoop.now + RPCConnection.farewellLimit
            timer.setNoLater(farewellDeadline!)
        }
    }

    // MARK: The end

    func violated(_ fault: ProtocolFault) {
        end(CallError(.protocolError, fault.description), as: .protocolViolation)
    }

    func end(_ error: CallError, as code: RPCError.Code = .connectionLost) {
        guard !hasEnded else { return }
        let detail = error.detail.encode()
        sayLastWords(status: error.status.rawValue, detail: detail)
        finishTransport(
            RPCError(code, delivery: .unknown, status: error.status.rawValue, detail: detail, text: error.text)
        )
    }

    func end(status: UInt32, detail: [UInt8]) {
        guard !hasEnded else { return }
        if status != 0 { sayLastWords(status: status, detail: detail) }
        finishTransport(
            status == 0 ? nil : RPCError(.connectionLost, delivery: .unknown, status: status, detail: detail)
        )
    }

    private func sayLastWords(status: UInt32, detail: [UInt8]) {
        // Before our HELLO a client has nothing to say.
        guard session.role == .server || session.phase == .open || session.phase == .draining else { return }
        send(FrameHeader(.goAway, value: status), message: RPCConnection.shortened(detail))
    }

    /// An encoded `cairn.v1.ErrorDetail` that a GOAWAY has room for: of one that is longer the text is cut.
    private static func shortened(_ detail: [UInt8]) -> [UInt8] {
        guard detail.count > Int(SessionLimits.goAwayBytes) else { return detail }
        guard var message = try? Wire.ErrorDetail.decode(detail) else { return [] }
        // 4 bytes each at most: and the other fields have their room.
        message.text = String(String.UnicodeScalarView(message.text.unicodeScalars.prefix(512)))
        return message.encode()
    }

    /// What was sent still goes out, and is counted until it has (``connection(_:sent:)``); for everybody here it is over.
    private func finishTransport(_ error: RPCError?) {
        let transport = self.transport
        concluded(error)
        transport?.finish()
    }

    /// There is nobody to tell.
    func lost(_ error: RPCError) {
        let transport = self.transport
        concluded(error)
        transport?.abort()
    }

    package func connectionClosed(_ connection: Connection, error: TransportError?) {
        // What has not left by now never will.
        marks = []
        concluded(error.map(RPCError.init))
    }

    /// Everything that waits for this connection hears that it is over. Once.
    func concluded(_ error: RPCError?) {
        guard !hasEnded else { return }
        hasEnded = true
        endError = error
        facts.withLock { $0.isOpen = false }
        timer.invalidate()
        transport = nil
        let text = error?.text ?? "the connection was closed"
        failCalls(error?.code == .protocolViolation ? .protocolViolation : .connectionLost, text: text) { _ in true }
        let waiting = undelivered
        undelivered = []
        for call in waiting { call.abandon() }
        for id in served.keys.sorted() { peerGaveUp(id, .disconnected) }
        // A body that had begun to come in.
        decoder = FrameDecoder(messageLimit: 0, payloadLimit: 0)
        reception = .welcome(nil)
        opened?(error ?? RPCError(.connectionLost, delivery: .notSent, text: text))
        opened = nil
        authenticator = nil
        isStillAccepted = nil
        let observers = closeObservers
        closeObservers = []
        for observer in observers { observer(error) }
    }
}

extension RPCError {
    /// A transport's error as that of calls.
    init(_ error: TransportError) {
        switch error.code {
        case .unreachable, .timedOut, .cannotListen: self.init(.unreachable, delivery: .notSent, text: error.text)
        case .tls: self.init(.insecure, delivery: .unknown, text: error.text)
        case .truncated, .broken, .stuck: self.init(.connectionLost, delivery: .unknown, text: error.text)
        }
    }
}
