import Testing

/// Syncs whose lack no power cut of these file systems shows, for their journals carry more than they promise.
struct SyncOrderTests {
    @Test("A new segment's name is synced before anything relies on it: where that fails, the server does not go on")
    func segmentName() async throws {
        let victim = try await Victim(shards: 1, writers: 1, seed: 1)
        // The first is that of the segment's file, the second that of the folder with its name.
        victim.plan.arm(.fsync, at: 2, .eio, in: "/segments")
        await #expect(throws: HarnessError.self) { try await victim.server.start() }
        #expect(victim.plan.fired == 1)
        #expect(victim.plan.firedCall == "fsync of \(victim.server.store)/shard-000/segments")
        #expect(try await victim.expectDead() != 0)
        victim.plan.disarm()
        try await victim.server.start()
        try await victim.audit()
        await victim.removeLedgers()
    }
}
