import CairnCore
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// Shards that stand still for a change of several (SPEC R6).
@Suite struct StandstillTests {
    private final class Order: Sendable {
        private let names = Mutex<[String]>([])
        func add(_ name: String) { names.withLock { $0.append(name) } }
        var all: [String] { names.withLock { $0 } }
    }

    @Test(
        "R6: while a shard stands still nothing is begun; it goes on when all have let it go, with their calls in front"
    )
    func order() throws {
        let scratch = try ScratchStore()
        let shard = scratch.shard
        let order = Order()
        let ended = DispatchGroup()
        func call(_ name: String) -> @Sendable (Transaction) throws(StoreError) -> Void {
            { (transaction) throws(StoreError) in
                order.add(name)
                _ = try transaction.numberAccount(AccountID("account-\(name)")!)
            }
        }
        let standing = DispatchSemaphore(value: 0)
        for _ in 0..<2 { shard.standStill { standing.signal() } }
        for _ in 0..<2 { try #require(standing.wait(timeout: .now() + 30) == .success) }
        for name in ["3", "4"] {
            ended.enter()
            shard.submit(call(name)) { _ in ended.leave() }
        }
        func goOn(_ name: String) {
            ended.enter()
            shard.goOn(with: PendingCall(entries: 8, call(name)) { _ in ended.leave() })
        }
        // Time in which a shard that does not stand still would carry them out.
        usleep(200_000)
        #expect(order.all.isEmpty)
        goOn("1")
        usleep(200_000)
        #expect(order.all.isEmpty)
        goOn("2")
        try #require(ended.wait(timeout: .now() + 30) == .success)
        #expect(order.all == ["1", "2", "3", "4"])
    }

    @Test(
        "R6: a shard stands still when the group on its way is answered; one that is closed meanwhile refuses what waits"
    )
    func underWay() throws {
        let scratch = try ScratchStore()
        let shard = scratch.shard
        let order = Order()
        let done = DispatchGroup()
        done.enter()
        shard.submit { (transaction) throws(StoreError) in
            _ = try transaction.numberAccount(AccountID("first")!)
        } completion: { _ in
            order.add("answered")
            done.leave()
        }
        done.enter()
        shard.standStill {
            order.add("standing")
            done.leave()
        }
        try #require(done.wait(timeout: .now() + 30) == .success)
        #expect(order.all == ["answered", "standing"])
        let refused = Mutex<StoreError.Code?>(nil)
        scratch.store.close()
        done.enter()
        shard.goOn(
            with: PendingCall(entries: 1) { (_) throws(StoreError) in
            } completion: { result in
                if case .failure(let error) = result { refused.withLock { $0 = error.code } }
                done.leave()
            }
        )
        try #require(done.wait(timeout: .now() + 30) == .success)
        #expect(refused.withLock { $0 } == .closed)
    }
}
