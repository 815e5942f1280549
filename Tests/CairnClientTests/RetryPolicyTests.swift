import CairnRPC
import CairnWire
import Testing

@testable import CairnClient

struct RetryPolicyTests {
    let policy = RetryPolicy()

    func decide(_ failure: RPCError, attempt: Int = 1, repeatable: Bool = true) -> RetryPolicy.Decision {
        policy.decide(failure, attempt: attempt, repeatable: repeatable, dice: 1)
    }

    func answered(_ error: CallError) -> RPCError {
        RPCError(.answered, delivery: .answered, status: error.status.rawValue, detail: error.detail.encode())
    }

    @Test func aLostCallIsRepeatedByTheSameInstanceIfThatIsSafe() {
        let lost = RPCError(.connectionLost, delivery: .unknown)
        #expect(decide(lost) == .again(after: .milliseconds(50), sameInstance: true))
        #expect(decide(lost, repeatable: false) == .giveUp)
        #expect(
            decide(RPCError(.connectionLost, delivery: .notSent), repeatable: false)
                == .again(after: .milliseconds(50), sameInstance: false)
        )
        #expect(
            decide(RPCError(.goingAway, delivery: .notSent), repeatable: false)
                == .again(after: .milliseconds(50), sameInstance: false)
        )
    }

    @Test func theServersWordDecides() {
        #expect(decide(answered(CallError(.invalidVolumeID))) == .giveUp)
        #expect(decide(answered(CallError(.dataLoss))) == .giveUp)
        #expect(decide(answered(CallError(.unavailable))) == .again(after: .milliseconds(50), sameInstance: false))
        #expect(
            decide(answered(CallError(.throttled, retryAfter: .seconds(7))))
                == .again(after: .seconds(7), sameInstance: false)
        )
        let refused = CallError(.authenticationFailure)
        #expect(
            decide(
                RPCError(.refused, delivery: .notSent, status: refused.status.rawValue, detail: refused.detail.encode())
            ) == .giveUp
        )
    }

    @Test(arguments: [RPCError.Code.cancelled, .deadlineExceeded, .insecure, .tooLarge, .protocolViolation])
    func someFailuresAreFinal(code: RPCError.Code) {
        #expect(decide(RPCError(code, delivery: .notSent)) == .giveUp)
    }

    @Test func waitsGrowAndEnd() {
        let waits = (1...12).map { policy.backOff(attempt: $0, dice: 1) }
        #expect(waits.prefix(3) == [.milliseconds(50), .milliseconds(100), .milliseconds(200)])
        #expect(waits.last == .seconds(5))
        #expect(policy.backOff(attempt: 1_000_000, dice: 0.5) == .milliseconds(2500))
        #expect(decide(RPCError(.unreachable, delivery: .notSent), attempt: 31) == .giveUp)
    }
}
