internal import Collections

/// The bytes of answers that one connection may have in preparation or on their way: a slow reader stalls itself alone.
///
/// An answer larger than the whole budget gets its turn when nothing else is charged.
struct AnswerBudget {
    private let limit: Int
    private(set) var used = 0
    private var waiting = Deque<(call: UInt64, bytes: Int)>()

    init(limit: Int) { self.limit = limit }

    /// Whether new calls may begin: answers that nobody charged in advance count as well.
    var hasRoom: Bool { used < limit && waiting.isEmpty }

    /// True: charged. False: `call` waits its turn, first come, first served.
    mutating func charge(_ call: UInt64, bytes: Int) -> Bool {
        guard waiting.isEmpty, fits(bytes) else {
            waiting.append((call, bytes))
            return false
        }
        used += bytes
        return true
    }

    /// What was charged in advance turns into what the answer really takes.
    mutating func adjust(from charged: Int, to actual: Int) { used += actual - charged }

    mutating func giveBack(_ bytes: Int) {
        used -= bytes
        precondition(used >= 0)
    }

    /// The next waiting call whose turn it is; charged. Calls that have ended are passed over.
    mutating func next(isWanted: (UInt64) -> Bool) -> (call: UInt64, bytes: Int)? {
        while let first = waiting.first {
            guard isWanted(first.call) else {
                waiting.removeFirst()
                continue
            }
            guard fits(first.bytes) else { return nil }
            used += first.bytes
            return waiting.removeFirst()
        }
        return nil
    }

    private func fits(_ bytes: Int) -> Bool { used == 0 || used + bytes <= limit }
}
