import CairnCore
import CairnStore
import CairnWire

/// ListDamage: which of an account's volumes and snapshots cannot be read, and where (SPEC D4). And the operator's StartScrub
/// and GetScrub: counts, and nothing of what is in the data.
extension Service {
    /// Entries of manifests that one call looks at; the next page goes on behind them.
    private static let entriesPerPage = 1 << 14
    /// What a volume or snapshot counts for at least: to find it, and what of it may be told, takes as long as so many entries.
    private static let entriesPerTarget = 64

    public func listDamage(
        _ request: Wire.ListDamageRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ListDamageResponse>
    ) {
        onWorker(context, answer) { () throws(ServiceError) in
            let call = PagedCall(request, of: context.account)
            var page = DamagePage(
                limit: try request.page.itemCount(),
                looking: Self.entriesPerPage,
                cursor: try DamageCursor(call)
            )
            if request.target == nil {
                try self.allDamage(&page, context)
            } else {
                try self.damage(of: try self.own(try Named(request.target), context), &page, context)
            }
            return Wire.ListDamageResponse(blocks: page.blocks, nextPageToken: page.next?.token(in: call) ?? [])
        }
    }

    /// SPEC C2: the caller's own, or nothing at all.
    private func own(_ named: Named, _ context: CallContext) throws(ServiceError) -> DamageTarget {
        let view = try shard(of: named).makeView()
        switch named {
        case .volume(let id):
            let volume = try volume(id, in: view, context)
            try Self.checkRemote(volume)
            return .volume(volume)
        case .snapshot(let id):
            let snapshot = try snapshot(id, in: view, context)
            if snapshot.state == .error { throw Self.cancelled(snapshot) }
            return .snapshot(snapshot)
        }
    }

    /// Shard by shard, the volumes and then the snapshots, each oldest first.
    private func allDamage(_ page: inout DamagePage, _ context: CallContext) throws(ServiceError) {
        let begin = page.cursor ?? DamageCursor()
        for shard in store.shards where shard.index >= begin.shard && shard.mayHaveDamage {
            for stage in DamageCursor.Stage.allCases {
                let isResumed = shard.index == begin.shard && page.cursor != nil
                if isResumed, stage.rawValue < begin.stage.rawValue { continue }
                var cursor = isResumed && stage == begin.stage ? begin : DamageCursor(shard: shard.index, stage: stage)
                while let target = try next(&cursor, on: shard, context) {
                    page.cursor = cursor
                    let most = page.looking - Self.entriesPerTarget
                    if target.isReadable {
                        do throws(ServiceError) { try damage(of: target, &page, context) } catch {
                            // Deleted meanwhile.
                            guard error.code == .invalidVolumeID || error.code == .invalidSnapshotID else {
                                throw error
                            }
                        }
                    }
                    if page.next != nil { return }
                    (cursor.chunk, cursor.isWithin) = (0, false)
                    page.looking = min(page.looking, most)
                    if page.looking <= 0 {
                        page.next = cursor
                        return
                    }
                }
            }
        }
    }

    /// The target that the cursor stands in, or the one behind it; the cursor then stands there.
    private func next(_ cursor: inout DamageCursor, on shard: Shard, _ context: CallContext) throws(ServiceError)
        -> DamageTarget?
    {
        try context.checkWanted()
        let view = shard.makeView()
        if cursor.isWithin {
            cursor.isWithin = false
            if let target = try target(cursor.stage, cursor.id, view, context) { return target }
        }
        let (stage, place) = (cursor.stage, (createdAt: cursor.createdAt, id: cursor.id))
        let found = try storeCall { () throws(StoreError) -> DamageTarget? in
            switch stage {
            case .volumes:
                try view.volumes(of: context.account, after: place, limit: 1).first.map { .volume($0) }
            case .snapshots:
                try view.snapshots(of: context.account, after: place, limit: 1).first.map { .snapshot($0) }
            }
        }
        if let found { (cursor.createdAt, cursor.id, cursor.chunk) = (found.createdAt, found.id, 0) }
        return found
    }

    private func target(
        _ stage: DamageCursor.Stage,
        _ id: UUID128,
        _ view: ReadView,
        _ context: CallContext
    ) throws(ServiceError) -> DamageTarget? {
        try storeCall { () throws(StoreError) -> DamageTarget? in
            let target: DamageTarget? =
                switch stage {
                case .volumes: try view.volume(VolumeID(id)).map { .volume($0) }
                case .snapshots: try view.snapshot(SnapshotID(id)).map { .snapshot($0) }
                }
            return target.flatMap { $0.account == context.account && $0.isReadable ? $0 : nil }
        }
    }

    private func damage(of target: DamageTarget, _ page: inout DamagePage, _ context: CallContext)
        throws(ServiceError)
    {
        let readable = try readable(target.named, version: 0, context)
        let source = readable.source
        let end = ChunkIndex(source.chunkSize.count(for: source.size))
        let start = min(ChunkIndex(page.cursor?.chunk ?? 0), end)
        let (limit, looking) = (page.limit - page.blocks.count, page.looking)
        let (found, looked, next) = try storeCall { () throws(StoreError) in
            try readable.shard.makeView()
                .damage(of: source, in: start..<end, limit: limit, looking: looking, rule: readable.rule)
        }
        page.looking -= looked
        page.blocks += found.map { target.describe($0, source) }
        guard let next else { return }
        page.next = page.cursor ?? DamageCursor()
        page.next?.chunk = next.rawValue
        page.next?.isWithin = true
    }

    // MARK: The operator's

