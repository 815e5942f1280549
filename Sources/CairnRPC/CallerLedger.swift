internal import CairnWire
internal import Collections

/// The caller's side of a connection's calls: ids, the peer's slots for calls in flight, and the credit that it gave us.
///
/// Invariant: `credit + taken == granted`: the peer can give back only what was taken.
struct CallerLedger {
    struct Waiting {
        let call: CallToken
        /// Bytes of credit that it needs; 0: rides on the reserve.
        let cost: Int
    }
    struct InFlight {
        let call: CallToken
        let method: UInt32
    }

    private(set) var slots = 0
    private(set) var credit = 0
    private var granted = 0
    private var lastID: UInt64 = 0
    private var inFlight: [UInt64: InFlight] = [:]
    /// Calls in the order in which they were made. Those without cost may overtake those that wait for credit.
    private var small = Deque<(order: UInt64, Waiting)>()
    private var large = Deque<(order: UInt64, Waiting)>()
    private var lastOrder: UInt64 = 0

    var inFlightCount: Int { inFlight.count }
    var waitingCount: Int { small.count + large.count }

    /// The peer's HELLO said what it takes.
    mutating func open(_ peer: SessionLimits) {
        slots = Int(peer.calls)
        credit = Int(peer.credit)
        granted = credit
    }

    mutating func enqueue(_ call: CallToken, cost: Int) {
        lastOrder += 1
        if cost == 0 {
            small.append((lastOrder, Waiting(call: call, cost: 0)))
        } else {
            large.append((lastOrder, Waiting(call: call, cost: cost)))
        }
    }

    /// The next call that may be sent now, the one made first among those that may. `isWanted` false: it was given up.
    mutating func next(isWanted: (CallToken) -> Bool) -> Waiting? {
        while let first = small.first, !isWanted(first.1.call) { small.removeFirst() }
        while let first = large.first, !isWanted(first.1.call) { large.removeFirst() }
        guard inFlight.count < slots else { return nil }
        let affordable = large.first.flatMap { $0.1.cost <= credit ? $0 : nil }
        switch (small.first, affordable) {
        case (nil, nil): return nil
        case (let first?, let other?) where first.order < other.order: return small.popFirst()?.1
        case (_?, nil): return small.popFirst()?.1
        default: return large.popFirst()?.1
        }
    }

    /// `waiting` goes out now: gives the call's id.
    mutating func send(_ waiting: Waiting, method: UInt32) -> UInt64 {
        precondition(waiting.cost <= credit && inFlight.count < slots)
        lastID += 1
        credit -= waiting.cost
        inFlight[lastID] = InFlight(call: waiting.call, method: method)
        return lastID
    }

    mutating func creditReturned(_ bytes: UInt32) throws(ProtocolFault) {
        guard credit + Int(bytes) <= granted else { throw .creditReturned(bytes) }
        credit += Int(bytes)
    }

    /// Before an answer's body is read.
    func check(answer header: FrameHeader) throws(ProtocolFault) {
        guard let call = inFlight[header.callID] else { throw .unknownCall(header.callID) }
        guard call.method == header.method else { throw .wrongMethod(header.method) }
    }

    /// The answer is here: frees the slot.
    mutating func answered(_ id: UInt64) -> CallToken? { inFlight.removeValue(forKey: id)?.call }

    /// The id of a call that was sent, for CANCEL.
    func id(of call: CallToken, hint: UInt64) -> UInt64? { inFlight[hint]?.call == call ? hint : nil }
}
