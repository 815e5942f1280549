import CairnCore
import Dispatch
import Synchronization
import Testing

@testable import CairnStore

@Suite struct FairnessTests {
    @Test(
        "R3: on a shard, too, an account's calls wait for one turn of another's thousands; each account's keep their order"
    )
    func turns() throws {
        let scratch = try ScratchStore(segmentBytes: 64 << 20)
        let shard = scratch.shard
        let order = Mutex<[(account: String, number: Int)]>([])
        let begin = DispatchSemaphore(value: 0)
        let done = DispatchGroup()
        shard.queue.async { begin.wait() }
        let callBytes = 60 << 10
        @Sendable func add(_ account: String, _ number: Int) {
            done.enter()
            shard.submit(for: AccountID(account)!, bytes: callBytes) { (transaction) throws(StoreError) in
                order.withLock { $0.append((account, number)) }
                // Something to write, so that groups are written one after the other.
                _ = try transaction.numberAccount(AccountID("\(account)-\(number)")!)
            } completion: { result in
                if case .failure(let error) = result { Issue.record(error) }
                done.leave()
            }
        }
        for number in 0..<1000 { add("greedy", number) }
        for number in 0..<50 { add("small", number) }
        begin.signal()
        try #require(done.wait(timeout: .now() + 60) == .success)
        let ran = order.withLock { $0 }
        // A turn is 256 KiB.
        let turn = (256 << 10) / callBytes + 1
        let first = try #require(ran.firstIndex { $0.account == "small" })
        // The first group was begun with what had come until then.
        for (number, place) in ran.indices.filter({ ran[$0].account == "small" }).enumerated() {
            #expect(ran[place].number == number)
            #expect(place - first - number <= turn * (number / (turn - 1) + 1), "call \(number) ran as \(place)")
        }
        #expect(first <= Shard.groupBytes / callBytes + turn)
        #expect(ran.filter { $0.account == "greedy" }.map(\.number) == Array(0..<1000))
        #expect(ran.count == 1050)
    }
}
