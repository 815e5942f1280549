internal import CairnCore
internal import CairnTransport
internal import CairnWire

/// Our calls: sent when the peer has a slot and credit for them, completed by its answer, our clock or the end.
extension RPCConnection {
    func begin(_ token: CallToken, _ call: Outgoing) {
        guard let request = call.request else { preconditionFailure("a call begins with its request") }
        let header = header(of: request)
        if let error = refusal(of: header) {
            call.completion(.failure(error))
            return
        }
        outgoing[token] = call
        if let deadline = call.deadline {
            outgoingDeadlines.insert(token, at: deadline, live: outgoing.count) { outgoing[$0] != nil }
            timer.setNoLater(deadline)
        }
        session.caller.enqueue(token, cost: creditCost(of: header))
        settle()
    }

    private func header(of request: Request) -> FrameHeader {
        FrameHeader(
            .request,
            method: request.method,
            messageBytes: request.message.count,
            payloadBytes: request.payload.reduce(0) { $0 + $1.count }
        )
    }

    /// Why a call cannot even wait.
    private func refusal(of header: FrameHeader) -> RPCError? {
        guard !hasEnded, transport != nil else {
            return RPCError(.connectionLost, delivery: .notSent, text: "the connection is closed")
        }
        guard session.takesCalls else {
            return RPCError(.goingAway, delivery: .notSent, text: "the connection takes no new calls")
        }
        let peer = peerLimits
        guard header.messageBytes <= peer.messageBytes, header.payloadBytes <= peer.payloadBytes,
            creditCost(of: header) <= Int(peer.credit)
        else { return RPCError(.tooLarge, delivery: .notSent, text: "the request is larger than the peer takes") }
        guard session.caller.waitingCount < configuration.waitingCalls else {
            return RPCError(.tooLarge, delivery: .notSent, text: "too many calls wait")
        }
        return nil
    }

    /// Sends what may be sent now.
    func sendCalls() {
        guard session.takesCalls else { return }
        var now: UInt64?
        while let waiting = session.caller.next(isWanted: { outgoing[$0] != nil }) {
            guard let place = outgoing.index(forKey: waiting.call), let request = outgoing.values[place].request else {
                preconditionFailure("sent twice")
            }
            var header = header(of: request)
            header.callID = session.caller.send(waiting, method: request.method)
            if let deadline = outgoing.values[place].deadline {
                now = now ?? EventLoop.now
                header.value = Self.milliseconds(until: deadline, now: now!)
            }
            outgoing.values[place].id = header.callID
            outgoing.values[place].request = nil
            send(header, message: request.message, payload: request.payload)
            flushEnough()
        }
    }

    /// At least 1: 0 would mean no limit. Rounded up.
    private static func milliseconds(until deadline: UInt64, now: UInt64) -> UInt32 {
        guard deadline > now else { return 1 }
        return UInt32(min((deadline - now + 999_999) / 1_000_000, UInt64(UInt32.max)))
    }

    /// The answer to a call; it may have been given up, and is dropped then.
    func complete(_ token: CallToken, _ frame: Frame) {
        guard let call = outgoing.removeValue(forKey: token) else { return }
        if frame.header.value == 0 {
            call.completion(.success(Answer(message: frame.message, payload: frame.payload?.slice)))
        } else {
            let text = CallError(status: frame.header.value, detail: frame.message).description
            call.completion(
                .failure(
                    RPCError(
                        .answered,
                        delivery: .answered,
                        status: frame.header.value,
                        detail: frame.message,
                        text: text
                    )
                )
            )
        }
    }

    /// We no longer wait for a call: it completes now, and the peer is told unless it never heard of it.
    func giveUp(_ token: CallToken, _ code: RPCError.Code) {
        guard let call = outgoing.removeValue(forKey: token) else { return }
        if call.id != 0 { send(FrameHeader(.cancel, callID: call.id)) }
        call.completion(.failure(RPCError(code, delivery: call.id == 0 ? .notSent : .unknown)))
        settle()
    }

    /// All calls that `isConcerned` by the end of things fail.
    func failCalls(_ code: RPCError.Code, text: String, where isConcerned: (Outgoing) -> Bool) {
        let concerned = outgoing.filter { isConcerned($0.value) }
        for (token, call) in concerned {
            outgoing[token] = nil
            call.completion(.failure(RPCError(code, delivery: call.id == 0 ? .notSent : .unknown, text: text)))
        }
    }
}
