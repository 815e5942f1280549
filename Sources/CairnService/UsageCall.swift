import CairnCore
import CairnStore
import CairnWire

/// GetUsage (SPEC R2).
extension Service {
    /// Of the account, from what is counted with every change; of volumes and snapshots, and what their deletion would free or an
    /// affinity key would have saved, by walks through their manifests.
    public func getUsage(
        _ request: Wire.GetUsageRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.GetUsageResponse>
    ) {
        let needsWalk = !request.targets.isEmpty || request.freedByDeletion || !request.affinity.isEmpty
        guard needsWalk else {
            return addSnapshots(context) { result in
                let total = result.flatMap { snapshotBytes in
                    Result { () throws(ServiceError) in try self.accountUsage(context, snapshotBytes) }
                }
                answer(total.map { Wire.GetUsageResponse(total: $0) })
            }
        }
        do throws(ServiceError) {
            try usageGate.run(context, waiting: options.usageMilliseconds, answer) { (turn) throws(ServiceError) in
                try self.walkUsageInTime(request, context, turn)
            }
        } catch { answer(.failure(error)) }
    }

    /// With the server's own limit, where the caller's is later or there is none.
    private func walkUsageInTime(_ request: Wire.GetUsageRequest, _ context: CallContext, _ turn: UsageGate.Turn)
        throws(ServiceError) -> Wire.GetUsageResponse
    {
        var limited = context
        limited.end(within: options.usageMilliseconds)
        do throws(ServiceError) { return try walkUsage(request, limited, turn) } catch {
            guard error.code == .deadlineExceeded else { throw error }
            try context.checkWanted()
            throw ServiceError(
                .deadlineExceeded,
                "the answer takes more than \(options.usageMilliseconds / 1000) s: ask about fewer volumes and snapshots"
            )
        }
    }

    private func accountUsage(_ context: CallContext, _ snapshotBytes: UInt64) throws(ServiceError) -> Wire.Usage {
        var sum = AccountUsage()
        for shard in store.shards {
            sum += try storeCall { () throws(StoreError) in try shard.makeView().usage(of: context.account) }
        }
        return Wire.Usage(
            logicalBytes: sum.logicalBytes.saturatingSum(snapshotBytes),
            uniqueBytes: sum.uniqueBytes,
            storedBytes: sum.storedBytes
        )
    }

    private typealias Place = (createdAt: UInt64, id: UUID128)

    /// Snapshots that one job looks up: each may have 32 KiB of tags.
    private static let sizesPerJob = 128

    /// The sizes of the account's snapshots, the initial ones apart: each page is a job of its own, so that other accounts get
    /// their turn.
    private func addSnapshots(
        onShard index: Int = 0,
        after place: Place? = nil,
        to sum: UInt64 = 0,
        _ context: CallContext,
        then body: @escaping Answer<UInt64>
    ) {
        let page: Answer<(UInt64, Place?)> = { result in
            guard case .success(let (sum, next)) = result else { return body(result.map(\.0)) }
            let following = next == nil ? index + 1 : index
            guard following < self.store.shardCount else { return body(.success(sum)) }
            self.addSnapshots(onShard: following, after: next, to: sum, context, then: body)
        }
        onWorker(context, bytes: Self.sizesPerJob * Workers.lookUpBytes, page) { () throws(ServiceError) in
            let found = try storeCall { () throws(StoreError) in
                try self.store.shards[index].makeView()
                    .snapshots(of: context.account, after: place, limit: Self.sizesPerJob)
            }
            let bytes = found.filter { !$0.isInitial }.reduce(sum) { $0.saturatingSum($1.size) }
            let last = found.count == Self.sizesPerJob ? found.last : nil
            return (bytes, last.map { ($0.createdAt, $0.id.uuid) })
        }
    }

    // MARK: Walks

    /// The targets of one shard.
    private struct Part {
        let walk: UsageWalk
        var targets: [UsageWalk.Target] = []
    }

    private func walkUsage(_ request: Wire.GetUsageRequest, _ context: CallContext, _ turn: UsageGate.Turn)
        throws(ServiceError) -> Wire.GetUsageResponse
    {
        try context.checkWanted()
        guard request.targets.count <= Limits.usageTargets, request.affinity.count <= Limits.affinityKeyBytes else {
            throw ServiceError(
                .invalidArgument,
                "at most \(Limits.usageTargets) targets, and an affinity key of \(Limits.affinityKeyBytes) bytes"
            )
        }
        var response = Wire.GetUsageResponse()
        let parts: [ShardIndex: Part]
        if request.targets.isEmpty {
            parts = try everything(context, turn)
            var snapshotBytes: UInt64 = 0
            for part in parts.values {
                for target in part.targets where !target.isVolume {
                    snapshotBytes = snapshotBytes.saturatingSum(target.size)
                }
            }
            response.total = try accountUsage(context, snapshotBytes)
        } else {
            let targets: [(shard: Shard, target: UsageWalk.Target)]
            (targets, parts) = try usageTargets(request, context, turn)
            var sum = UsageWalk.Sum()
            try walking(context) { () throws(StoreError) in
                for (shard, target) in targets {
                    let each = try parts[shard.index]!.walk.holding([target])
                    response.each.append(Self.usage(each, logicalBytes: target.size))
                }
                for part in parts.values { sum += try part.walk.holding(part.targets) }
            }
            response.total = Self.usage(sum, logicalBytes: targets.reduce(0) { $0 + $1.target.size })
        }
        try walking(context) { () throws(StoreError) in
            if request.freedByDeletion {
                for part in parts.values { response.freedBytes += try part.walk.freeing(part.targets).storedBytes }
            }
            if !request.affinity.isEmpty {
                response.affinitySavingsBytes = try savings(of: request.affinity, parts, context)
            }
        }
        return response
    }

