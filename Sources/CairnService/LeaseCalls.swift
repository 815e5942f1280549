import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// How long a lease should last: 24 h where the caller does not say, at most 30 days (SPEC U7).
struct LeaseTime {
    static let usualSeconds: UInt32 = 24 * 3600

    private let milliseconds: UInt64

    init(seconds: UInt32) throws(ServiceError) {
        guard UInt64(seconds) <= Limits.leaseSeconds else {
            throw ServiceError(.invalidArgument, "a lease lasts at most 30 days (\(Limits.leaseSeconds) s)")
        }
        milliseconds = UInt64(seconds == 0 ? Self.usualSeconds : seconds) * 1000
    }

    /// Of a lease that begins at `now`: milliseconds since 1970.
    func end(from now: UInt64) -> UInt64 { now + milliseconds }
}

/// RenewLease and ReleaseLease (SPEC U7, R1).
extension Service {
    /// Leases that one transaction changes: each is a handful of index changes.
    private static let leasesPerChange = 512

    /// Makes or prolongs leases of chunks that the account may name, wherever they are.
    public func renewLease(
        _ request: Wire.RenewLeaseRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.RenewLeaseResponse>
    ) {
        beginOnWorker(context, bytes: searchCost(of: request.tokens.count), answer) { () throws(ServiceError) in
            let lease = try LeaseTime(seconds: request.leaseSeconds)
            let tokens = try Self.fingerprints(request.tokens)
            // Pinned first: what is found here is still there when its lease is written. An unknown one changes nothing.
            self.search(for: tokens, near: self.homeShard(of: context.account), context) { result in
                do throws(ServiceError) {
                    let places = try self.places(try result.get())
                    let end = lease.end(from: self.now)
                    self.changeLeases(places, context) { result in
                        answer(result.map { Wire.RenewLeaseResponse(leaseExpiresAtMs: end) })
                    } each: { (transaction, item) throws(ServiceError) in
                        let isHere = try storeCall { () throws(StoreError) in
                            try transaction.lease(item.token, account: context.account, until: end)
                        }
                        guard isHere else { throw Self.unknown(item.token, item.index) }
                    }
                } catch { answer(.failure(error)) }
            }
        }
    }

    /// Ends leases; of what is not leased nothing.
    public func releaseLease(
        _ request: Wire.ReleaseLeaseRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ReleaseLeaseResponse>
    ) {
        // The look-ups are the shards'.
        beginOnWorker(context, bytes: request.tokens.count * Fingerprint.byteCount, answer) { () throws(ServiceError) in
            let tokens = try Self.fingerprints(request.tokens)
            let items = tokens.enumerated().map { LeaseItem(token: $1, index: $0) }
            let places = self.store.shards.map { LeasePlace(shard: $0, items: items) }
            self.changeLeases(places, reclaims: true, context) { result in
                answer(result.map { Wire.ReleaseLeaseResponse() })
            } each: { (transaction, item) throws(ServiceError) in
                try storeCall { () throws(StoreError) in
                    try transaction.releaseLease(item.token, account: context.account)
                }
            }
        }
    }

    /// A token with its place in the request's list.
    struct LeaseItem: Sendable {
        let token: Fingerprint
        let index: Int
    }

    struct LeasePlace: Sendable {
        let shard: Shard
        var items: [LeaseItem]
    }

    static func unknown(_ token: Fingerprint, _ index: Int) -> ServiceError {
        ServiceError(.invalidChunkToken, "this account has no chunk \(token)", blockIndex: index)
    }

    /// What was found, by shards. Zeros are everywhere, and need no lease.
    private func places(_ search: ChunkSearch) throws(ServiceError) -> [LeasePlace] {
        if let missing = search.missing.first { throw Self.unknown(search.tokens[missing], missing) }
        var items: [ShardIndex: [LeaseItem]] = [:]
        for (index, shard) in search.places.enumerated() {
            if let shard {
                items[shard.index, default: []].append(LeaseItem(token: search.tokens[index], index: index))
            }
        }
        return store.shards.compactMap { shard in
            items[shard.index].map { LeasePlace(shard: shard, items: $0) }
        }
    }

    /// One place after the other, in bounded steps; the answer comes after the last.
    private func changeLeases(
        _ places: [LeasePlace],
        reclaims: Bool = false,
        _ context: CallContext,
        _ answer: @escaping Answer<Void>,
        each: @escaping @Sendable (Transaction, LeaseItem) throws(ServiceError) -> Void
    ) {
        guard var place = places.first else { return answer(.success(())) }
        let step = Array(place.items.prefix(Self.leasesPerChange))
        place.items.removeFirst(step.count)
        let rest = (place.items.isEmpty ? [] : [place]) + places.dropFirst()
        let goOn: Answer<Void> = { result in
            switch result {
            case .success:
                self.workers.run(for: context.account) {
                    self.changeLeases(rest, reclaims: reclaims, context, answer, each: each)
                }
            case .failure(let error): answer(.failure(error))
            }
        }
        let footprint = Footprint(entries: step.count + 8, reclaims: reclaims)
        change(on: place.shard, footprint, context, goOn) { (transaction) throws(ServiceError) in
            for item in step { try each(transaction, item) }
        }
    }
}
