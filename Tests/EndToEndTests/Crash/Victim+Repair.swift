import CairnTesting
import Foundation

/// After a death the indexes are lost as well: each shard's is made anew from its copies and the log, or the log alone.
struct IndexLoss: Sendable {
    /// How long the first repair is left to run; nil: to its end.
    let patience: Duration?
    /// Whose power is cut then; nil: the repair is killed.
    let disk: LoopDisk?

    /// In some of the lives.
    /// - Parameter disk: whose power can be cut.
    static func byChance(_ random: inout SeededRandom, on disk: LoopDisk? = nil) -> IndexLoss? {
        guard random.chance(15) else { return nil }
        let isCutShort = random.chance(50)
        let patience = Duration.milliseconds(5 + random.below(200))
        let isPowerCut = random.chance(50)
        return IndexLoss(patience: isCutShort ? patience : nil, disk: isPowerCut ? disk : nil)
    }
}

extension Victim {
    struct Repairs: Sendable {
        /// Lives in which all indexes were lost, and made anew.
        var done = 0
        /// Repairs that were killed half-way, or whose disk lost its power.
        var cutShort = 0

        mutating func add(_ other: Repairs) { (done, cutShort) = (done + other.done, cutShort + other.cutShort) }
    }

    /// Deletes the indexes of a store that no server has open, and has `cairnd repair` make them anew: nothing may be lost by it.
    func repair(after loss: IndexLoss) async throws {
        guard try loseIndexes() else { return }
        if let patience = loss.patience { try await cutShort(startRepair(), after: patience, loss.disk) }
        let outcome = try await startRepair().wait(limit: .seconds(60))
        guard outcome.status == 0 else {
            throw Loss(
                "cairnd repair ends with \(outcome.status): \(outcome.output.suffix(2000)) \(outcome.errors.suffix(2000))"
            )
        }
        repairs.withLock { $0.done += 1 }
    }

    private func startRepair() throws -> ChildProcess {
        try ChildProcess(Program.cairnd, ["repair", "--data", server.store, "--json"], in: server.folder)
    }

    private func cutShort(_ child: ChildProcess, after patience: Duration, _ disk: LoopDisk?) async throws {
        try await Task.sleep(for: patience)
        let wasRunning = child.isRunning
        if let disk {
            try disk.cutPower()
            // Now its calls fail; that must not make it do anything that a later one cannot mend.
            try await Task.sleep(for: .milliseconds(20))
        }
        child.send(SIGKILL)
        let outcome = try await child.wait(limit: .seconds(10))
        guard !Self.trapped.contains(outcome.status) else {
            throw Loss("cairnd repair ended by a trap (\(outcome.status)): \(outcome.errors.prefix(2000))")
        }
        if let disk {
            try await disk.unmount()
            try await disk.mount()
        }
        if wasRunning { repairs.withLock { $0.cutShort += 1 } }
    }

    // MARK: The indexes

    /// Removes them, durably.
    /// - Returns: false, and nothing is removed, where a shard has no other copy, nor all of its log: that was given up for room.
    private func loseIndexes() throws -> Bool {
        let names = try FileManager.default.contentsOfDirectory(atPath: server.store)
        let shards = names.filter { $0.hasPrefix("shard-") }.sorted().map { "\(server.store)/\($0)" }
        for shard in shards where try !Self.canBeMadeAnew(shard) { return false }
        for shard in shards {
            try FileManager.default.removeItem(atPath: shard + "/index")
            let descriptor = open(shard, O_RDONLY | O_DIRECTORY)
            guard descriptor >= 0 else { throw HarnessError("\(shard) cannot be opened") }
            defer { close(descriptor) }
            guard fsync(descriptor) == 0 else { throw HarnessError("\(shard) cannot be synced") }
        }
        return true
    }

    /// FORMAT.md, "Checkpoints": before the first one all of the log is kept; `given-up` says that neither is there.
    private static func canBeMadeAnew(_ shard: String) throws -> Bool {
        let copies = (try? FileManager.default.contentsOfDirectory(atPath: shard + "/checkpoints")) ?? []
        guard !copies.contains("given-up") else { return false }
        if copies.contains(where: { UInt32($0) != nil }) { return true }
        // It may have died between giving up the last copy and saying so.
        let segments = try FileManager.default.contentsOfDirectory(atPath: shard + "/segments")
        return try segments.contains { name in
            guard name.hasSuffix(".seg") else { return false }
            return try firstLSN(of: "\(shard)/segments/\(name)") == 1
        }
    }

    /// As the segment's header has it (CairnLog/FORMAT.md); 0 of one that was never opened.
    private static func firstLSN(of segment: String) throws -> UInt64 {
        guard let file = FileHandle(forReadingAtPath: segment) else {
            throw HarnessError("\(segment) cannot be opened")
        }
        let bytes = try file.read(upToCount: 80) ?? Data()
        try file.close()
        return bytes.dropFirst(72).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
