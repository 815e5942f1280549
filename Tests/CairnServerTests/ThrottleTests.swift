import CairnCore
import CairnService
import CairnStore
import CairnTesting
import Foundation
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
        for _ in 0..<10 { #expect(throttle.turn(limits, now: now) == .admitted) }
        for _ in 0..<50 {
            let wait = after(throttle.turn(limits, now: now))
            #expect(wait == Self.second / 10)
            #expect(after(throttle.turn(limits, now: now + wait! - 1)) == 1)
            now += wait!
            #expect(throttle.turn(limits, now: now) == .admitted)
        }
        // Quiet for long: no more than a second's worth is saved up.
        now += 100 * Self.second
        for _ in 0..<10 { #expect(throttle.turn(limits, now: now) == .admitted) }
        #expect(after(throttle.turn(limits, now: now)) != nil)
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
            if throttle.turn(limits, now: now) == .admitted { admitted.append(now) }
        }
        for (index, begin) in admitted.enumerated() where index.isMultiple(of: 7) {
            let inTwoSeconds = admitted[index...].prefix { $0 < begin + 2 * Self.second }.count
            #expect(UInt64(inTwoSeconds) <= 3 * rate)
        }
        // What may pass does: it is asked for more often than the rate.
        #expect(UInt64(admitted.count) >= (now - Self.second) / (Self.second / rate) / 2)
    }

    @Test("R3: bytes in flight; a call that is larger than the limit goes alone; what is refused counts for nothing")
    func bytes() throws {
        let throttle = Throttle(bytes: 1 << 30)
        let limits = limits(requests: 1000, bytes: 100 << 10)
        let alice = AccountID("alice")!
        func admit(_ kibibytes: Int) throws(ServiceError) -> Throttle.Hold {
            try throttle.admit(alice, bytes: kibibytes << 10, limits, now: 0)
        }
        func refused(_ kibibytes: Int) -> Bool {
            do throws(ServiceError) { _ = try admit(kibibytes) } catch {
                return error.code == .throttled && error.retryAfter == .milliseconds(100)
                    && error.text.contains("102400")
            }
            return false
        }
        var hold: Throttle.Hold? = try admit(500)
        #expect(refused(1))
        hold = nil
        // Each counts a kibibyte beside its request.
        hold = try admit(59)
        #expect(refused(40))
        #expect(throttle.bytesInFlight == 60 << 10)
        let rest = try admit(39)
        #expect(throttle.bytesInFlight == 100 << 10)
        withExtendedLifetime((hold, rest)) {}
        hold = nil
        #expect(throttle.bytesInFlight == 40 << 10)
    }

    @Test(
        "R3: room for an answer is asked for beside other calls, not beside its own; what the answer has counts in the end"
    )
    func answers() throws {
        let throttle = Throttle(bytes: 1 << 30)
        let limits = limits(bytes: 100 << 10)
        let alice = AccountID("alice")!
        let first = try throttle.admit(alice, bytes: 1 << 10, limits, now: 0)
        // Larger than the limit, and alone.
        try first.widen(by: 500 << 10)
        #expect(throttle.bytesInFlight == 502 << 10)
        first.answers(bytes: 50 << 10)
        #expect(throttle.bytesInFlight == 51 << 10)
        let second = try throttle.admit(alice, bytes: 1 << 10, limits, now: 0)
        let error = #expect(throws: ServiceError.self) { try second.widen(by: 50 << 10) }
        #expect(error?.code == .throttled)
        #expect(throttle.bytesInFlight == 53 << 10)
        try second.widen(by: 47 << 10)
        second.answers(bytes: 3)
        #expect(throttle.bytesInFlight == 53 << 10)
        withExtendedLifetime((first, second)) {}
    }

    @Test("R3: a call may ask for room more than once, beside all that it counts for already")
    func widenedTwice() throws {
        let throttle = Throttle(bytes: 1 << 30)
        let limits = limits(bytes: 100 << 10)
        let alice = AccountID("alice")!
        let first = try throttle.admit(alice, bytes: 1 << 10, limits, now: 0)
        // Larger than the limit, and alone, both times.
        try first.widen(by: 200 << 10)
        try first.widen(by: 200 << 10)
        #expect(throttle.bytesInFlight == 402 << 10)
        first.answers(bytes: 3)
        #expect(throttle.bytesInFlight == 2 << 10)
        let second = try throttle.admit(alice, bytes: 1 << 10, limits, now: 0)
        try second.widen(by: 50 << 10)
        #expect(throws: ServiceError.self) { try second.widen(by: 50 << 10) }
        #expect(throttle.bytesInFlight == 54 << 10)
        withExtendedLifetime((first, second)) {}
    }

    @Test("R3: a hold counts until it is let go of; accounts do not count for each other; quiet ones are forgotten")
    func holds() throws {
        let throttle = Throttle(bytes: 1 << 30)
        let limits = limits(bytes: 100 << 10)
        let (alice, bob) = (AccountID("alice")!, AccountID("bob")!)
        var hold: Throttle.Hold? = try throttle.admit(alice, bytes: 99 << 10, limits, now: 0)
        #expect(throws: ServiceError.self) { try throttle.admit(alice, bytes: 1, limits, now: 0) }
        let other = try throttle.admit(bob, bytes: 99 << 10, limits, now: 0)
        hold = nil
        hold = try throttle.admit(alice, bytes: 99 << 10, limits, now: 0)
        for number in 0..<10_000 { _ = try throttle.admit(AccountID("a\(number)")!, bytes: 1, limits, now: 0) }
        // Those that hold something are still known.
        #expect(throws: ServiceError.self) { try throttle.admit(alice, bytes: 1, limits, now: 0) }
        #expect(throws: ServiceError.self) { try throttle.admit(bob, bytes: 1, limits, now: 0) }
        #expect(throttle.accountCount < 10_000)
        // Those that somebody holds are still the same.
        let held = throttle.account(AccountID("quiet")!, now: 0)
        for number in 0..<10_000 { _ = try throttle.admit(AccountID("b\(number)")!, bytes: 1, limits, now: 0) }
        #expect(throttle.account(AccountID("quiet")!, now: 0) === held)
        withExtendedLifetime((hold, other)) {}
    }

    @Test(
        "R3: of the server's memory each account has as much as is free: one half, two a third each; never more than there is"
    )
    func shares() throws {
        let limit = 100 << 20
        let throttle = Throttle(bytes: UInt64(limit))
        func fill(_ name: String) -> [Throttle.Hold] {
            var holds: [Throttle.Hold] = []
            while let hold = try? throttle.admit(AccountID(name)!, bytes: 9 << 10, AccountLimits(), now: 0) {
                holds.append(hold)
            }
            return holds
        }
        // Of 10 KiB each.
        func share(_ holds: [Throttle.Hold]) -> Double { Double(holds.count * (10 << 10)) / Double(limit) }
        var first = fill("first")
        #expect((0.49...0.5).contains(share(first)))
        // Who comes later has its part of what is left, and the first gets no more until it has less.
        let second = fill("second")
        #expect((0.24...0.25).contains(share(second)))
        #expect(fill("first").isEmpty)
        #expect(throws: ServiceError.self) { try first[0].widen(by: 9 << 10) }
        first = []
        first = fill("first")
        #expect((0.36...0.375).contains(share(first)))
        let more = fill("second")
        #expect(more.isEmpty || share(second + more) < 0.34)
        var all = [first, second, more]
        for number in 0..<200 { all.append(fill("a\(number)")) }
        #expect(throttle.bytesInFlight <= UInt64(limit))
        #expect(throttle.bytesInFlight > UInt64(limit) / 10 * 9)
        all = []
        #expect(throttle.bytesInFlight == UInt64(first.count + second.count + more.count) * (10 << 10))
    }

    @Test("R3: of the calls that the server takes at once, too, each account has as many as are free")
    func calls() throws {
        let throttle = Throttle(bytes: 1 << 50)
        var holds: [Throttle.Hold] = []
        while let hold = try? throttle.admit(AccountID("alice")!, bytes: 1, AccountLimits(), now: 0) {
            holds.append(hold)
        }
        #expect(holds.count == Int(Throttle.callLimit) / 2)
        let other = try throttle.admit(AccountID("bob")!, bytes: 1, AccountLimits(), now: 0)
        withExtendedLifetime((holds, other)) {}
    }
}

