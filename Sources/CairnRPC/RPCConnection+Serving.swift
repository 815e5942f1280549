internal import CairnCore
internal import CairnTransport
internal import CairnWire
internal import Dispatch

/// The peer's calls: given to the handler, charged for their answers, answered, and their credit given back.
extension RPCConnection {
    func serve(_ frame: Frame, _ reception: Reception) {
        let header = frame.header
        var hold: (any CallHold)?
        if case .welcome(let given) = reception { hold = given }
        let deadline = header.value == 0 ? nil : requestArrival + UInt64(header.value) * 1_000_000
        let call = IncomingCall(frame, connection: self, deadline: deadline, hold: hold)
        served[call.id] = Served(
            state: call.state,
            method: header.method,
            requestBytes: FrameHeader.byteCount + header.bodyBytes,
            arrival: requestArrival,
            cost: creditCost(of: header)
        )
        observer?.began(method: header.method)
        if case .refusal(let status, let detail) = reception {
            call.fail(status: status, detail: detail)
            return
        }
        if let deadline {
            servedDeadlines.insert(call.id, at: deadline, live: served.count) { served[$0] != nil }
            timer.setNoLater(deadline)
        }
        if undelivered.isEmpty, budget.hasRoom {
            deliver(call)
        } else {
            undelivered.append(call)
        }
    }

    /// Gives waiting calls to the handler while answers have room.
    func deliverCalls() {
        while budget.hasRoom, let call = undelivered.popFirst() {
            // Given up and answered while it waited?
            if served[call.id] != nil { deliver(call) }
        }
    }

    private func deliver(_ call: IncomingCall) {
        guard let handler else {
            finish(call, CallError(.unknownMethod, "this side takes no calls"))
            return
        }
        callsOfEvent += 1
        handler.handle(call)
    }

    private func finish(_ call: IncomingCall, _ error: CallError) {
        call.fail(status: error.status.rawValue, detail: error.detail.encode())
    }

    /// Charges an answer; from any thread.
    func charge(_ id: UInt64, bytes: Int, then body: @escaping @Sendable () -> Void) {
        onLoop { connection in
            guard var entry = connection.served[id] else { return }
            precondition(entry.charged == 0 && entry.turn == nil, "an answer is charged once")
            // Nobody waits for this answer: it does not wait either.
            if entry.state.isCancelled {
                connection.abandon(id, entry.state)
                return
            }
            let hasRoom = connection.budget.charge(id, bytes: bytes)
            if hasRoom { entry.charged = bytes } else { entry.turn = body }
            connection.served[id] = entry
            if hasRoom { body() }
        }
    }

    /// Lets calls go on whose answers have room now.
    func grantTurns() {
        while let next = budget.next(isWanted: { served[$0]?.turn != nil }) {
            let turn = served[next.call]?.turn
            served[next.call]?.turn = nil
            served[next.call]?.charged = next.bytes
            turn?()
        }
    }

    /// A request's buffers are free before its answer; from any thread.
    func release(_ id: UInt64) {
        onLoop { connection in
            guard let cost = connection.served[id]?.cost, cost > 0 else { return }
            connection.served[id]?.cost = 0
            connection.session.callee.released(cost)
            connection.settle()
        }
    }

    /// A call was answered; from any thread.
    func finish(_ id: UInt64, _ result: Result<ReadyAnswer, CallError>) {
        // Most calls are answered where they came in: no closure for them.
        if loop.isCurrent {
            answer(id, result)
            settle()
        } else {
            loop.execute { [self] in
                answer(id, result)
                settle()
            }
        }
    }

    private func answer(_ id: UInt64, _ result: Result<ReadyAnswer, CallError>) {
        guard let entry = served.removeValue(forKey: id) else { return }
        session.callee.released(entry.cost)
        if !hasEnded {
            let answer = fitting(result)
            let header = FrameHeader(
                .response,
                method: entry.method,
                callID: id,
                value: answer.status,
                messageBytes: answer.message.count,
                payloadBytes: answer.payloadBytes
            )
            let bytes = FrameHeader.byteCount + header.bodyBytes
            answer.hold?.answers(bytes: bytes)
            budget.adjust(from: entry.charged, to: bytes)
            send(header, message: answer.message, payload: answer.payload)
            mark(bytes, .answer, hold: answer.hold)
            observer?.ended(
                CallOutcome(
                    method: entry.method,
                    status: answer.status,
                    requestBytes: entry.requestBytes,
                    answerBytes: bytes,
                    nanoseconds: DispatchTime.now().uptimeNanoseconds - entry.arrival
                )
            )
        } else {
            // Nobody hears it.
            let status: UInt32 =
                switch result {
                case .success(let answer): answer.status
                case .failure(let error): error.status.rawValue
                }
            observer?.ended(
                CallOutcome(
                    method: entry.method,
                    status: status,
                    requestBytes: entry.requestBytes,
                    answerBytes: 0,
                    nanoseconds: DispatchTime.now().uptimeNanoseconds - entry.arrival
                )
            )
        }
        if served.isEmpty { tellRetired() }
        flushEnough()
    }

    /// The answer as the peer can take it.
    private func fitting(_ result: Result<ReadyAnswer, CallError>) -> ReadyAnswer {
        let error: CallError
        switch result {
        case .failure(let failure): error = failure
        case .success(let answer):
            let peer = peerLimits
            // A client's answers are short, see ``Session/admit(_:)``.
            let longest =
                session.role == .server ? peer.messageBytes : min(peer.messageBytes, SessionLimits.helloBytes)
            let payloadLimit = session.role == .server ? peer.payloadBytes : 0
            if answer.message.count <= Int(longest), answer.payloadBytes <= Int(payloadLimit) { return answer }
            error = CallError(.internal, "the answer is larger than the peer takes")
        }
        return ReadyAnswer(status: error.status.rawValue, message: error.detail.encode())
    }

    /// The peer no longer wants an answer. Who has not begun is answered here; who has is told.
    func peerGaveUp(_ id: UInt64, _ cause: CallState.GivenUp) {
        guard let entry = served[id] else { return }
        entry.state.giveUp(cause)
        let waits = entry.turn != nil || undelivered.contains { $0.id == id }
        if waits {
            served[id]?.turn = nil
            abandon(id, entry.state)
        }
    }

    /// Answers a call that its caller gave up; from any thread.
    func abandon(_ id: UInt64, _ state: CallState) {
        let reason: Wire.Reason = state.givenUp == .expired ? .deadlineExceeded : .cancelled
        guard state.end() != nil else { return }
        finish(id, .failure(CallError(reason)))
    }

    /// Answers a call that is not carried out.
    func turnAway(_ header: FrameHeader, _ error: CallError) {
        session.callee.released(creditCost(of: header))
        let detail = error.detail.encode()
        sendReserve(
            FrameHeader(
                .response,
                method: header.method,
                callID: header.callID,
                value: error.status.rawValue,
                messageBytes: detail.count
            ),
            message: detail
        )
    }
}
