import CairnCore
import CairnCrypto
import CairnTesting

@testable import CairnLog
@testable import CairnStore

/// Chunks of which there are few, and until when the client was told that each stays.
struct SimulatedTokens {
    static let kinds: [UInt32] = [1, 2, 3, 4, 5]
    /// By kind, in nanoseconds of uptime: pins (SPEC A1).
    var pinned: [UInt32: UInt64] = [:]
    /// Those of chunks that a crash could not take away.
    var durablyPinned: [UInt32: UInt64] = [:]
    /// By kind, in milliseconds since 1970: durable leases (SPEC U7).
    var leased: [UInt32: UInt64] = [:]
    /// When a release of the kind's lease was last sent, and how many are on their way.
    var released: [UInt32: Int] = [:]
    var releasing: [UInt32: Int] = [:]
}

/// A read that is on its way: what it finds must be what was there at some moment since it began.
final class SimulatedReading {
    enum Target: Hashable {
        case volume(VolumeID)
        case snapshot(SnapshotID)
    }
    let target: Target
    /// Nil where the target is gone: then anything may be found.
    var candidates: [ModelContent]?
    init(_ target: Target, _ content: ModelContent) { (self.target, candidates) = (target, [content]) }
}

/// What clients do.
extension SimulationRun {
    /// Works until it ends in one way or another.
    func live() throws {
        let steps = 50 + simulation.random.below(500)
        for _ in 0..<steps {
            if isFenced { break }
            let isClientsTurn = simulation.random.chance(inFlight < 12 ? 30 : 2)
            if isClientsTurn {
                act()
            } else if !simulation.step() {
                if simulation.random.chance(50) { act() } else { simulation.waitForTimer() }
            }
            if let failure { throw failure }
        }
        switch simulation.random.below(10) {
        case 0..<2: try close()
        case 2..<4 where isFenced:
            // Opened anew by the same process.
            try close()
        case 4: crashMachine(losing: false)
        default: crashMachine(losing: true)
        }
    }

    private func act() {
        switch simulation.random.below(100) {
        case _ where state.volumes.isEmpty && inFlight == 0: send(newVolume(from: nil))
        case 0..<50: if let change = write() { send(change) }
        case 50..<54: if state.volumes.count < 5 { send(newVolume(from: nil)) }
        case 54..<60: if state.volumes.count < 6, let id = pick(state.snapshotIDs) { send(newVolume(from: id)) }
        case 60..<66: if state.snapshots.count < 10, let id = pick(state.volumeIDs) { send(.createSnapshot(id)) }
        case 66..<71:
            if let id = pick(state.snapshotIDs), state.snapshots[id]?.isInitial == false { send(.deleteSnapshot(id)) }
        case 71..<74: if state.volumes.count > 1, let id = pick(state.volumeIDs) { send(.deleteVolume(id)) }
        case 74..<75: if let id = pick(state.volumeIDs) { send(grow(id)) }
        case 75..<78: flush()
        case 78..<84: pin()
        case 84..<90: changeLease()
        case 90..<98: read()
        default: simulation.clock += UInt64(simulation.random.below(3_000_000_000))
        }
    }

    private func pick<Element>(_ all: [Element]) -> Element? {
        all.isEmpty ? nil : all[simulation.random.below(all.count)]
    }

    private var sectorsPerChunk: Int { chunkSize.bytes / 512 }

    private func newVolume(from source: SnapshotID?) -> SimulatedCall.Change {
        let own = source.flatMap { state.snapshots[$0]?.content.sectors.count }
        return .createVolume(sectors: own ?? sectorsPerChunk * (16 + simulation.random.below(16)), source: source)
    }

    private func grow(_ id: VolumeID) -> SimulatedCall.Change {
        let count = state.volumes[id]?.content.sectors.count ?? 0
        return .resize(id, sectors: count + sectorsPerChunk * (1 + simulation.random.below(3)))
    }

    // MARK: Calls

    func send(_ change: SimulatedCall.Change) {
        guard let shard else { return }
        callCount += 1
        let durability: CommitDurability = simulation.random.chance(40) ? .onFlush : .durable
        let call = SimulatedCall(callCount, change, durability, chunkSize)
        calls.append(call)
        inFlight += 1
        noteRelease(call)
        simulation.note(0xca11, UInt64(call.number))
        // On whose behalf only says whose turn it is: so the order of commits is not that of sending.
        let turns = ["a", "b"].map { AccountID($0)! } as [AccountID?] + [nil]
        shard.submit(
            for: turns[simulation.random.below(3)],
            durability: call.durability,
            records: call.records,
            bytes: call.bytes,
            entries: 16 + call.records * 4,
            reclaims: call.reclaims
        ) { [self] (transaction) throws(StoreError) in
            bodies += 1
            let mustHave = call.pieces.compactMap(\.token).allSatisfy(isKept)
            do throws(StoreError) { try call.perform(transaction, order: bodies) } catch {
                if error.code == .invalid, mustHave {
                    failure =
                        failure ?? ModelFailure("call \(call.number): a chunk that was promised is gone: \(error)")
                }
                throw error
            }
        } completion: { [self, unowned machine = self.machine] result in
            if !machine.isDead { answered(call, result) }
        }
    }

