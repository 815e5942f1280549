import CairnWire
import Testing

@testable import CairnRPC

/// The rules without any network: event in, decision out.
@Suite struct StateMachineTests {
    private let second: UInt64 = 1_000_000_000
    private func request(_ id: UInt64, body: Int = 0, payload: Int = 0) -> FrameHeader {
        FrameHeader(.request, method: 1, callID: id, messageBytes: body, payloadBytes: payload)
    }
    private func limits(calls: UInt32 = 4, credit: UInt32 = 10_000) -> SessionLimits {
        var limits = SessionLimits()
        (limits.calls, limits.credit) = (calls, credit)
        return limits
    }
    private func token(_ value: UInt64) -> CallToken { CallToken(rawValue: value) }

    @Test func whatNeedsCredit() {
        #expect(creditCost(of: request(1, body: 4096)) == 0)
        #expect(creditCost(of: request(1, body: 4097)) == 4097)
        #expect(creditCost(of: request(1, body: 10, payload: 1)) == 11)
    }

    @Test func calleeHoldsThePeerToItsCredit() throws {
        var callee = CalleeLedger(limits())
        try callee.admit(request(1, body: 6000))
        #expect(throws: ProtocolFault.credit(outstanding: 12_000, granted: 10_000)) {
            var callee = callee
            try callee.admit(request(2, body: 6000))
        }
        // Free buffers are no credit yet: the peer must have been told.
        callee.released(6000)
        #expect(throws: ProtocolFault.self) {
            var callee = callee
            try callee.admit(request(2, body: 6000))
        }
        #expect(callee.isWorthAFrame)
        #expect(callee.takePending() == 6000)
        try callee.admit(request(2, body: 6000))
        #expect(throws: ProtocolFault.callIDNotRising(2)) { try callee.admit(request(2)) }
    }

    @Test func calleeCountsCallsUntilTheirAnswersAreWritten() {
        var callee = CalleeLedger(limits(calls: 2))
        #expect(callee.begin() == true)
        #expect(callee.begin() == true)
        #expect(callee.begin() == false)
        callee.finished()
        #expect(callee.begin() == true)
    }

    @Test func callerWaitsForSlotsAndCreditInOrder() throws {
        var caller = CallerLedger()
        caller.open(limits(calls: 3, credit: 10_000))
        for (call, cost) in [(1, 8000), (2, 8000), (3, 0), (4, 1000), (5, 0)] {
            caller.enqueue(token(UInt64(call)), cost: cost)
        }
        func sent(_ caller: inout CallerLedger) -> [UInt64] {
            var calls: [UInt64] = []
            while let next = caller.next(isWanted: { $0 != self.token(99) }) {
                calls.append(next.call.rawValue)
                _ = caller.send(next, method: 1)
            }
            return calls
        }
        // 2 lacks credit; 3 and 5 need none and may pass it, 4 may not.
        #expect(sent(&caller) == [1, 3, 5])
        try caller.creditReturned(8000)
        #expect(sent(&caller) == [])
        #expect(caller.answered(1) == token(1))
        #expect(sent(&caller) == [2])
        #expect(throws: ProtocolFault.creditReturned(8001)) { try caller.creditReturned(8001) }
        #expect(throws: ProtocolFault.unknownCall(1)) {
            try caller.check(answer: FrameHeader(.response, method: 1, callID: 1))
        }
        #expect(throws: ProtocolFault.wrongMethod(2)) {
            try caller.check(answer: FrameHeader(.response, method: 2, callID: 2))
        }
    }

    @Test func callerPassesOverCallsThatWereGivenUp() {
        var caller = CallerLedger()
        caller.open(limits(calls: 1, credit: 100_000))
        caller.enqueue(token(1), cost: 50_000)
        caller.enqueue(token(2), cost: 0)
        caller.enqueue(token(3), cost: 0)
        #expect(caller.next { $0.rawValue == 3 }?.call == token(3))
        #expect(caller.waitingCount == 0)
    }

    @Test func budgetIsFirstComeFirstServed() {
        var budget = AnswerBudget(limit: 100)
        #expect(budget.charge(1, bytes: 90) == true)
        #expect(budget.charge(2, bytes: 20) == false)
        // Would fit, but 2 was there before.
        #expect(budget.charge(3, bytes: 5) == false)
        #expect(!budget.hasRoom)
        #expect(budget.next { _ in true } == nil)
        budget.adjust(from: 90, to: 40)
        #expect(budget.next { _ in true }?.call == 2)
        #expect(budget.next { _ in true }?.call == 3)
        #expect(budget.used == 65)
        // Larger than everything: alone.
        #expect(budget.charge(4, bytes: 1000) == false)
        #expect(budget.charge(5, bytes: 1) == false)
        budget.giveBack(65)
        #expect(budget.next { _ in true }?.call == 4)
        #expect(budget.next { _ in true } == nil)
        budget.giveBack(1000)
        #expect(budget.next { $0 != 5 } == nil)
        #expect(budget.used == 0 && budget.hasRoom)
    }

    /// Neither credit nor a budget counts them.
    @Test func answersToTheServerAndFarewellsAreShort() throws {
        func opened(_ role: Session.Role) throws -> Session {
            var session = Session(role, limits: limits())
            try session.admit(FrameHeader(.hello))
            if role == .server { session.deliberate() }
            session.open(limits())
            return session
        }
        func fault(_ header: FrameHeader, to role: Session.Role) throws -> ProtocolFault? {
            var session = try opened(role)
            session.caller.enqueue(token(1), cost: 0)
            if let next = session.caller.next(isWanted: { _ in true }) { _ = session.caller.send(next, method: 1) }
            do throws(ProtocolFault) { try session.admit(header) } catch { return error }
            return nil
        }
        func answer(_ message: Int, _ payload: Int = 0) -> FrameHeader {
            FrameHeader(.response, method: 1, callID: 1, messageBytes: message, payloadBytes: payload)
        }
        #expect(try fault(answer(64 << 10), to: .server) == nil)
        #expect(
            try fault(answer(65 << 10), to: .server) == .frame(.messageTooLong(65 << 10, limit: 64 << 10))
        )
        #expect(try fault(answer(0, 1), to: .server) == .frame(.payloadTooLong(1, limit: 0)))
        #expect(try fault(answer(1 << 20, 16 << 20), to: .client) == nil)
        for role in [Session.Role.client, .server] {
            #expect(try fault(FrameHeader(.goAway, value: 3, messageBytes: 4096), to: role) == nil)
            #expect(
                try fault(FrameHeader(.goAway, value: 3, messageBytes: 4097), to: role)
                    == .frame(.messageTooLong(4097, limit: 4096))
            )
        }
    }

    @Test func deadlinesAreSweptOut() {
        var queue = DeadlineQueue<Int>()
        for id in 0..<100_000 { queue.insert(id, at: UInt64(id), live: 10) { $0 >= 99_990 } }
        #expect(queue.count < 1000)
        var last: Int?
        while let id = queue.pop(due: 200_000) { last = id }
        #expect(last == 99_999)
    }

    @Test func livenessPingsAndGivesUp() {
        var liveness = Liveness(RPCConfiguration(), now: 0)
        #expect(liveness.nextCheck == 30 * second)
        #expect(liveness.check(now: 29 * second) == .fine)
        #expect(liveness.check(now: 30 * second) == .ping(1))
        #expect(liveness.check(now: 49 * second) == .fine)
        liveness.heard(now: 49 * second, frames: 1, partialPayload: nil)
        #expect(liveness.check(now: 51 * second) == .fine)
        #expect(liveness.check(now: 79 * second) == .ping(2))
        #expect(liveness.check(now: 99 * second) == .dead)
    }

    @Test func livenessCutsSlowFrames() {
        var liveness = Liveness(RPCConfiguration(), now: 0)
        liveness.heard(now: 0, frames: 7, partialPayload: 0)
        liveness.heard(now: 29 * second, frames: 7, partialPayload: 0)
        #expect(liveness.check(now: 30 * second) == .slow)
        // A megabyte more may take 16 seconds more.
        liveness.heard(now: 29 * second, frames: 7, partialPayload: 1 << 20)
        #expect(liveness.check(now: 45 * second) == .fine)
        #expect(liveness.check(now: 46 * second) == .slow)
        // Another frame begins anew.
        liveness.heard(now: 46 * second, frames: 8, partialPayload: 0)
        #expect(liveness.check(now: 75 * second) == .fine)
    }

    @Test func sessionsHaveAnOrder() throws {
        var server = Session(.server, limits: limits())
        #expect(throws: ProtocolFault.expectedHello) { try server.admit(request(1)) }
        #expect(throws: ProtocolFault.expectedHello) { try server.admit(FrameHeader(.goAway)) }
        try server.admit(FrameHeader(.hello))
        #expect(server.receive(FrameHeader(.hello)) == .hello)
        server.deliberate()
        #expect(throws: ProtocolFault.outOfTurn(.ping)) { try server.admit(FrameHeader(.ping)) }
        server.open(limits())
        #expect(throws: ProtocolFault.outOfTurn(.hello)) { try server.admit(FrameHeader(.hello)) }
        for id: UInt64 in 1...5 {
            try server.admit(request(id))
            #expect(server.receive(request(id)) == (id < 5 ? .call : .excess))
        }
        let isFirst = server.goAway()
        let isSecond = server.goAway()
        #expect(isFirst && !isSecond)
        try server.admit(request(6))
        #expect(server.receive(request(6)) == .late)
        #expect(!server.takesCalls && !server.isQuiet)
        var client = Session(.client, limits: limits())
        try client.admit(FrameHeader(.goAway, value: 16))
        #expect(client.receive(FrameHeader(.goAway, value: 16)) == .goAway(16))
    }
}
