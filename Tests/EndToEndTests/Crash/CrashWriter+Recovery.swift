import CairnCore
import CairnWire

extension CrashWriter {
    /// After a crash: everything that was acknowledged is there, and nothing that nobody wrote. What was open is settled.
    func recover() async throws {
        ledger.note("recover")
        for place in volumes.indices where !isLeaving(volumes[place].id) {
            volumes[place] = try await recovered(volumes[place], "volume \(place) of \(name)")
        }
        for place in snapshots.indices where !isLeaving(snapshots[place].id) {
            snapshots[place] = try await recoveredSealed(snapshots[place], "snapshot \(place) of \(name)")
        }
        if let base = local?.base { local!.base = try await recoveredSealed(base, "the last backup of \(name)") }
        if let open = local?.open { local!.open = try await recovered(open, "the backup in progress of \(name)") }
        for _ in 0..<500 where deed != nil {
            let wanted = deed!
            let refused = counts.refusedAsFull
            try await carryOut(wanted)
            if counts.refusedAsFull > refused { deed = wanted }
        }
        guard deed == nil else { throw HarnessError("\(name): the store is full for good") }
        try await checkLists()
        ledger.note("recovered")
    }

    /// Whether it may be gone, or not: its deletion was not answered.
    private func isLeaving(_ id: [UInt8]) -> Bool {
        switch deed {
        case .deleteVolume(let place, _): volumes[place].id == id
        case .deleteSnapshot(let place, _): snapshots[place].id == id
        default: false
        }
    }

    private func recovered(_ subject: Subject, _ name: String) async throws -> Subject {
        var subject = subject
        counts.found += try subject.recover(try await read(subject, name), name)
        counts.images += 1
        return subject
    }

    /// S6: complete ones never change, and the service's seal says the same.
    private func recoveredSealed(_ subject: Subject, _ name: String) async throws -> Subject {
        let subject = try await recovered(subject, name)
        let seal = try await caller.seal(subject.id)
        guard seal == Content.seal(subject.latest.bytes, chunkSize: Int(subject.chunkSize)) else {
            throw Loss("the seal of \(name) is not that of its content")
        }
        return subject
    }

    private func read(_ subject: Subject, _ name: String) async throws -> Picture {
        let bytes: [UInt8]
        do { bytes = try await caller.download(subject.target, [subject.range]).bytes } catch let error as CallError {
            throw Loss("\(name) cannot be read: \(error)")
        }
        do { return try Picture(bytes) } catch { throw Loss("\(name): sector \(error.sector) is torn") }
    }

    /// Nothing is missing, nothing is there twice, and what was deleted stays away.
    private func checkLists() async throws {
        let found = try await caller.liveVolumes()
        let expected = Set(volumes.map(\.id) + [local!.volume])
        guard found == expected else {
            throw Loss(
                "\(name): \(found.subtracting(expected).count) volumes too many, \(expected.subtracting(found).count) missing"
            )
        }
        let listed = try await caller.liveSnapshots(of: volumes[0].id)
        let known = Set(snapshots.map(\.id)).union(initialSnapshots)
        guard listed == known else {
            throw Loss(
                "\(name): \(listed.subtracting(known).count) snapshots too many, \(known.subtracting(listed).count) missing"
            )
        }
    }

    /// Everything as ``recover()`` left it: a second recovery changes nothing.
    func recoverAgain() async throws {
        let before = (volumes + snapshots).map(\.latest)
        try await recover()
        guard (volumes + snapshots).map(\.latest) == before else {
            throw Loss("\(name): a second recovery found something else")
        }
    }
}
