internal import CairnWire

/// The callee's side of a connection's calls: that ids rise, that the peer keeps to its credit, and how many are in flight.
///
/// Invariant: what the peer believes it may still send, plus `outstanding`, is the window of our HELLO; `pending` is the part of
/// `outstanding` whose buffers are free again and which the next frame gives back.
struct CalleeLedger {
    private let window: Int
    private let slots: Int
    private var lastID: UInt64 = 0
    private(set) var outstanding = 0
    private(set) var pending = 0
    /// Calls from their REQUEST until their answer has been written.
    private(set) var inFlight = 0

    init(_ limits: SessionLimits) {
        window = Int(limits.credit)
        slots = Int(limits.calls)
    }

    /// A REQUEST's header came in: before memory is taken for its body.
    mutating func admit(_ header: FrameHeader) throws(ProtocolFault) {
        guard header.callID > lastID else { throw .callIDNotRising(header.callID) }
        lastID = header.callID
        let cost = creditCost(of: header)
        guard outstanding + cost <= window else { throw .credit(outstanding: outstanding + cost, granted: window) }
        outstanding += cost
    }

    /// The REQUEST is whole. False: more calls are in flight than we take.
    mutating func begin() -> Bool {
        guard inFlight < slots else { return false }
        inFlight += 1
        return true
    }

    /// A call's answer has been written: its slot is free.
    mutating func finished() {
        precondition(inFlight > 0)
        inFlight -= 1
    }

    /// The buffers of a request that cost `cost` are free again.
    mutating func released(_ cost: Int) {
        pending += cost
        precondition(pending <= outstanding)
    }

    /// The credit that the next frame gives back.
    mutating func takePending() -> UInt32 {
        defer { pending = 0 }
        outstanding -= pending
        return UInt32(pending)
    }

    /// Whether enough has gathered to be worth a frame of its own. Less can wait: it goes with the answer of the very call
    /// whose buffers became free early.
    var isWorthAFrame: Bool { pending > 0 && pending >= window / 4 }
}
