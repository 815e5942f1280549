public import CairnCore
import CairnLog

/// Durable leases (SPEC U7): chunks that stay though no manifest names them. A lease counts as one of the chunk's references.
extension Transaction {
    /// Keeps a chunk for the account until `end` at least, in milliseconds since 1970; stored unless the dictionary has it.
    /// - Parameter chunkSize: what its fingerprint was padded to.
    public func stage(_ data: ChunkData, chunkSize: ChunkSize, account: AccountID, until end: UInt64) throws(StoreError)
    {
        let chunk = ChunkKey(own: try numberAccount(account), data.fingerprint)
        if try prolong(chunk, until: end) { return try healIfDamaged(chunk, with: data) }
        try addReference(storing: data, chunk, chunkSize, of: account)
        putLease(chunk, end)
    }

    /// Keeps a chunk that the account has here until `end` at least; false where it has none.
    public func lease(_ token: Fingerprint, account: AccountID, until end: UInt64) throws(StoreError) -> Bool {
        guard let number = try accountNumber(account) else { return false }
        let chunk = ChunkKey(own: number, token)
        // One that is damaged must be sent again, though a lease may keep it.
        guard let record = try soundChunk(chunk) else { return false }
        if try prolong(chunk, until: end) { return true }
        addReference(record, chunk)
        putLease(chunk, end)
        return true
    }

    /// Ends the account's lease of a chunk, if there is one.
    public func releaseLease(_ token: Fingerprint, account: AccountID) throws(StoreError) {
        guard let number = try accountNumber(account) else { return }
        let chunk = ChunkKey(own: number, token)
        if let record = try lease(chunk) { try endLease(chunk, record) }
    }

    /// Ends leases whose time is over: as many as one commit takes.
    /// - Parameter place: where to begin, and then where to go on; nil: at the first there is.
    /// - Returns: whether none is left.
    func expireLeases(at now: UInt64, from place: inout [UInt8]?) throws(StoreError) -> Bool {
        let ended = try leases(endingBy: now, from: place, limit: entriesPerStep)
        for (expiresAt, chunk) in ended {
            guard let record = try lease(chunk), record.expiresAt == expiresAt else {
                throw StoreError(.damaged, "the lease of chunk \(chunk.fingerprint) ends at two times")
            }
            try endLease(chunk, record)
        }
        if let last = ended.last { place = Key.leaseEnd(last.expiresAt, last.chunk) + [0] }
        return ended.count < entriesPerStep
    }

    /// False where there is no lease. One that lasts longer stays as it is: its holder was told so.
    private func prolong(_ chunk: ChunkKey, until end: UInt64) throws(StoreError) -> Bool {
        guard let present = try lease(chunk) else { return false }
        if present.expiresAt < end {
            overlay.delete(Key.leaseEnd(present.expiresAt, chunk))
            putLease(chunk, end)
        }
        return true
    }

    private func putLease(_ chunk: ChunkKey, _ end: UInt64) {
        overlay.put(Key.lease(chunk), LeaseRecord(expiresAt: end).encoded)
        overlay.put(Key.leaseEnd(end, chunk), [])
    }

    private func endLease(_ chunk: ChunkKey, _ record: LeaseRecord) throws(StoreError) {
        overlay.delete(Key.lease(chunk))
        overlay.delete(Key.leaseEnd(record.expiresAt, chunk))
        try dropReference(chunk)
    }
}

extension Background {
    /// Nanoseconds between two walks from the first lease on.
    private static let leasePause: UInt64 = 60_000_000_000

    /// Ends leases whose time is over; the purge then takes what nothing else names.
    func expireLeases() throws(StoreError) {
        var isDone = false
        // Those that ended lie there as deleted keys until they are compacted: the walk does not pass them in each round. But now and then
        // it does, for a clock may be set back, and a commit may take longer than its lease.
        if execution.uptime >= leasesFromStart {
            leasesFrom = nil
            leasesFromStart = execution.uptime + Self.leasePause
        }
        while !isDone, !isStopped {
            let (now, from) = (execution.milliseconds, leasesFrom)
            // Most rounds find nothing: they write nothing either.
            if try shard.makeView().leases(endingBy: now, from: from, limit: 1).isEmpty { return }
            (isDone, leasesFrom) = try change(entries: shard.options.releaseStep) { (transaction) throws(StoreError) in
                var place = from
                let isDone = try transaction.expireLeases(at: now, from: &place)
                return (isDone, place)
            }
        }
    }
}
