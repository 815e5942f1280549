import CairnCore
import CairnLog

/// One group on its way: calls carried out one after the other over one overlay, then written, applied and answered.
// Safety: built on the shard's queue, then handed to its I/O queue: one thread at a time.
final class GroupBuilding: @unchecked Sendable {
    private let overlay: IndexOverlay
    private let group: LogGroup
    private let transaction: Transaction
    let purpose: GroupPurpose
    private var endings: [PendingCall.Ending] = []
    private(set) var isDurable = false
    private(set) var bytes = 0
    private var calls = 0

    /// - Throws: where the log has no room even for `first`.
    init(first: PendingCall, _ shard: Shard) throws(StoreError) {
        purpose = first.reclaims ? .reclaim : .normal
        overlay = IndexOverlay(shard.database)
        let purpose = purpose
        group = try logCall { () throws(LogError) in
            try shard.log.makeGroup(for: purpose, records: first.records, bytes: first.bytes, commit: first.commitBytes)
        }
        transaction = Transaction(
            overlay: overlay,
            group: group,
            shard: shard.index,
            mayHaveDamage: shard.damage.isPossible,
            entriesPerStep: shard.options.releaseStep,
            expiredKeys: shard.expiredKeys,
            arrivals: shard.arrivals,
            hints: shard.hints,
            shard.options.execution
        )
    }

    /// Whether the next call fits.
    /// - Parameter most: bytes of records that the group may have; one call may have more.
    func takes(_ call: PendingCall, upTo most: Int) -> Bool {
        if calls == 0 { return true }
        guard call.reclaims == (purpose == .reclaim) else { return false }
        let commit = overlay.encoded.count + transaction.writtenBytes + call.commitBytes
        return bytes + call.bytes <= most && commit <= Shard.groupCommitBytes
            && group.hasRoom(records: call.records, bytes: call.bytes, commit: commit)
    }

    /// Carries a call out. False where its commit has no room behind those of the calls before it: it is undone, and wants
    /// another group.
    func add(_ call: PendingCall) -> Bool {
        transaction.begin()
        let ending = call.run(transaction)
        if transaction.isAborted {
            transaction.rollback()
        } else if !commitFits {
            // The call's own word for its size is an estimate. Found out here, it costs the call alone, not the shard.
            transaction.rollback()
            if calls > 0 { return false }
            endings.append { failure in
                ending(
                    failure ?? StoreError(.invalid, "the change is too large for one commit: send fewer blocks at once")
                )
            }
            calls += 1
            return true
        } else {
            bytes += call.bytes
            isDurable = isDurable || call.isDurable
        }
        calls += 1
        endings.append(ending)
        return true
    }

    /// Whether the commit record can still be written, with what ``Transaction/finish()`` adds for segments, accounts and written maps.
    private var commitFits: Bool {
        let segments = transaction.liveDeltas.count * Transaction.segmentChangeBytes
        let accounts = transaction.usageDeltas.count * UsageDelta.changeBytes
        return group.hasRoom(
            records: 0,
            bytes: 0,
            commit: overlay.encoded.count + segments + accounts + transaction.writtenBytes
        )
    }

    /// Refused calls and questions leave nothing to write.
    var changesSomething: Bool { !overlay.isEmpty || !group.isEmpty }
    var hasNewWork: Bool { transaction.hasNewWork }
    var mergeable: [PatchedPlace] { transaction.mergeable }
    var commitBytes: Int { overlay.encoded.count }
    var position: LogPosition { group.position }

    /// What a finished group takes of the log.
    var logBytes: Int { group.alignedLength }

    /// Writes the group, and applies it to the index. Blocks.
    /// - Parameter logBytes: what the log had got before, since the shard was made.
    func write(sync: Bool, to log: SegmentLog, _ database: IndexDatabase, after logBytes: UInt64) throws(StoreError) {
        try transaction.finish()
        let commit = overlay.encoded
        try logCall { () throws(LogError) in
            try group.finish(commit: commit)
            _ = try log.write(group, sync: sync)
        }
        overlay.put(position: group.position, logBytes: logBytes + UInt64(group.alignedLength))
        try database.apply(overlay)
    }

    /// Answers every call of the group.
    func complete(_ failure: StoreError?) {
        for ending in endings { ending(failure) }
        endings = []
    }
}