    private func answered(_ call: SimulatedCall, _ result: Result<Void, StoreError>) {
        inFlight -= 1
        call.answer = result
        simulation.note(0xa5, UInt64(call.number), call.lsn ?? 0)
        if case .releaseLease(let kind, _) = call.change { tokens.releasing[kind, default: 0] -= 1 }
        switch result {
        case .success:
            if call.durability == .durable { promised = max(promised, call.lsn ?? 0) }
            answeredLSN = max(answeredLSN, call.lsn ?? 0)
            do { try state.apply(call) } catch { failure = failure ?? error }
            noteLease(call)
            noteReadings()
        case .failure(let error):
            if error.code == .full { outcome.full += 1 }
            switch error.code {
            case .aborted, .invalid, .full: break
            case .fenced where isFenced, .closed where shard?.log.isFenced ?? true: break
            case .closed: break
            default:
                failure = failure ?? ModelFailure("call \(call.number) failed: \(error.code): \(error)")
            }
        }
    }

    private func flush() {
        let covered = answeredLSN
        shard?.flush { [self, unowned machine = self.machine] result in
            if !machine.isDead, case .success = result { promised = max(promised, covered) }
        }
    }

    // MARK: Writing

    private func write() -> SimulatedCall.Change? {
        guard let id = pick(state.volumeIDs), var content = state.volumes[id]?.content else { return nil }
        let pieces = (0..<1 + simulation.random.below(4)).map { _ in piece(&content) }
        return .write(id, pieces, refused: simulation.random.chance(5))
    }

    private func piece(_ content: inout ModelContent) -> SimulatedPiece {
        let chunk = simulation.random.below(content.chunkCount)
        let sectors = content.sectors(of: chunk)
        func whole(_ stamps: [UInt32], _ kind: Transaction.ChunkContent?, token: UInt32? = nil) -> SimulatedPiece {
            content.sectors.replaceSubrange(sectors, with: stamps)
            let data = kind ?? .data(looked(content.data(of: chunk)))
            return SimulatedPiece(
                sectors: sectors,
                stamps: stamps,
                content: .whole(ChunkIndex(UInt64(chunk)), data),
                token: token
            )
        }
        switch simulation.random.below(12) {
        case 0..<4: return whole(sectors.map { _ in stamp() }, nil)
        case 4..<6: return whole(stamps(of: pick(SimulatedTokens.kinds)!), nil)
        case 6: return whole(sectors.map { _ in 0 }, .zeros)
        case 7: return whole(sectors.map { _ in 0 }, .hole)
        case 8..<9:
            let kind = pick(SimulatedTokens.kinds)!
            return whole(stamps(of: kind), .token(chunkOfKind(kind).fingerprint), token: kind)
        default:
            let count = 1 + simulation.random.below(min(sectors.count, 4))
            let first = sectors.lowerBound + simulation.random.below(sectors.count - count + 1)
            let stamps = (0..<count).map { _ in stamp() }
            content.sectors.replaceSubrange(first..<first + count, with: stamps)
            return SimulatedPiece(
                sectors: first..<first + count,
                stamps: stamps,
                content: .part(content.bytes(first..<first + count))
            )
        }
    }

    /// As a service sends it: with what it found of the chunk before.
    private func looked(_ data: ChunkData) -> ChunkData {
        shard.map { data.looked(for: ChunkFinder($0, of: SimulatedCall.account)) } ?? data
    }

    private func stamp() -> UInt32 {
        nextStamp += 1
        return nextStamp
    }

    private func stamps(of kind: UInt32) -> [UInt32] { (0..<sectorsPerChunk).map { kind << 20 + UInt32($0) } }

    func chunkOfKind(_ kind: UInt32) -> ChunkData {
        if let known = kinds[kind] { return known }
        let data = ModelContent(sectors: stamps(of: kind), chunkSize: chunkSize).data(of: 0)
        kinds[kind] = data
        return data
    }

    // MARK: Leases

