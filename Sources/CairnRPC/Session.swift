internal import CairnWire

/// The rules of one connection as a state machine: frame headers in, decisions out. No I/O, no clock, no queue.
///
/// ```
///                   our HELLO, peer's HELLO         GOAWAY sent or received
///   .greeting ─────────────────────────────► .open ───────────────────────► .draining
///       (the server: .admitting in between)
/// ```
struct Session {
    enum Role: Equatable { case client, server }
    enum Phase: Equatable {
        /// The peer's HELLO is to come.
        case greeting
        /// The server decides whether to let the client in.
        case admitting
        case open
        /// One side said GOAWAY: calls in flight finish, new ones are not made.
        case draining
    }

    /// What a whole frame means.
    enum Event: Equatable {
        /// The peer's HELLO is in this frame's message.
        case hello
        /// A call to carry out.
        case call
        /// A call to answer at once: too many are in flight.
        case excess
        /// A call to answer at once: we are going away.
        case late
        case answer(CallToken)
        case cancel(UInt64)
        case ping(UInt64)
        /// The peer goes away; with a status it has ended the connection.
        case goAway(UInt32)
        case nothing
    }

    let role: Role
    private(set) var phase = Phase.greeting
    private(set) var hasSentGoAway = false
    private(set) var hasReceivedGoAway = false
    var caller = CallerLedger()
    var callee: CalleeLedger

    init(_ role: Role, limits: SessionLimits) {
        self.role = role
        callee = CalleeLedger(limits)
    }

    /// Whether our side may make calls.
    var takesCalls: Bool { phase == .open }
    /// Whether nothing is in flight in either direction.
    var isQuiet: Bool { callee.inFlight == 0 && caller.inFlightCount == 0 }

    /// A header came in: is the frame allowed now? Before memory is taken for its body.
    mutating func admit(_ header: FrameHeader) throws(ProtocolFault) {
        try checkLengths(header)
        switch phase {
        case .greeting:
            // The server may turn us away instead of greeting us.
            guard header.kind == .hello || (role == .client && header.kind == .goAway) else { throw .expectedHello }
            guard header.credit == 0 else { throw .creditReturned(header.credit) }
        case .admitting: throw .outOfTurn(header.kind)
        case .open, .draining:
            switch header.kind {
            case .hello: throw .outOfTurn(.hello)
            case .request: try callee.admit(header)
            case .response: try caller.check(answer: header)
            case .cancel, .ping, .pong, .credit, .goAway: break
            }
            if header.credit > 0 { try caller.creditReturned(header.credit) }
        }
    }

    /// What neither credit nor a budget counts is short.
    private func checkLengths(_ header: FrameHeader) throws(ProtocolFault) {
        let longest: UInt32
        switch (header.kind, role) {
        case (.goAway, _): longest = SessionLimits.goAwayBytes
        case (.response, .server):
            guard header.payloadBytes == 0 else { throw .frame(.payloadTooLong(header.payloadBytes, limit: 0)) }
            longest = SessionLimits.helloBytes
        default: return
        }
        guard header.messageBytes <= longest else {
            throw .frame(.messageTooLong(header.messageBytes, limit: longest))
        }
    }

    /// The frame that was admitted is whole.
    mutating func receive(_ header: FrameHeader) -> Event {
        switch header.kind {
        case .hello: return .hello
        case .request:
            if hasSentGoAway { return .late }
            return callee.begin() ? .call : .excess
        case .response: return caller.answered(header.callID).map(Event.answer) ?? .nothing
        case .cancel: return .cancel(header.callID)
        case .ping: return .ping(header.callID)
        case .pong, .credit: return .nothing
        case .goAway:
            hasReceivedGoAway = true
            if phase == .open { phase = .draining }
            return .goAway(header.value)
        }
    }

    /// The server has the client's HELLO and decides about it.
    mutating func deliberate() {
        precondition(role == .server && phase == .greeting)
        phase = .admitting
    }

    /// Both sides have greeted.
    mutating func open(_ peer: SessionLimits) {
        precondition(phase == (role == .server ? .admitting : .greeting))
        phase = .open
        caller.open(peer)
    }

    /// We say GOAWAY. False: we already did.
    mutating func goAway() -> Bool {
        defer {
            hasSentGoAway = true
            if phase == .open { phase = .draining }
        }
        return !hasSentGoAway
    }
}
