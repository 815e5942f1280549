import Testing

@testable import CairnStore

/// Holds what comes of faults in a store's metadata against what must, and counts it.
struct MetadataRun {
    private let store: RotStore
    private let image: MetadataImage
    /// Stores that did not open.
    private(set) var refused = 0
    /// Faults that hit a copy of the index.
    private(set) var rottenCopies = 0
    private(set) var repaired = 0
    /// Wrong bytes, and errors that name no damage.
    private(set) var wrong = 0
    /// Chunks, and copies of the index, that are damaged and not named, or the other way round.
    private(set) var unnamed = 0
    /// Repairs after which something was missing, or refused without need.
    private(set) var unrepaired = 0

    /// - Parameter store: closed.
    init(_ store: RotStore, _ image: MetadataImage) { (self.store, self.image) = (store, image) }

    /// One fault, from a store that is whole.
    /// - Parameter repairs: whether the store is repaired too, where that is called for.
    mutating func check(_ fault: MetadataFault, repairs: Bool, _ place: String) throws {
        try image.make(with: fault)
        rottenCopies += fault.copies.isEmpty ? 0 : 1
        guard try opens(place) else {
            refused += 1
            // The copies are not needed for that.
            #expect(fault.isOfIndex || fault.isOfLog, "\(place): refused")
            // As an operator would: in the state that the refusal leaves.
            if repairs, !fault.isOfLog { try repair(fault, place, wasRefused: true) }
            return
        }
        let isHarmful = try look(fault, place)
        guard repairs, !fault.isOfLog, isHarmful || !fault.copies.isEmpty else { return }
        // What was open has written: repaired is what the fault alone has left.
        try image.make(with: fault)
        let isBare = !fault.copies.isEmpty
        if isBare { try image.removeIndex() }
        try repair(fault, place + (isBare ? ", without the index" : ""), wasRefused: isBare)
    }

    // MARK: Opening and reading

    /// - Returns: false where the store does not open, and says why.
    private func opens(_ place: String) throws -> Bool {
        do {
            try store.open(at: image.copy)
            return true
        } catch let error as StoreError {
            #expect([.damaged, .io, .notAStore, .newerFormat].contains(error.code), "\(place): \(error.code)")
            #expect(error.text.count > 10, "\(place): \(error)")
            return false
        }
    }

    /// Reads all of the open store, scrubs it, and closes it.
    /// - Returns: whether the fault in the index does harm.
    private mutating func look(_ fault: MetadataFault, _ place: String) throws -> Bool {
        let shard = store.scratch.shard
        let (lost, problems) = store.readAll()
        wrong += problems.count
        #expect(problems == [], "\(place)")
        // While a copy is being made the others are not looked at.
        _ = store.scratch.eventually { !shard.checkpoints.isRunning }
        let copies = shard.checkpoints.folder.checkpoints
        let problem = try store.scratch.scrub().indexProblem
        let named = names()
        if problem == nil {
            // What cannot be found for the index's sake is told as the index's damage.
            unnamed += named.map { lost.symmetricDifference($0).count } ?? 1
            #expect(named == lost, "\(place)")
        }
        if !fault.isOfIndex {
            let isClean = lost.isEmpty && named?.isEmpty == true
            #expect(isClean, "\(place): lost \(lost), named \(named?.sorted() ?? ["nothing can be"])")
            let isTold =
                if let problem { fault.copies.contains { problem.hasPrefix("checkpoint \($0): ") } } else {
                    fault.copies.isEmpty
                }
            unnamed += isTold ? 0 : 1
            #expect(isTold, "\(place): \(problem ?? "no problem") is told of \(fault.copies)")
            // What is damaged is not kept as if it were a copy.
            let left = Set(shard.checkpoints.folder.checkpoints)
            let isGone = left.isDisjoint(with: copies.filter { fault.copies.contains($0.number) })
            #expect(isGone && shard.checkpoints.folder.damaged == [], "\(place)")
        } else if !fault.copies.isEmpty, shard.fenceReason == nil {
            unnamed += problem == nil ? 1 : 0
            #expect(problem != nil, "\(place)")
        }
        store.close()
        return fault.isOfIndex && (problem != nil || !lost.isEmpty)
    }

    /// What ListDamage would tell; nil where the index is too damaged to tell.
    private func names() -> Set<String>? { try? store.named() }

    // MARK: Repair

    /// Repairs the store that lies there, and requires that all of it is there again.
    /// - Parameter wasRefused: whether it did not open as it was.
    private mutating func repair(_ fault: MetadataFault, _ place: String, wasRefused: Bool) throws {
        let report: ShardRepair
        do { report = try RepairImage.repair(at: image.copy) } catch {
            unrepaired += 1
            Issue.record("\(place): repair says \(error)")
            return
        }
        // Where no copy is whole the log still goes back to its beginning: nothing is ever lost, and nothing beyond repair.
        let isDone = report.outcome == .repaired || !wasRefused && report.outcome == .healthy
        let isNamed = fault.copies.allSatisfy { copy in
            report.findings.contains { $0.hasPrefix("checkpoint \(copy) ") }
        }
        let isWhole = report.lost == nil && report.lsn >= store.lastLSN && isNamed
        #expect(isDone && isWhole, "\(place): \(report)")
        guard isDone, isWhole, try opens("\(place), repaired") else {
            unrepaired += 1
            #expect(!isDone || !isWhole, "\(place): it does not open after \(report)")
            return
        }
        let (lost, problems) = store.readAll()
        let audit = (try? store.scratch.shard.audit().problems) ?? ["the audit fails"]
        store.close()
        wrong += problems.count
        let isRight = lost.isEmpty && problems.isEmpty && audit.isEmpty
        repaired += isRight ? 1 : 0
        unrepaired += isRight ? 0 : 1
        #expect(isRight, "\(place): after \(report): lost \(lost), \(problems), \(audit)")
    }
}
