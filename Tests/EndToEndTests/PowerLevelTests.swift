import CairnTesting
import Foundation
import Testing

/// The level `power`: power cuts of ext4 and xfs under load and while it recovers. What was not synced is gone.
@Suite(.serialized)
struct PowerLevelTests {
    /// Cuts in one store's life.
    private static let livesOfStore = 10

    @Test("Power cuts on ext4 and xfs: what was acknowledged as durable is there, snapshots have their seals")
    func cuts() async throws {
        LoopDisk.removeStale()
        let (count, seed) = (Torture.count("power", otherwise: 2), Torture.seed("power"))
        var kinds: [LoopDisk.Kind] = []
        for kind in LoopDisk.Kind.allCases {
            guard let why = await LoopDisk.isMissing(kind) else {
                kinds.append(kind)
                continue
            }
            print("skipped: no power cuts of \(kind) here: \(why)")
        }
        // `tools/torture` reads the missing report as: nothing was done.
        guard !kinds.isEmpty else { return }
        let perStore = min(Self.livesOfStore, max(1, count / kinds.count))
        var (cuts, stores, inRecovery) = (0, 0, 0)
        var byKind: [LoopDisk.Kind: Int] = [:]
        var (acknowledged, found, images) = (0, 0, 0)
        var repairs = Victim.Repairs()
        var lost = 0
        while cuts < count, lost == 0 {
            let kind = kinds[stores % kinds.count]
            let disk = try await LoopDisk(kind, megabytes: 640)
            let shards = 1
            let victim = try await Victim(
                shards: shards,
                writers: 3,
                store: disk.mountPoint + "/store",
                seed: seed &+ UInt64(cuts)
            )
            do {
                try await victim.begin()
                for _ in 0..<min(perStore, count - cuts) {
                    var random = SeededRandom(seed: seed &+ UInt64(cuts))
                    inRecovery += try await Self.cut(victim, disk, &random)
                    cuts += 1
                    byKind[kind, default: 0] += 1
                }
                try await victim.audit()
            } catch {
                let ledgers = victim.writers.map(\.ledger.path)
                Issue.record("cut \(cuts) (\(kind)) of seed \(seed): \(error); the ledgers are \(ledgers)")
                try? await victim.server.crash()
                guard error is Loss else { throw error }
                lost += 1
                continue
            }
            await victim.removeLedgers()
            let counts = await victim.counts()
            (acknowledged, found, images) = (
                acknowledged + counts.acknowledged, found + counts.found, images + counts.images
            )
            repairs.add(victim.repairs.withLock { $0 })
            stores += 1
        }
        #expect(acknowledged > 0)
        Torture.report(
            "power",
            [
                "cuts": cuts, "ext4": byKind[.ext4] ?? 0, "xfs": byKind[.xfs] ?? 0,
                "kinds_skipped": LoopDisk.Kind.allCases.count - kinds.count, "more_in_recovery": inRecovery,
                "indexes_lost": repairs.done, "repairs_cut": repairs.cutShort, "acknowledged": acknowledged,
                "images_checked": images, "lost": lost,
            ]
        )
    }

    /// One life: load, cut, recovery.
    /// - Returns: how many more cuts there were, while it recovered.
    private static func cut(_ victim: Victim, _ disk: LoopDisk, _ random: inout SeededRandom) async throws -> Int {
        let delay = Duration.milliseconds(60 + random.below(500))
        _ = try await victim.load {
            try await Task.sleep(for: delay)
            try victim.cutPower(of: disk)
            // Now it answers with errors; those must not be taken for anything else.
            try await Task.sleep(for: .milliseconds(20))
        }
        try await restore(victim, disk)
        var more = 0
        if random.chance(30) {
            let child = try victim.server.launch()
            try await Task.sleep(for: .milliseconds(5 + random.below(150)))
            try victim.cutPower(of: disk)
            _ = child
            more += 1
            try await restore(victim, disk)
        }
        try await victim.recover(again: false, after: IndexLoss.byChance(&random, on: disk))
        return more
    }

    /// The server is killed, and the disk comes back with what had reached it.
    private static func restore(_ victim: Victim, _ disk: LoopDisk) async throws {
        victim.server.child.send(SIGKILL)
        _ = try await victim.expectDead()
        victim.plan.disarm()
        try await disk.unmount()
        try await disk.mount()
    }

    /// The harness itself: where syncs of the log do nothing, this level must find that something is lost.
    @Test("A log whose syncs do nothing loses what was acknowledged, and a power cut shows it")
    func pretendedSyncs() async throws {
        LoopDisk.removeStale()
        if let why = await LoopDisk.isMissing(.ext4) { return print("skipped: no power cuts here: \(why)") }
        let disk = try await LoopDisk(.ext4, megabytes: 640)
        let victim = try await Victim(shards: 1, writers: 2, store: disk.mountPoint + "/store", seed: 9)
        try await victim.begin()
        victim.plan.arm([.fdatasync, .fsync], at: 1, .pretend, .on)
        var losses = 0
        for _ in 0..<5 where losses == 0 {
            _ = try await victim.load {
                try await Task.sleep(for: .milliseconds(300))
                try victim.cutPower(of: disk)
            }
            try await Self.restore(victim, disk)
            do {
                try await victim.recover(again: false)
                victim.plan.arm([.fdatasync, .fsync], at: 1, .pretend, .on)
            } catch is Loss { losses += 1 }
        }
        #expect(losses > 0)
        try? await victim.server.crash()
        await victim.removeLedgers()
    }
}
