import CairnCore
import CairnCrypto
import CairnTesting

@testable import CairnLog
@testable import CairnStore

/// What must be there after each recovery.
extension SimulationRun {
    /// The calls that are there are the first of all in the order of commits, and all that were said to be durable are among them.
    func recovered(to lsn: UInt64) throws {
        guard let shard else { return }
        guard lsn >= promised else { throw ModelFailure("durable up to \(promised), recovered up to \(lsn)") }
        let view = shard.makeView()
        var present: [SimulatedCall] = []
        for call in calls {
            let isThere = try view.idempotencyRecord(account: SimulatedCall.account, key: call.key) != nil
            guard case .success? = call.result else {
                if isThere { throw ModelFailure("call \(call.number), which failed, is there") }
                continue
            }
            if call.isRefused {
                // Nothing of it was written: another group got its LSN.
                if isThere { throw ModelFailure("call \(call.number), which was refused, is there") }
                continue
            }
            guard let own = call.lsn else { throw ModelFailure("call \(call.number) was never begun") }
            if isThere {
                guard own <= lsn else { throw ModelFailure("call \(call.number) is of a group that is not there") }
                present.append(call)
            } else if own <= lsn {
                // Only where its body was undone, for the group had no room for it: then it was the last of the group, and never answered.
                let isLast = calls.allSatisfy { $0.lsn != own || $0.order <= call.order || $0.result == nil }
                if case .success? = call.answer { throw ModelFailure("call \(call.number) is lost") }
                guard isLast else { throw ModelFailure("call \(call.number) is missing in the midst of a group") }
            }
        }
        state = base
        for call in present.sorted(by: { $0.order < $1.order }) { try state.apply(call) }
        begin()
    }

    /// What holds for the life that begins.
    private func begin() {
        base = state
        calls = []
        inFlight = 0
        promised = shard?.log.position?.lsn.rawValue ?? 0
        answeredLSN = promised
        tokens.pinned = tokens.durablyPinned
        tokens.leased = state.leases
        tokens.released = [:]
        tokens.releasing = [:]
    }

    /// Everything is as the reference says. False where the machine stopped on the way.
    func check(crash: Bool) throws -> Bool {
        guard let shard else { return false }
        var result: Result<Void, any Error>?
        let machine = machine
        simulation.spawn { [self] in
            let outcome = Result { try compare(shard) }
            if !machine.isDead { result = outcome }
        }
        guard try drive(steps: crash ? simulation.random.below(40) : nil, { result != nil }) else {
            crashMachine(losing: simulation.random.chance(70))
            return false
        }
        try result?.get()
        return true
    }

    private func compare(_ shard: Shard) throws {
        let report = try shard.audit()
        guard report.problems.isEmpty else { throw ModelFailure("audit: \(report.problems.prefix(5))") }
        guard report.volumes == state.volumes.count, report.snapshots == state.snapshots.count else {
            throw ModelFailure(
                "\(report) instead of \(state.volumes.count) volumes, \(state.snapshots.count) snapshots"
            )
        }
        for id in state.volumeIDs { try compare(.volume(id), state.volumes[id]!.content, shard) }
        for id in state.snapshotIDs { try compare(.snapshot(id), state.snapshots[id]!.content, shard) }
        let view = shard.makeView()
        for (kind, end) in state.leases where end > machine.milliseconds {
            guard let number = try view.accountNumber(SimulatedCall.account),
                try view.lease(ChunkKey(own: number, chunkOfKind(kind).fingerprint)) != nil
            else { throw ModelFailure("the lease of kind \(kind) is gone before its end") }
        }
        if let line = errors.lines.first(where: { $0.contains("damaged") || $0.contains("cannot be") }) {
            throw ModelFailure("logged: \(line)")
        }
    }

    private func compare(_ target: SimulatedReading.Target, _ content: ModelContent, _ shard: Shard) throws {
        let range = 0..<content.sectors.count
        try content.check(try pieces(of: target, range, shard), range, "\(target)")
        guard case .snapshot(let id) = target, let record = try shard.makeView().snapshot(id) else { return }
        if let seal = record.seal, seal != content.seal { throw ModelFailure("\(id) has another seal: \(record)") }
    }

    /// All goes; nothing must be left of it, and there is space again.
    func finish() throws {
        try settle()
        for id in state.volumeIDs { send(.deleteVolume(id)) }
        _ = try drive { inFlight == 0 }
        for id in state.snapshotIDs { send(.deleteSnapshot(id)) }
        for kind in SimulatedTokens.kinds { send(.releaseLease(kind: kind, chunkOfKind(kind).fingerprint)) }
        _ = try drive { inFlight == 0 }
        guard state.volumes.isEmpty, state.snapshots.isEmpty else {
            throw ModelFailure("a deletion was refused: \(space ?? "no shard")")
        }
        simulation.clock += 10_000_000_000
        try settle()
        guard let report = try shard?.audit(), report.problems.isEmpty, report.entries == 0, report.chunks == 0,
            report.liveBytes == 0
        else { throw ModelFailure("left over: \(String(describing: try shard?.audit()))") }
        send(.createVolume(sectors: 16 * chunkSize.bytes / 512, source: nil))
        _ = try drive { inFlight == 0 }
        guard state.volumes.count == 1 else { throw ModelFailure("no space though all was deleted") }
        try close()
        try open(crashing: false)
    }

    /// Until nothing is left to do in the background.
    private func settle() throws {
        for _ in 0..<40 {
            _ = try drive { machine.isIdle }
            guard let shard else { return }
            if try rows(shard).allSatisfy({ try waitsForRoom($0, shard) }) {
                _ = try check(crash: false)
                return
            }
            simulation.waitForTimer()
            _ = simulation.step()
        }
        throw ModelFailure("the background does not come to rest: \(space ?? "no shard"); \(errors.lines.suffix(3))")
    }

    /// What the background has to do: work, and chunks that nothing names.
    private func rows(_ shard: Shard) throws -> [(table: Table, value: [UInt8])] {
        let cursor = shard.makeView().index.makeCursor()
        var rows: [(table: Table, value: [UInt8])] = []
        for table in [Table.work, .unreferenced] {
            cursor.seek(Key(table).bytes)
            while try cursor.isValid(), cursor.key.first == table.rawValue {
                rows.append((table, Array(cursor.value)))
                cursor.next()
            }
        }
        return rows
    }

    /// A full store has the snapshot sealed, and its parts of chunks as they are.
    private func waitsForRoom(_ row: (table: Table, value: [UInt8]), _ shard: Shard) throws -> Bool {
        guard row.table == .work, shard.log.isFull, case .seal(let id) = try WorkItem.decode(row.value) else { return false }
        return try shard.makeView().snapshot(id)?.seal != nil
    }

    /// Where the log's space is, for people.
    private var space: String? {
        guard let shard else { return nil }
        let view = shard.makeView()
        let segments = shard.log.segments.map { segment in
            let record = try? view.index.get(Key.segment(segment.id))
            let live = record.flatMap { try? SegmentRecord.decode($0).liveBytes }
            return "\(segment.id) \(segment.use) \(live ?? 0) up to \(segment.lastLSN?.rawValue ?? 0)"
        }
        let maker = shard.checkpoints
        let left = (try? rows(shard)) ?? []
        return """
            left \(left.prefix(5)), room \(shard.log.room), to reclaim \(shard.log.reclaimRoom), full \(shard.log.isFull), segments \(segments), \
            durable \(String(describing: shard.background.durable)), copies wanted back to \(maker.folder.retention), \
            running \(maker.isRunning), resting \(maker.isResting), failed \(maker.hasFailed)
            """
    }
}
