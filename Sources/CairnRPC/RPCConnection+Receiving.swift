package import CairnCrypto
package import CairnTransport
internal import CairnWire

/// Bytes in: frames are cut out of them, checked by the session, and carried out.
extension RPCConnection: ConnectionOwner {
    package func connectionStarted(_ connection: Connection) {
        guard !hasEnded else {
            connection.abort()
            return
        }
        transport = connection
        connection.limitSending(stall: configuration.stallLimit, rate: configuration.sendRate)
        helloDeadline = EventLoop.now + configuration.handshakeLimit.nanoseconds
    }

    package func connectionOpened(_ connection: Connection, peer: PeerCertificate) {
        facts.withLock { $0.peerCertificate = peer }
        armTimer()
        if session.role == .client { send(FrameHeader(.hello), message: hello) }
    }

    package func readTarget(of connection: Connection) -> UnsafeMutableRawBufferPointer? { decoder.payloadTarget }

    package func connection(_ connection: Connection, filled count: Int) {
        decoder.filledPayload(count)
        decode(UnsafeRawBufferPointer(start: nil, count: 0))
    }

    package func connection(_ connection: Connection, received bytes: UnsafeRawBufferPointer) { decode(bytes) }

    package func connectionPaused(_ connection: Connection) {
        liveness.heard(
            now: EventLoop.now,
            frames: framesReceived,
            partialPayload: decoder.isMidFrame ? decoder.expectedPayloadBytes : nil
        )
        if decoder.isMidFrame { timer.setNoLater(liveness.nextCheck) }
        callsOfEvent = 0
        settle()
    }

    private func decode(_ bytes: UnsafeRawBufferPointer) {
        var input = bytes
        now = EventLoop.now
        isDecoding = true
        defer { isDecoding = false }
        do throws(ProtocolFault) {
            while !hasEnded {
                switch try nextStep(&input) {
                case .needsInput: return
                case .header(let header):
                    try session.admit(header)
                    if header.kind == .request { announced(header) }
                case .frame(let frame):
                    framesReceived += 1
                    try receive(frame)
                }
            }
        } catch {
            violated(error)
        }
    }

    /// A call's body is to come.
    private func announced(_ header: FrameHeader) {
        requestArrival = now
        // Others are bounded by the calls in flight.
        guard creditCost(of: header) > 0, let handler else { return }
        reception = handler.expect(method: header.method, bytes: FrameHeader.byteCount + header.bodyBytes)
        if case .refusal = reception { decoder.skipBody() }
    }

    private func nextStep(_ input: inout UnsafeRawBufferPointer) throws(ProtocolFault) -> FrameDecoder.Step {
        do throws(FrameError) {
            return try decoder.next(in: &input)
        } catch {
            throw .frame(error)
        }
    }

    private func receive(_ frame: Frame) throws(ProtocolFault) {
        let reception = self.reception
        self.reception = .welcome(nil)
        switch session.receive(frame.header) {
        case .hello: try greeted(frame.message)
        case .call: serve(frame, reception)
        case .excess: turnAway(frame.header, CallError(.throttled, "too many calls are in flight", retryable: true))
        case .late: turnAway(frame.header, CallError(.unavailable, "the connection is being closed", retryable: true))
        case .answer(let token): complete(token, frame)
        case .cancel(let id): peerGaveUp(id, .cancelled)
        case .ping(let number): sendReserve(FrameHeader(.pong, callID: number))
        case .goAway(let status): peerGoesAway(status, detail: frame.message)
        case .nothing: break
        }
    }

    /// The peer's HELLO is here: the client opens, the server asks whom it lets in.
    private func greeted(_ message: [UInt8]) throws(ProtocolFault) {
        guard let limits = SessionLimits(hello: message) else { throw .unreadableHello }
        facts.withLock {
            // A server has many clients: who decides about one is given its HELLO, and nobody else needs it.
            if session.role == .client { $0.peerHello = message }
            $0.peerLimits = limits
        }
        guard session.role == .server else {
            open(limits)
            return
        }
        session.deliberate()
        awaitsDecision = true
        let applicant = Applicant(certificate: peerCertificate, hello: message, connection: self)
        authenticator?.authenticate(applicant) { admission in self.onLoop { $0.decided(admission) } }
    }

    private func decided(_ admission: Admission) {
        guard awaitsDecision else { return }
        awaitsDecision = false
        guard retireObservers.isEmpty else {
            tellRetired()
            return
        }
        guard !hasEnded else { return }
        switch admission {
        case .refuse(let status, let detail): end(status: status, detail: detail)
        case .accept(let context, let hello, let handler, let party):
            // Who was in mid-handshake when the rules changed was not looked at then (``RPCServer/replaceTLS(_:)``).
            guard isStillAccepted?(peerCertificate) ?? true else {
                end(.noLongerAccepted)
                return
            }
            guard let hello = configuration.limits.joined(to: hello) else {
                end(CallError(.internal, "the server cannot greet"))
                return
            }
            self.handler = handler
            if let party { transport?.belongs(to: party) }
            facts.withLock { $0.context = context }
            send(FrameHeader(.hello), message: hello)
            open(peerLimits)
            settle()
        }
    }

    private func open(_ peer: SessionLimits) {
        session.open(peer)
        decoder.messageLimit = configuration.limits.messageBytes
        decoder.payloadLimit = configuration.limits.payloadBytes
        helloDeadline = nil
        hello = []
        facts.withLock { $0.isOpen = true }
        armTimer()
        let opened = self.opened
        self.opened = nil
        opened?(nil)
    }
}
