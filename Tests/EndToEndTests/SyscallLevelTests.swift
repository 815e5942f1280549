import CairnTesting
import CairnWire
import Foundation
import Testing

/// The level `syscalls`: the Nth call to the file system fails, for every N from the server's start on, through a script of
/// operations, to its end.
@Suite(.serialized)
struct SyscallLevelTests {
    /// One store: so many lives, then an audit and a new one.
    private static let livesOfStore = 50

    @Test(
        "Every call that fails by EIO or ENOSPC, once or from then on: the server goes on or ends, and nothing is lost"
    )
    func errors() async throws {
        let (count, seed) = (Torture.count("syscalls", otherwise: 6), Torture.seed("syscalls"))
        // One number alone: `tools/torture syscalls --only 176`.
        let only = Torture.only("syscalls").flatMap { $0 > 0 ? $0 : nil }
        var (number, fired, wentOn, ended, acknowledged) = (0, 0, 0, 0, 0)
        var lost = 0
        while number < count, lost == 0 {
            let victim = try await Victim(shards: 1, writers: 2, seed: seed &+ UInt64(number))
            do {
                try await victim.begin()
                try await victim.stopInOrder()
                for _ in 0..<min(Self.livesOfStore, count - number) {
                    number += 1
                    if let only, number != only { continue }
                    let outcome = try await life(victim, number, seed)
                    if outcome.hasFired { fired += 1 }
                    if outcome.status == 0 { wentOn += 1 } else { ended += 1 }
                }
                try await victim.server.start()
                try await victim.audit()
            } catch {
                let ledgers = victim.writers.map(\.ledger.path)
                Issue.record(
                    "call \(number) of seed \(seed), \(victim.plan.fired) faults, the last in \(victim.plan.firedCall): \(error); the ledgers are \(ledgers)"
                )
                guard error is Loss else { throw error }
                lost += 1
                continue
            }
            await victim.removeLedgers()
            acknowledged += await victim.counts().acknowledged
        }
        // A number that no call comes to proves nothing.
        if only == nil { #expect(fired * 10 >= count * 9, "only \(fired) of \(count) calls were reached, seed \(seed)") }
        Torture.report(
            "syscalls",
            [
                "calls": number, "failed": fired, "server_went_on": wentOn, "server_ended": ended,
                "acknowledged": acknowledged, "lost": lost,
            ]
        )
    }

    private struct Outcome {
        let hasFired: Bool
        let status: Int32
    }

    /// The error for this number: which of the four comes first is the seed's, and in full counts each number's neighbours have
    /// the others.
    private static func fault(_ number: Int, _ seed: UInt64) -> (FaultPlan.Action, FaultPlan.Mode) {
        let choices: [(FaultPlan.Action, FaultPlan.Mode)] = [
            (.eio, .once), (.enospc, .once), (.eio, .on), (.enospc, .on),
        ]
        return choices[(number + Int(seed % 4)) % 4]
    }

    /// Start, script, end, with the fault at its place in all of them; then a life without, which checks everything.
    private func life(_ victim: Victim, _ number: Int, _ seed: UInt64) async throws -> Outcome {
        let (action, mode) = Self.fault(number, seed)
        let kinds: FaultPlan.Kinds = action == .enospc ? .all.subtracting(.spaceless) : .all
        victim.plan.arm(kinds, at: number, action, mode)
        let status = try await faulty(victim, number)
        let hasFired = victim.plan.fired > 0
        try await victim.recover(again: false)
        try await victim.stopInOrder()
        return Outcome(hasFired: hasFired, status: status)
    }

    /// - Returns: how the server ended.
    private func faulty(_ victim: Victim, _ number: Int) async throws -> Int32 {
        do { try await victim.server.start() } catch {
            // It did not come up: then it has ended, and said why.
            let status = try await victim.expectDead()
            guard status != 137, !victim.server.log.isEmpty else {
                throw Loss("the server did not start, and did not end: \(error)")
            }
            return status
        }
        do { try await victim.connect() } catch { return try await endedByItself(victim) }
        _ = try await victim.load {
            try await Task.sleep(for: .milliseconds(250))
            // A high number takes its time.
            let end = ContinuousClock.now + .milliseconds(10 * number)
            while victim.plan.fired == 0, ContinuousClock.now < end { try await Task.sleep(for: .milliseconds(10)) }
        }
        guard victim.server.child.isRunning else { return try await endedByItself(victim) }
        victim.server.child.send(SIGTERM)
        return try await endedByItself(victim)
    }

    private func endedByItself(_ victim: Victim) async throws -> Int32 {
        do { return try await victim.expectDead() } catch let error as HarnessError { throw Loss("it hangs: \(error)") }
    }

    @Test("Every call that can be interrupted or cut short, is, each time: nobody notices")
    func unnoticed() async throws {
        let seed = Torture.seed("syscalls")
        for (place, action) in [FaultPlan.Action.interrupted, .short].enumerated() {
            let victim = try await Victim(shards: 2, writers: 2, seed: seed &+ UInt64(place))
            // What the kernel interrupts on a local disk; a sync it does not, and nobody could try one again.
            victim.plan.arm([.read, .write, .allocate], at: 1, action, .every)
            do {
                try await victim.begin()
                for _ in 0..<2 {
                    let endings = try await victim.load {
                        try await Task.sleep(for: .milliseconds(Torture.isWanted("syscalls") ? 2000 : 400))
                    }
                    guard endings.isEmpty else { throw Loss("\(action) was noticed: \(endings)") }
                    #expect(victim.plan.fired > 10)
                    try await victim.stopInOrder()
                    victim.plan.arm([.read, .write, .allocate], at: 1, action, .every)
                    try await victim.server.start()
                    try await victim.check { try await $0.recover() }
                }
                let counts = await victim.counts()
                #expect(counts.acknowledged > 0)
                try await victim.audit()
                Torture.report("syscalls", ["\(action)": victim.plan.fired])
            } catch {
                let ledgers = victim.writers.map(\.ledger.path)
                Issue.record(
                    "\(action) of seed \(seed), the last in \(victim.plan.firedCall): \(error); the ledgers are \(ledgers)"
                )
                throw error
            }
            await victim.removeLedgers()
        }
    }
}
