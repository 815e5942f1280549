import CairnCore
import Dispatch
import Synchronization
import Testing

@testable import CairnService

@Suite struct WorkersTests {
    @Test("R3: beside an account with thousands of jobs another's wait for one turn each, and keep their order")
    func turns() throws {
        let workers = Workers(width: 1)
        let order = Mutex<[(account: String, number: Int)]>([])
        let begin = DispatchSemaphore(value: 0)
        let done = DispatchGroup()
        workers.run { begin.wait() }
        func add(_ account: String, _ number: Int) {
            done.enter()
            workers.run(for: AccountID(account)!) {
                order.withLock { $0.append((account, number)) }
                done.leave()
            }
        }
        for number in 0..<3000 { add("greedy", number) }
        for number in 0..<100 { add("small", number) }
        #expect(workers.waiting >= 3100)
        begin.signal()
        try #require(done.wait(timeout: .now() + 30) == .success)
        let ran = order.withLock { $0 }
        let turn = (512 << 10) / Workers.jobCost
        for (number, place) in ran.indices.filter({ ran[$0].account == "small" }).enumerated() {
            #expect(ran[place].number == number)
            #expect(place - number <= turn * (number / turn + 1), "job \(number) ran as \(place)")
        }
        #expect(ran.filter { $0.account == "greedy" }.map(\.number) == Array(0..<3000))
    }

    @Test("R3: what jobs cost counts, not how many they are") func costs() throws {
        let workers = Workers(width: 1)
        let order = Mutex<[String]>([])
        let begin = DispatchSemaphore(value: 0)
        let done = DispatchGroup()
        workers.run { begin.wait() }
        for (account, bytes) in [("large", 16 << 20), ("small", 0)] {
            for _ in 0..<100 {
                done.enter()
                workers.run(for: AccountID(account)!, bytes: bytes) {
                    order.withLock { $0.append(account) }
                    done.leave()
                }
            }
        }
        begin.signal()
        try #require(done.wait(timeout: .now() + 30) == .success)
        // 100 small ones cost less than one large one.
        #expect(order.withLock { $0.prefix(100) }.allSatisfy { $0 == "small" })
    }
}