    /// Whether the client was told that the chunk is here still.
    private func isKept(_ kind: UInt32) -> Bool {
        tokens.pinned[kind] ?? 0 > machine.uptime || tokens.leased[kind] ?? 0 > machine.milliseconds
    }

    private func pin() {
        guard let shard, let kind = pick(SimulatedTokens.kinds) else { return }
        // What is only visible may be lost with the machine, and the promise with it: the verifier says so (SPEC U8).
        let isDurable = shard.log.position.map { $0.lsn <= shard.log.durable } ?? true
        do throws(StoreError) {
            guard try shard.pin(account: SimulatedCall.account, [chunkOfKind(kind).fingerprint]) == [true] else {
                return
            }
            let end = machine.uptime + leaseNanoseconds
            tokens.pinned[kind] = end
            tokens.durablyPinned[kind] = isDurable ? end : tokens.durablyPinned[kind]
        } catch {
            if !isFenced { failure = failure ?? error }
        }
    }

    private func changeLease() {
        guard let kind = pick(SimulatedTokens.kinds) else { return }
        let data = chunkOfKind(kind)
        let end = machine.milliseconds + UInt64(simulation.random.below(6000))
        switch simulation.random.below(3) {
        case 0: send(.stage(kind: kind, data, until: end))
        case 1: send(.lease(kind: kind, data.fingerprint, until: end))
        default: send(.releaseLease(kind: kind, data.fingerprint))
        }
    }

    private func noteRelease(_ call: SimulatedCall) {
        guard case .releaseLease(let kind, _) = call.change else { return }
        tokens.released[kind] = call.number
        tokens.releasing[kind, default: 0] += 1
        tokens.leased[kind] = nil
    }

    private func noteLease(_ call: SimulatedCall) {
        switch call.change {
        case .stage(let kind, _, let end), .lease(let kind, _, let end):
            // Releases that overlap it may come after it.
            guard tokens.releasing[kind] ?? 0 == 0, tokens.released[kind] ?? 0 < call.number else { return }
            tokens.leased[kind] = max(tokens.leased[kind] ?? 0, end)
        default: break
        }
    }

    // MARK: Reading

    private func content(of target: SimulatedReading.Target) -> ModelContent? {
        switch target {
        case .volume(let id): state.volumes[id]?.content
        case .snapshot(let id): state.snapshots[id]?.content
        }
    }

    private func noteReadings() {
        for reading in readings where reading.candidates != nil {
            guard let content = content(of: reading.target) else {
                reading.candidates = nil
                continue
            }
            if case .volume = reading.target { reading.candidates?.append(content) }
        }
    }

    private func read() {
        let all =
            state.volumeIDs.map(SimulatedReading.Target.volume)
            + state.snapshotIDs.map(SimulatedReading.Target.snapshot)
        guard let shard, readings.count < 3, let target = pick(all), let content = content(of: target) else { return }
        let reading = SimulatedReading(target, content)
        readings.append(reading)
        let first = simulation.random.below(content.sectors.count)
        let range = first..<first + 1 + simulation.random.below(content.sectors.count - first)
        let machine = machine
        let faults = disk.injected
        simulation.spawn { [self] in
            let result = Result { () throws(StoreError) in try pieces(of: target, range, shard) }
            readings.removeAll { $0 === reading }
            guard !machine.isDead, let candidates = reading.candidates else { return }
            switch result {
            case .failure(let error):
                // A failing disk may fail a read, or the sync that comes before data is called damaged; it must never make it wrong.
                let isTheDisks = error.code == .io || error.code == .fenced
                if isTheDisks, disk.injected > faults || isFenced { return }
                failure = failure ?? ModelFailure("reading \(target): \(error.code): \(error)")
            case .success(let pieces):
                simulation.note(0x0ead, UInt64(pieces.count))
                let isRight = candidates.contains { (try? $0.check(pieces, range, "\(target)")) != nil }
                if !isRight { failure = failure ?? ModelFailure("\(target) was never like that in \(range)") }
            }
        }
    }

    func pieces(of target: SimulatedReading.Target, _ range: Range<Int>, _ shard: Shard) throws(StoreError)
        -> [ReadPiece]
    {
        let view = shard.makeView()
        var source: ReadSource?
        switch target {
        case .volume(let id): source = try view.volume(id).map { ReadSource($0) }
        case .snapshot(let id): source = try view.snapshot(id).map { ReadSource($0) }
        }
        guard let source else { throw StoreError(.invalid, "\(target) is not there") }
        let bytes = UInt64(range.lowerBound) * 512..<UInt64(range.upperBound) * 512
        return try shard.read(source, [bytes], acceptsLZ4: true)
    }
}