    public func startScrub(_ request: Wire.StartScrubRequest, answer: @escaping Answer<Wire.StartScrubResponse>) {
        workers.run(for: nil) {
            for shard in self.store.shards { shard.scrubber.begin(bytesPerSecond: request.bytesPerSecond) }
            answer(.success(Wire.StartScrubResponse()))
        }
    }

    public func getScrub(_ request: Wire.GetScrubRequest, answer: @escaping Answer<Wire.GetScrubResponse>) {
        workers.run(for: nil) {
            answer(Result { () throws(ServiceError) in try storeCall(self.scrubs) })
        }
    }

    private func scrubs() throws(StoreError) -> Wire.GetScrubResponse {
        var response = Wire.GetScrubResponse()
        var accounts: [AccountID?: DamageCount] = [:]
        for shard in store.shards {
            var damaged = 0
            for (account, count) in try shard.makeView().damageCounts() {
                accounts[account, default: DamageCount()] += count
                damaged += count.chunks + count.parts
            }
            let status = shard.scrubber.status
            response.shards.append(
                Wire.ShardScrub(
                    shard: UInt32(shard.index.rawValue),
                    running: status.isRunning,
                    onDemand: status.isOnDemand,
                    startedAtMs: status.startedAt,
                    finishedAtMs: status.finishedAt,
                    bytes: status.bytes,
                    totalBytes: status.totalBytes,
                    found: status.found,
                    damaged: UInt64(damaged),
                    indexProblem: status.indexProblem ?? ""
                )
            )
        }
        response.accounts = accounts.map { account, count in
            Wire.AccountDamage(
                account: account?.name ?? "",
                chunks: UInt64(count.chunks),
                parts: UInt64(count.parts)
            )
        }.sorted { $0.account < $1.account }
        return response
    }
}

/// One page on its way.
private struct DamagePage {
    let limit: Int
    var looking: Int
    var cursor: DamageCursor?
    var blocks: [Wire.DamagedBlock] = []
    var next: DamageCursor?
}

/// A volume or snapshot that is looked through.
private enum DamageTarget {
    case volume(VolumeRecord)
    case snapshot(SnapshotRecord)

    var named: Named {
        switch self {
        case .volume(let volume): .volume(volume.id)
        case .snapshot(let snapshot): .snapshot(snapshot.id)
        }
    }
    var account: AccountID {
        switch self {
        case .volume(let volume): volume.account
        case .snapshot(let snapshot): snapshot.account
        }
    }
    var createdAt: UInt64 {
        switch self {
        case .volume(let volume): volume.createdAt
        case .snapshot(let snapshot): snapshot.createdAt
        }
    }
    var id: UUID128 {
        switch self {
        case .volume(let volume): volume.id.uuid
        case .snapshot(let snapshot): snapshot.id.uuid
        }
    }
    /// A LOCAL volume itself has no data here, nor has a snapshot that was cancelled.
    var isReadable: Bool {
        switch self {
        case .volume(let volume): volume.kind == .remote && volume.state == .active
        case .snapshot(let snapshot): ![.error, .creating].contains(snapshot.state)
        }
    }

    func describe(_ damaged: DamagedBlock, _ source: ReadSource) -> Wire.DamagedBlock {
        var block = Wire.DamagedBlock()
        switch self {
        case .volume(let volume): block.volumeID = volume.id.uuid.bytes
        case .snapshot(let snapshot): block.snapshotID = snapshot.id.uuid.bytes
        }
        block.offset = source.chunkSize.offset(of: damaged.chunk)
        block.length = UInt32(min(UInt64(source.chunkSize.bytes), source.size - block.offset))
        block.token = damaged.fingerprint?.bytes ?? []
        block.sinceMs = damaged.since
        block.reason = damaged.cause.text
        return block
    }
}

/// Where ListDamage goes on.
struct DamageCursor {
    enum Stage: UInt8, CaseIterable {
        case volumes = 0
        case snapshots = 1
    }

    private static let version: UInt8 = 3

    var shard = ShardIndex(0)
    var stage = Stage.volumes
    var createdAt: UInt64 = 0
    var id = UUID128(high: 0, low: 0)
    /// Within the volume or snapshot `id`, if ``isWithin``; else with the one behind it.
    var chunk: UInt64 = 0
    var isWithin = false

    init() {}

    init(shard: ShardIndex, stage: Stage) { (self.shard, self.stage) = (shard, stage) }

    func token(in call: PagedCall) -> [UInt8] {
        call.seal(version: Self.version) {
            $0.put(shard.rawValue)
            $0.put(stage.rawValue)
            $0.put(createdAt)
            $0.put(bytes: id.bytes)
            $0.put(chunk)
            $0.put(UInt8(isWithin ? 1 : 0))
        }
    }

    /// Nil for the first page.
    init?(_ call: PagedCall) throws(ServiceError) {
        let cursor = try call.open(version: Self.version) { reader -> DamageCursor? in
            var cursor = DamageCursor()
            guard let shard = reader.take(UInt16.self), let stage = reader.take(UInt8.self).flatMap(Stage.init),
                let created = reader.take(UInt64.self), let id = reader.take(bytes: 16).flatMap({ UUID128(bytes: $0) }),
                let chunk = reader.take(UInt64.self), let isWithin = reader.take(UInt8.self)
            else { return nil }
            (cursor.shard, cursor.stage, cursor.createdAt) = (ShardIndex(shard), stage, created)
            (cursor.id, cursor.chunk, cursor.isWithin) = (id, chunk, isWithin == 1)
            return cursor
        }
        guard let cursor else { return nil }
        self = cursor
    }
}
