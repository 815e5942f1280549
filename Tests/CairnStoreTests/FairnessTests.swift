import CairnCore
import CairnLog
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

    @Test(
        "R3: while another account is at work, groups are small: its next call waits for little",
        arguments: [true, false]
    )
    func groups(isShared: Bool) throws {
        let scratch = try ScratchStore(segmentBytes: 64 << 20)
        let shard = scratch.shard
        let begin = DispatchSemaphore(value: 0)
        let done = DispatchGroup()
        @Sendable func add(_ account: String, _ bytes: Int, _ number: Int) {
            done.enter()
            shard.submit(for: AccountID(account)!, bytes: bytes) { (transaction) throws(StoreError) in
                _ = try transaction.numberAccount(AccountID("\(account)-\(number)")!)
            } completion: { result in
                if case .failure(let error) = result { Issue.record(error) }
                done.leave()
            }
        }
        let before = (shard.log.position?.lsn ?? LSN.none).rawValue
        // However slow the machine is.
        try shard.queue.sync { () throws(StoreError) in shard.company.memory = 1 << 60 }
        if isShared {
            // Answered, and gone, before the others come.
            add("small", 4096, 0)
            try #require(done.wait(timeout: .now() + 60) == .success)
        }
        shard.queue.async { begin.wait() }
        for number in 0..<32 { add("greedy", 512 << 10, number) }
        begin.signal()
        try #require(done.wait(timeout: .now() + 60) == .success)
        let groups = try #require(shard.log.position).lsn.rawValue - before
        // The first group may hold no more than what had come until then.
        if isShared { #expect(groups >= 17) } else { #expect(groups <= 4) }
    }

    @Test("R3: an account counts as company for a while after its last call")
    func company() {
        var company = Company()
        let (one, two) = (AccountID("one")!, AccountID("two")!)
        let memory = company.memory
        #expect(!company.isShared(at: 0))
        company.came(one, at: 0)
        company.came(one, at: memory / 2)
        #expect(!company.isShared(at: memory / 2))
        company.came(two, at: memory)
        #expect(company.isShared(at: memory + memory / 2 - 1) && !company.isShared(at: memory + memory / 2))
        company.came(two, at: 2 * memory)
        #expect(!company.isShared(at: 2 * memory))
        company.came(one, at: 2 * memory + 1)
        company.came(two, at: 2 * memory + 2)
        #expect(company.isShared(at: 3 * memory) && !company.isShared(at: 3 * memory + 1))
    }
}
