import CairnCore
import Dispatch
import Foundation
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

    @Test(
        "D1: while workers wait for the disk others take their places, and afterwards no more are at work than there should be"
    )
    func diskWaits() throws {
        let workers = Workers(width: 2)
        let (disk, done) = (DispatchSemaphore(value: 0), DispatchGroup())
        let reached = DispatchSemaphore(value: 0)
        let atWork = Mutex((now: 0, most: 0))
        let waits = Workers.mostWaiting
        for _ in 0..<waits {
            done.enter()
            workers.run {
                workers.beginWait()
                reached.signal()
                disk.wait()
                workers.endWait()
                done.leave()
            }
        }
        for _ in 0..<waits { try #require(reached.wait(timeout: .now() + 30) == .success) }
        #expect(!workers.isCrowded)
        let others = DispatchGroup()
        let goOn = DispatchSemaphore(value: 0)
        for _ in 0..<200 {
            others.enter()
            workers.run {
                atWork.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) }
                goOn.wait()
                atWork.withLock { $0.now -= 1 }
                others.leave()
            }
        }
        // Two begin though so many wait.
        let limit = Date() + 30
        while atWork.withLock({ $0.now }) < 2, Date() < limit { usleep(1000) }
        for number in 0..<200 {
            goOn.signal()
            // The disk has been read: those go on, and then leave the work to two.
            if number == 100 { for _ in 0..<waits { disk.signal() } }
        }
        try #require(others.wait(timeout: .now() + 30) == .success && done.wait(timeout: .now() + 30) == .success)
        #expect(atWork.withLock { $0.most } == 2)
        #expect(workers.waiting == 0 && !workers.isCrowded)
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
