import CairnTesting
import Foundation
import Testing

/// The level `kill`: SIGKILL at random times and at named points, under load and while it recovers. The page cache survives it:
/// what it proves is recovery, not syncing (that is the level `power`).
@Suite(.serialized)
struct KillLevelTests {
    /// Where the server is to die: at one of the first so many calls of a kind on files of a kind.
    private struct Point {
        let name: String
        let kinds: FaultPlan.Kinds
        let fragment: String
        let calls: Int
    }

    private static let loadPoints = [
        Point(name: "a write to the log", kinds: .write, fragment: "/segments/", calls: 20),
        Point(name: "a sync of the log", kinds: .fdatasync, fragment: "/segments/", calls: 20),
        Point(name: "the making of a segment", kinds: [.allocate, .rename, .fsync], fragment: "/segments", calls: 2),
        Point(name: "a write to the index", kinds: .write, fragment: "/index/", calls: 12),
        Point(name: "a sync of the index", kinds: [.fsync, .fdatasync], fragment: "/index", calls: 4),
        Point(name: "any call", kinds: .all, fragment: "", calls: 150),
    ]

    private static let recoveryPoints = [
        Point(name: "a write of the superblock", kinds: .write, fragment: "superblock", calls: 2),
        Point(name: "a sync of the superblock", kinds: .fsync, fragment: "superblock", calls: 2),
        Point(
            name: "the header of the epoch's first segment",
            kinds: [.write, .fdatasync],
            fragment: "/segments/",
            calls: 4
        ),
        Point(name: "the making of a segment", kinds: [.allocate, .rename, .fsync], fragment: "/segments", calls: 4),
        Point(name: "a write to the index", kinds: .write, fragment: "/index/", calls: 12),
        Point(name: "a sync of the index", kinds: [.fsync, .fdatasync], fragment: "/index", calls: 6),
        Point(name: "a rename in the index", kinds: .rename, fragment: "/index/", calls: 2),
        Point(name: "a file that the index deletes", kinds: .unlink, fragment: "/index/", calls: 3),
        Point(name: "any call", kinds: .all, fragment: "", calls: 80),
    ]

    private static func arm(_ plan: FaultPlan, at points: [Point], _ random: inout SeededRandom) {
        let point = points[random.below(points.count)]
        let action: FaultPlan.Action = [.killBefore, .killHalfway, .killAfter][random.below(3)]
        plan.arm(point.kinds, at: 1 + random.below(point.calls), action, in: point.fragment)
    }

    /// Deaths in one store's life.
    private static let livesOfStore = 25

    @Test("SIGKILL at random times and named points: what was acknowledged is there, snapshots have their seals")
    func kills() async throws {
        let (count, seed) = (Torture.count("kill", otherwise: 3), Torture.seed("kill"))
        var (kills, named, recoveries) = (0, 0, 0)
        var sum = CrashWriter.Counts()
        var repairs = Victim.Repairs()
        var lost = 0
        while kills < count, lost == 0 {
            let life = seed &+ UInt64(kills)
            let victim = try await Victim(shards: 1 + kills / Self.livesOfStore % 2, writers: 3, seed: life)
            do {
                try await victim.begin()
                for _ in 0..<min(Self.livesOfStore, count - kills) {
                    var random = SeededRandom(seed: seed &+ UInt64(kills))
                    let (atPoint, inRecovery) = try await kill(victim, &random)
                    kills += 1
                    if atPoint { named += 1 }
                    recoveries += inRecovery
                }
                try await victim.audit()
            } catch {
                let ledgers = victim.writers.map(\.ledger.path)
                Issue.record("kill \(kills) of seed \(seed): \(error); the ledgers are \(ledgers)")
                guard error is Loss else { throw error }
                lost += 1
                continue
            }
            await victim.removeLedgers()
            let counts = await victim.counts()
            sum.acknowledged += counts.acknowledged
            sum.open += counts.open
            sum.found += counts.found
            sum.images += counts.images
            repairs.add(victim.repairs.withLock { $0 })
        }
        #expect(sum.acknowledged > 0)
        Torture.report(
            "kill",
            [
                "kills": kills, "at_points": named, "more_at_points_in_recovery": recoveries,
                "indexes_lost": repairs.done, "repairs_killed": repairs.cutShort, "acknowledged": sum.acknowledged,
                "images_checked": sum.images, "lost": lost,
            ]
        )
    }

    /// One life: load, death, recovery.
    private func kill(_ victim: Victim, _ random: inout SeededRandom) async throws -> (atPoint: Bool, inRecovery: Int) {
        let milliseconds = 50 + random.below(400)
        let isNamed = random.chance(60)
        if isNamed { Self.arm(victim.plan, at: Self.loadPoints, &random) }
        _ = try await victim.load {
            // A point that is not reached: the time it is.
            let limit = ContinuousClock.now + .milliseconds(isNamed ? 1000 : milliseconds)
            while victim.server.child.isRunning, ContinuousClock.now < limit {
                try await Task.sleep(for: .milliseconds(5))
            }
            victim.server.child.send(SIGKILL)
        }
        let status = try await victim.expectDead()
        guard status == 137 else {
            throw Loss("the server ended by itself, with \(status): \(victim.server.log.suffix(2000))")
        }
        let hasFired = isNamed && victim.plan.fired > 0
        victim.plan.disarm()
        var deathsInRecovery = 0
        if random.chance(40) {
            for _ in 0...random.below(2) { deathsInRecovery += try await killRecovery(victim, &random) ? 1 : 0 }
        }
        let again = random.chance(20)
        try await victim.recover(again: again, after: IndexLoss.byChance(&random))
        return (hasFired, deathsInRecovery)
    }

    /// Dies on the way up.
    /// - Returns: whether that was at a named point.
    private func killRecovery(_ victim: Victim, _ random: inout SeededRandom) async throws -> Bool {
        let isNamed = random.chance(70)
        if isNamed { Self.arm(victim.plan, at: Self.recoveryPoints, &random) }
        let child = try victim.server.launch()
        let limit = ContinuousClock.now + .milliseconds(isNamed ? 400 : 5 + random.below(120))
        while child.isRunning, ContinuousClock.now < limit { try await Task.sleep(for: .milliseconds(2)) }
        child.send(SIGKILL)
        guard try await victim.expectDead() == 137 else {
            throw Loss("the server did not come up: \(child.errors.suffix(2000))")
        }
        let hasFired = isNamed && victim.plan.fired > 0
        victim.plan.disarm()
        return hasFired
    }
}
