internal import CairnCore
package import CairnTransport
internal import CairnWire

/// Frames out, and what follows from their having left.
extension RPCConnection {
    /// Most bytes of frames on their way that no call pays for (PONGs, calls turned away): a peer that makes us pile up more
    /// does not read, and is closed. All calls that it may have in flight can be turned away at once.
    static let reserveLimit = 256 << 10
    /// Frames that wait for one another within a turn, to share a TLS record and a system call. More would only keep the peer
    /// waiting: the two sides would work in turns instead of at the same time.
    static let companyFrames = 16

    /// Puts a frame behind those that wait; it carries the credit that there is to give back.
    func send(_ header: FrameHeader, message: [UInt8] = [], payload: [BufferSlice] = []) {
        guard let transport else { return }
        var header = header
        header.messageBytes = UInt32(message.count)
        if header.kind != .hello, session.phase != .greeting, session.phase != .admitting {
            header.credit = session.callee.takePending()
        }
        transport.send { bytes in
            header.encode(to: &bytes)
            bytes.append(contentsOf: message)
        }
        for slice in payload { transport.send(slice) }
        gathered += 1
    }

    /// Sends what has gathered, if it is worth it: after a frame was given to the transport and is accounted for.
    func flushEnough() {
        guard gathered >= RPCConnection.companyFrames else { return }
        gathered = 0
        transport?.flushEarly()
    }

    /// Sends a frame that no call pays for.
    func sendReserve(_ header: FrameHeader, message: [UInt8] = []) {
        let bytes = FrameHeader.byteCount + message.count
        reserveBytes += bytes
        guard reserveBytes <= RPCConnection.reserveLimit else {
            lost(RPCError(.connectionLost, delivery: .unknown, text: "the peer does not read"))
            return
        }
        send(header, message: message)
        mark(bytes, .reserve)
    }

    /// The frame that was just given to the transport counts until it is with the system.
    func mark(_ bytes: Int, _ kind: WriteMark.Kind, hold: (any CallHold)? = nil) {
        guard let transport else { return }
        marks.append(WriteMark(end: transport.givenBytes, bytes: bytes, kind: kind, hold: hold))
    }

    package func connection(_ connection: Connection, sent total: UInt64) {
        gathered = 0
        while let mark = marks.first, mark.end <= total {
            marks.removeFirst()
            switch mark.kind {
            case .reserve: reserveBytes -= mark.bytes
            case .answer:
                budget.giveBack(mark.bytes)
                session.callee.finished()
            }
        }
        settle()
    }

    /// After anything that happened: does what has become possible by it.
    func settle() {
        // What is done here may call us back.
        guard !isSettling, !hasEnded, session.phase != .greeting, session.phase != .admitting else { return }
        // What frames make possible is done once, behind all that have come in; but the peer does not wait for our calls.
        guard !isDecoding || session.caller.waitingCount > 0 else { return }
        isSettling = true
        defer { isSettling = false }
        if !isDecoding {
            // A turn that ends at once may make room for calls that have not begun.
            repeat {
                deliverCalls()
                grantTurns()
            } while budget.hasRoom && !undelivered.isEmpty
        }
        sendCalls()
        guard !isDecoding else { return }
        if session.callee.isWorthAFrame { send(FrameHeader(.credit)) }
        if session.phase == .draining, session.isQuiet, undelivered.isEmpty { sayFarewell() }
    }
}
