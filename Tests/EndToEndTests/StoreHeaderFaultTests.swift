import Testing

/// The first file that a server reads, and the lock: what goes wrong there is told as what it is.
@Suite(.serialized)
struct StoreHeaderFaultTests {
    @Test(
        "An interrupted call on cairn.store or the lock is made again",
        arguments: [(FaultPlan.Kinds.open, "cairn.store"), (.read, "cairn.store"), (.create, "/lock")]
    )
    func interrupted(_ kind: FaultPlan.Kinds, _ file: String) async throws {
        let victim = try await Victim(shards: 1, writers: 1, seed: 1)
        victim.plan.arm(kind, at: 1, .interrupted, in: file)
        try await victim.server.start()
        #expect(victim.plan.fired == 1)
        try await victim.stopInOrder()
        await victim.removeLedgers()
    }

    @Test("A cairn.store that cannot be read is told as that, and never as a folder without a store")
    func unreadable() async throws {
        let victim = try await Victim(shards: 1, writers: 1, seed: 1)
        for kind in [FaultPlan.Kinds.open, .read] {
            victim.plan.arm(kind, at: 1, .eio, in: "cairn.store")
            await #expect(throws: HarnessError.self) { try await victim.server.start() }
            #expect(victim.plan.fired == 1)
            #expect(try await victim.expectDead() == 74)
            let log = victim.server.log
            #expect(log.contains("Input/output error") && log.contains("cairn.store"), "\(log)")
            #expect(!log.contains("holds no store"), "\(log)")
        }
        victim.plan.disarm()
        try await victim.server.start()
        try await victim.stopInOrder()
        await victim.removeLedgers()
    }
}
