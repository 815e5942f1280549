import CairnCore
import CairnService
import CairnStore
import Testing

@testable import CairnServer

@Suite struct ThrottleTests {
    private static let second: UInt64 = 1_000_000_000

    private func limits(requests: UInt64 = 0, bytes: UInt64 = 0) -> AccountLimits {
        var limits = AccountLimits()
        (limits.requestsPerSecond, limits.bytesInFlight) = (requests, bytes)
        return limits
    }

    private func after(_ verdict: AccountThrottle.Verdict) -> UInt64? {
        if case .refused(let after, _) = verdict { after } else { nil }
    }

    @Test("R3: a second's worth of requests at once, then as many as the limit says; who waits as told is let in")
    func rate() {
        var throttle = AccountThrottle()
        let limits = limits(requests: 10)
        var now = 5 * Self.second
        for _ in 0..<10 { #expect(throttle.admit(bytes: 1, limits, now: now) == .admitted) }
        for _ in 0..<50 {
            let wait = after(throttle.admit(bytes: 1, limits, now: now))
            #expect(wait == Self.second / 10)
            #expect(after(throttle.admit(bytes: 1, limits, now: now + wait! - 1)) == 1)
            now += wait!
            #expect(throttle.admit(bytes: 1, limits, now: now) == .admitted)
        }
        // Quiet for long: no more than a second's worth is saved up.
        now += 100 * Self.second
        for _ in 0..<10 { #expect(throttle.admit(bytes: 1, limits, now: now) == .admitted) }
        #expect(after(throttle.admit(bytes: 1, limits, now: now)) != nil)
    }

    @Test("R3: over any time no more than the limit, and a second's worth", arguments: 0..<10 as Range<UInt64>)
    func anyArrivals(seed: UInt64) {
        var throttle = AccountThrottle()
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        let rate: UInt64 = [1, 3, 7, 1000][Int(seed % 4)]
        let limits = limits(requests: rate)
        var (now, admitted): (UInt64, [UInt64]) = (Self.second, [])
        for _ in 0..<4000 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            now += state % (Self.second / rate)
            if throttle.admit(bytes: 1, limits, now: now) == .admitted { admitted.append(now) }
        }
        for (index, begin) in admitted.enumerated() where index.isMultiple(of: 7) {
            let inTwoSeconds = admitted[index...].prefix { $0 < begin + 2 * Self.second }.count
            #expect(UInt64(inTwoSeconds) <= 3 * rate)
        }
        // What may pass does: it is asked for more often than the rate.
        #expect(UInt64(admitted.count) >= (now - Self.second) / (Self.second / rate) / 2)
    }

    @Test("R3: bytes in flight; a call that is larger than the limit goes alone; what is refused counts for nothing")
    func bytes() {
        var throttle = AccountThrottle()
        let limits = limits(requests: 1000, bytes: 100)
        #expect(throttle.admit(bytes: 500, limits, now: 0) == .admitted)
        #expect(after(throttle.admit(bytes: 1, limits, now: 0)) == AccountThrottle.bytesRetry)
        throttle.release(bytes: 500)
        #expect(throttle.admit(bytes: 60, limits, now: 0) == .admitted)
        let before = throttle
        #expect(after(throttle.admit(bytes: 41, limits, now: 0)) != nil)
        #expect(throttle == before)
        #expect(throttle.admit(bytes: 40, limits, now: 0) == .admitted)
        throttle.release(bytes: 100)
        #expect(throttle.bytesInFlight == 0)
        #expect(throttle.isIdle(now: Self.second) && !throttle.isIdle(now: 0))
    }

    @Test("R3: a hold counts until it is let go of; accounts do not count for each other; quiet ones are forgotten")
    func holds() throws {
        let throttle = Throttle()
        let limits = limits(bytes: 100)
        let (alice, bob) = (AccountID("alice")!, AccountID("bob")!)
        var hold = try throttle.admit(alice, bytes: 100, limits, now: 0)
        #expect(hold != nil)
        let error = #expect(throws: ServiceError.self) { try throttle.admit(alice, bytes: 1, limits, now: 0) }
        #expect(error?.code == .throttled)
        #expect((error?.retryAfter ?? .zero) > .zero)
        #expect(error?.text.contains("100") == true)
        let other = try throttle.admit(bob, bytes: 100, limits, now: 0)
        hold = nil
        hold = try throttle.admit(alice, bytes: 100, limits, now: 0)
        for number in 0..<10_000 { _ = try throttle.admit(AccountID("a\(number)")!, bytes: 1, limits, now: 0) }
        // Those that hold something are still known.
        #expect(throws: ServiceError.self) { try throttle.admit(alice, bytes: 1, limits, now: 0) }
        #expect(throws: ServiceError.self) { try throttle.admit(bob, bytes: 1, limits, now: 0) }
        #expect(throttle.accountCount < 10_000)
        withExtendedLifetime((hold, other)) {}
    }

    @Test("R3: without a limit nothing is counted") func unlimited() throws {
        let throttle = Throttle()
        for _ in 0..<1000 {
            #expect(try throttle.admit(AccountID("alice")!, bytes: 1 << 30, AccountLimits(), now: 0) == nil)
        }
        #expect(throttle.accountCount == 0)
    }
}