    /// A walk that was stopped was so by the caller, or by its deadline.
    private func walking(_ context: CallContext, _ body: () throws(StoreError) -> Void) throws(ServiceError) {
        do throws(StoreError) { try body() } catch {
            if error.code == .aborted { try context.checkWanted() }
            throw ServiceError(error)
        }
    }

    /// What is asked about, in the request's order and by shards, as the shards' walks see it.
    private func usageTargets(_ request: Wire.GetUsageRequest, _ context: CallContext, _ turn: UsageGate.Turn)
        throws(ServiceError) -> ([(shard: Shard, target: UsageWalk.Target)], [ShardIndex: Part])
    {
        var found: [(shard: Shard, target: UsageWalk.Target)] = []
        for (index, target) in request.targets.enumerated() {
            do throws(ServiceError) { found.append(try usageTarget(target, context)) } catch {
                throw error.at(index)
            }
        }
        var targets: [(shard: Shard, target: UsageWalk.Target)] = []
        var parts: [ShardIndex: Part] = [:]
        for (index, (shard, target)) in found.enumerated() {
            if parts[shard.index] == nil { parts[shard.index] = Part(walk: try usageWalk(shard, context, turn)) }
            let walk = parts[shard.index]!.walk
            guard let present = try storeCall({ () throws(StoreError) in try walk.present(target) }) else {
                // Deleted since it was found.
                throw (target.isVolume ? ServiceError.noSuchVolume : .noSuchSnapshot).at(index)
            }
            targets.append((shard, present))
            parts[shard.index]!.targets.append(present)
        }
        return (targets, parts)
    }

    private func usageWalk(_ shard: Shard, _ context: CallContext, _ turn: UsageGate.Turn) throws(ServiceError)
        -> UsageWalk
    {
        try storeCall { () throws(StoreError) in
            try UsageWalk(shard, of: context.account) { () throws(StoreError) in
                turn.giveWay()
                do throws(ServiceError) { try context.checkWanted() } catch {
                    throw StoreError(.aborted, error.text)
                }
            }
        }
    }

    /// The caller's own alone: a grant tells nothing of what somebody else's data takes (SPEC C2, C3).
    private func usageTarget(_ target: Wire.Target, _ context: CallContext) throws(ServiceError) -> (
        shard: Shard, target: UsageWalk.Target
    ) {
        let named = try Named(target)
        let shard = try shard(of: named)
        let view = shard.makeView()
        switch named {
        case .volume(let id): return (shard, .volume(try volume(id, in: view, context)))
        case .snapshot(let id): return (shard, .snapshot(try snapshot(id, in: view, context)))
        }
    }

    private func everything(_ context: CallContext, _ turn: UsageGate.Turn) throws(ServiceError) -> [ShardIndex: Part] {
        var parts: [ShardIndex: Part] = [:]
        for shard in store.shards {
            var part = Part(walk: try usageWalk(shard, context, turn))
            try walking(context) { () throws(StoreError) in part.targets = try part.walk.everything() }
            parts[shard.index] = part
        }
        return parts
    }

    /// What would be free if the targets were on the key's shard: what they alone hold on theirs, less what that one lacks.
    private func savings(of affinity: [UInt8], _ parts: [ShardIndex: Part], _ context: CallContext)
        throws(StoreError) -> UInt64
    {
        let home = shard(forAffinity: affinity, idempotencyKey: [], account: context.account)
        let moved = parts.filter { $0.key != home.index }.sorted { $0.key < $1.key }.map(\.value)
        var freed: UInt64 = 0
        for part in moved { freed += try part.walk.freeing(part.targets).chunkBytes }
        let there = try UsageWalk(home, of: context.account) {}
        let lacking = try UsageWalk.lacking(moved.map { ($0.walk, $0.targets) }, at: there)
        return freed > lacking ? freed - lacking : 0
    }

    private static func usage(_ sum: UsageWalk.Sum, logicalBytes: UInt64) -> Wire.Usage {
        Wire.Usage(logicalBytes: logicalBytes, uniqueBytes: sum.uniqueBytes, storedBytes: sum.storedBytes)
    }
}