extension Throttle {
    fileprivate func admit(_ id: AccountID, bytes: Int, _ limits: AccountLimits, now: UInt64) throws(ServiceError)
        -> Hold
    {
        try admit(account(id, now: now), bytes: bytes, limits, now: now)
    }
}

@Suite struct MachineMemoryTests {
    @Test("the least limit of the control groups that a process is in counts, of both versions")
    func groups() throws {
        let root = Torture.scratchFolder("cairn-memory")
        defer { try? FileManager.default.removeItem(atPath: root) }
        func write(_ path: String, _ text: String) throws {
            let file = root + "/sys/fs/cgroup/" + path
            try FileManager.default.createDirectory(
                atPath: String(file[..<file.lastIndex(of: "/")!]),
                withIntermediateDirectories: true
            )
            try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        }
        try write("a/memory.max", "5000\n")
        try write("a/b/memory.max", "max\n")
        try write("a/c/memory.max", "300\n")
        try write("memory/d/memory.limit_in_bytes", "700\n")
        #expect(MachineMemory.groupLimit(in: root, of: "0::/a/b\n") == 5000)
        #expect(MachineMemory.groupLimit(in: root, of: "0::/a/c\n") == 300)
        #expect(MachineMemory.groupLimit(in: root, of: "0::/\n") == nil)
        #expect(MachineMemory.groupLimit(in: root, of: "0::/gone\n") == nil)
        #expect(MachineMemory.groupLimit(in: root, of: "4:cpu:/a\n3:rdma,memory:/d\n0::/a\n") == 700)
        #expect(MachineMemory.groupLimit(in: root, of: "no list") == nil)
        #expect(MachineMemory.bytes > 1 << 20)
    }
}
