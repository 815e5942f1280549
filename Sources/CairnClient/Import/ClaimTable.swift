internal import CairnCore

/// Which chunks are being uploaded now: so that a chunk that occurs twice in one image is sent once. Whoever meets a
/// chunk first claims it and finds out whether it must be sent; others wait until it is there, and name it by its token.
///
/// Nobody waits for a later piece, because claims are made piece by piece, all of a piece at once, and whoever holds a claim
/// needs nothing that a waiting piece has.
struct ClaimTable<Waiter: AnyObject> {
    private var waiters: [Fingerprint: [Waiter]] = [:]

    var isEmpty: Bool { waiters.isEmpty }

    /// True: the chunk is the caller's to bring. False: another brings it, and `waiter` will come out of ``release(_:)``.
    mutating func claim(_ chunk: Fingerprint, waiter: Waiter) -> Bool {
        guard waiters[chunk]?.append(waiter) == nil else { return false }
        waiters[chunk] = []
        return true
    }

    /// The chunks are there.
    /// - Returns: who waited for them: one entry for each wait.
    mutating func release(_ chunks: [Fingerprint]) -> [Waiter] {
        chunks.flatMap { waiters.removeValue(forKey: $0) ?? [] }
    }
}
