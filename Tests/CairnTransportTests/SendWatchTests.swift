import Testing

@testable import CairnTransport

@Suite struct SendWatchTests {
    private static let second: UInt64 = 1_000_000_000
    private let begin: UInt64 = 5 * second
    private var watch = SendWatch(stallLimit: 10 * second, rate: 1000)

    @Test mutating func whoTakesNothingIsStuckAfterTheLimit() throws {
        #expect(watch.nextCheck == nil)
        watch.waits(given: 50_000, sent: 0, now: begin)
        #expect(watch.nextCheck == begin + 10 * Self.second)
        #expect(!watch.isStuck(now: begin + 10 * Self.second - 1))
        #expect(watch.isStuck(now: begin + 10 * Self.second))
    }

    @Test mutating func whoTakesFastEnoughNeverIs() {
        var (given, sent): (UInt64, UInt64) = (50_000, 0)
        var now = begin
        for _ in 0..<1000 {
            watch.waits(given: given, sent: sent, now: now)
            now += 9 * Self.second
            #expect(!watch.isStuck(now: now))
            watch.took(now: now)
            sent += 9000
            given += 9000
        }
    }

    /// A byte now and then keeps no connection: 50,000 bytes have 10 s and 50 s.
    @Test mutating func whoTakesDropsIsStuckInTheEnd() {
        var sent: UInt64 = 0
        var now = begin
        while !watch.isStuck(now: now) {
            watch.waits(given: 50_000 + sent, sent: sent, now: now)
            now += Self.second
            watch.took(now: now)
            sent += 1
        }
        #expect(now == begin + 60 * Self.second)
    }

    @Test mutating func whatHasLeftIsForgotten() {
        watch.waits(given: 100, sent: 0, now: begin)
        watch.isDone()
        #expect(watch.nextCheck == nil)
        #expect(!watch.isStuck(now: .max))
        // What waits much later has its own time.
        watch.waits(given: 200, sent: 100, now: begin + 100 * Self.second)
        #expect(!watch.isStuck(now: begin + 109 * Self.second))
    }

    @Test mutating func hugeAmountsDoNotOverflow() {
        watch.waits(given: .max, sent: 0, now: begin)
        #expect(watch.nextCheck == begin + 10 * Self.second)
    }
}
