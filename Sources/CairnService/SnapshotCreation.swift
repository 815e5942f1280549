import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

extension Service {
    /// Bytes of memory that the lists of a request may take while they are worked through: those of its message, or of a chunk of an
    /// encoded list, decoded.
    public static func listRoom(_ request: Wire.CreateSnapshotRequest) -> Int {
        let isShort = request.chunks.isEmpty && request.chunkListTokens.isEmpty && request.expected.isEmpty
        return isShort ? 0 : 4 * ChunkSize.maximum.bytes
    }
}

/// One CreateSnapshot of a LOCAL volume (SPEC S3, S5): checks its lists, brings chunks that are on other shards, and then makes the
/// snapshot; in one transaction where the lists are short, else hidden until its last one.
///
/// ```
/// verify    a step of the list: every chunk is here and fits, and is pinned        ┐ nothing is created
/// bring     a step of those that must be read: what is on another shard is staged  ┘ where this fails
/// create    the snapshot and the first step of the list
/// place     the further steps, then those of what is expected
/// reveal    the snapshot is there for everybody, and the receipt is kept
/// ```
/// Each step is a job of its own: a long list holds neither a worker nor the shard's queue for long.
struct SnapshotCreation: Sendable {
    /// Placements of one step: what one commit takes.
    static let step = 4096
    /// Bytes of chunks that one step reads.
    private static let bringBytes = 8 << 20
    /// How long chunks that were brought are kept for the list that names them, in milliseconds.
    private static let bringTime: UInt64 = 15 * 60 * 1000

    let service: Service
    let shard: Shard
    let volume: VolumeID
    let chunkSize: ChunkSize
    let volumeSize: UInt64
    /// The chunk list from its beginning.
    let source: PlacementSource
    /// Of two for one chunk the later counts.
    let expected: [Placement]
    let description: String
    let tags: [String: String]
    let receipt: Service.Receipt?
    let context: CallContext
    let answer: Answer<Wire.CreateSnapshotResponse>

    /// Runs on a worker.
    func run() { verifyNext(source) }

    /// Runs a step as a job of its own; what it throws ends the call.
    /// - Parameter bytes: see ``Workers/run(for:bytes:_:)``.
    private func next(
        undoing snapshot: SnapshotRecord? = nil,
        bytes: Int,
        _ body: @escaping @Sendable () throws(ServiceError) -> Void
    ) {
        service.workers.run(for: context.account, bytes: bytes) {
            do throws(ServiceError) {
                try context.checkWanted()
                try body()
            } catch { fail(error, undoing: snapshot) }
        }
    }

    // MARK: Checking

    /// Placements of which one job looks up two things each, at the worst on every shard.
    private var verifyStep: Int { max(64, Workers.lookUpsPerJob / 2 / service.store.shardCount) }

    private func verifyNext(_ source: PlacementSource) {
        let lookUps = source.most(verifyStep) * 2 * service.store.shardCount
        let bytes = lookUps * Workers.lookUpBytes + source.bytesToRead
        next(bytes: bytes) { () throws(ServiceError) in try verify(source) }
    }

    private func verify(_ from: PlacementSource) throws(ServiceError) {
        var rest = from
        let placements = try rest.next(verifyStep)
        if placements.isEmpty { return next(bytes: source.bytesToRead) { () throws(ServiceError) in try create() } }
        let unproven = try pin(placements)
        if unproven.isEmpty { verifyNext(rest) } else { bringNext(unproven[...], then: rest) }
    }

    /// A chunk that must be read, with its length: it is on another shard, or longer than its place.
    private struct Unproven: Sendable {
        let placement: Placement
        let length: Int
    }

    /// Pins the chunks where they are, and checks that they fit.
    /// - Returns: those of which that takes more than look-ups.
    /// - Throws: INVALID_CHUNK_TOKEN naming the item.
    private func pin(_ placements: [Placement]) throws(ServiceError) -> [Unproven] {
        let zero = ZeroChunk.fingerprint(chunkSize)
        var left = placements.filter { $0.token != zero }
        var unproven: [Unproven] = []
        let others = service.store.shards.filter { $0.index != shard.index }
        for place in [shard] + others where !left.isEmpty {
            let tokens = left.map(\.token)
            let (isHere, shapes) = try storeCall { () throws(StoreError) in
                (
                    try place.pin(account: context.account, tokens),
                    try place.chunkShapes(account: context.account, tokens)
                )
            }
            var missing: [Placement] = []
            for (index, placement) in left.enumerated() {
                guard isHere[index], let shape = shapes[index] else {
                    missing.append(placement)
                    continue
                }
                if try mustRead(placement, shape) || place.index != shard.index {
                    unproven.append(Unproven(placement: placement, length: shape.length))
                }
            }
            left = missing
        }
        if let unknown = left.first { throw Service.unknown(unknown.token, unknown.index) }
        return unproven
    }

    private func mustRead(_ placement: Placement, _ shape: ChunkShape) throws(ServiceError) -> Bool {
        guard shape.chunkSize == chunkSize else {
            throw ServiceError(
                .invalidChunkToken,
                "chunk \(placement.token) is one of \(shape.chunkSize.bytes) bytes, and the volume's have \(chunkSize.bytes)",
                blockIndex: placement.index
            )
        }
        // The volume's last chunk may be shorter: then the rest must be zeros.
        let room = min(UInt64(chunkSize.bytes), volumeSize - chunkSize.offset(of: placement.chunk))
        return UInt64(shape.length) > room
    }

    private func resolve(_ placements: [Placement]) throws(ServiceError) -> [Change] {
        let resolution = TokenResolution(
            store: service.store,
            home: shard,
            account: context.account,
            chunkSize: chunkSize,
            volumeSize: volumeSize,
            copyRoom: Limits.payloadBytes
        )
        var work = TokenResolution.Work(placements.map { .token($0.chunk, $0.token, block: $0.index) })
        while try !resolution.resolve(&work) {}
        return work.changes
    }

    private func bringNext(_ unproven: ArraySlice<Unproven>, then rest: PlacementSource) {
        let count = bringCount(unproven)
        let bytes = unproven.prefix(count).reduce(0) { $0 + $1.length + Workers.lookUpBytes }
        next(bytes: bytes) { () throws(ServiceError) in try bring(unproven, count, then: rest) }
    }

    /// How many of them one step reads.
    private func bringCount(_ unproven: ArraySlice<Unproven>) -> Int {
        var (count, bytes) = (0, 0)
        for chunk in unproven.prefix(Workers.lookUpsPerJob / 2) {
            guard count == 0 || bytes + chunk.length <= Self.bringBytes else { break }
            count += 1
            bytes += chunk.length
        }
        return count
    }

    /// Reads some chunks, to check that they fit, and copies them to the volume's shard where they are on another.
    private func bring(_ unproven: ArraySlice<Unproven>, _ count: Int, then rest: PlacementSource) throws(ServiceError)
    {
        let step = unproven.prefix(count).map(\.placement)
        var data: [ChunkData] = []
        for (change, placement) in zip(try resolve(step), step) {
            switch change {
            case .data(_, let chunk): data.append(chunk)
            // Two items may name one chunk: it is here since the step before. Or it was from the start, and was only to be checked.
            case .token where try isHere(placement.token): break
            default: throw Service.unknown(placement.token, placement.index)
            }
        }
        let left = unproven.dropFirst(count)
        let goOn: @Sendable () -> Void = { if left.isEmpty { verifyNext(rest) } else { bringNext(left, then: rest) } }
        if data.isEmpty { return goOn() }
        let brought = data
        let bytes = data.reduce(0) { $0 + $1.bytes.count }
        let end = service.now + Self.bringTime
        let footprint = Service.Footprint(records: data.count, bytes: bytes, entries: data.count)
        change(footprint, undoing: nil) { (transaction) throws(ServiceError) in
            try storeCall { () throws(StoreError) in
                for chunk in brought {
                    try transaction.stage(chunk, chunkSize: chunkSize, account: context.account, until: end)
                }
            }
        } then: {
            goOn()
        }
    }

    private func isHere(_ token: Fingerprint) throws(ServiceError) -> Bool {
        try storeCall { () throws(StoreError) in
            try shard.makeView().holdsChunk(account: context.account, token)
        }
    }

    // MARK: Making

    private func create() throws(ServiceError) {
        var rest = source
        let first = try rest.next(Self.step)
        var probe = rest
        let isShort = try probe.next(1).isEmpty && first.count + expected.count <= Self.step
        let left = rest
        let footprint = Service.Footprint(entries: first.count + expected.count + Limits.snapshotsInProgress)
        if isShort {
            return service.change(on: shard, footprint, context, answer) { (transaction) throws(ServiceError) in
                let snapshot = try make(hidden: false, transaction)
                try place(first, in: snapshot, transaction)
                return try finish(snapshot, expecting: expected, transaction)
            }
        }
        let done: Answer<SnapshotRecord> = { result in
            switch result {
            case .failure(let error): fail(error, undoing: nil)
            case .success(let snapshot):
                placeNext(left, in: snapshot)
            }
        }
        service.change(on: shard, footprint, context, done) { (transaction) throws(ServiceError) in
            let snapshot = try make(hidden: true, transaction)
            try place(first, in: snapshot, transaction)
            return snapshot
        }
    }

    private func make(hidden: Bool, _ transaction: Transaction) throws(ServiceError) -> SnapshotRecord {
        let record = try service.volume(volume, in: transaction, context)
        let inProgress = try storeCall { () throws(StoreError) in try transaction.outstandingCount(of: volume) }
        try Service.checkInProgress(inProgress, volume)
        return try storeCall { () throws(StoreError) in
            try transaction.createSnapshot(of: record, description: description, tags: tags, hidden: hidden)
        }
    }

    private func place(_ placements: [Placement], in snapshot: SnapshotRecord, _ transaction: Transaction)
        throws(ServiceError)
    {
        let zero = ZeroChunk.fingerprint(chunkSize)
        var chunks: [(ChunkIndex, Transaction.ChunkContent)] = []
        chunks.reserveCapacity(placements.count)
        for placement in placements {
            if placement.token == zero {
                chunks.append((placement.chunk, .zeros))
                continue
            }
            let isHere = try storeCall { () throws(StoreError) in
                try transaction.holdsChunk(account: context.account, placement.token)
            }
            guard isHere else { throw Service.unknown(placement.token, placement.index) }
            chunks.append((placement.chunk, .token(placement.token)))
        }
        let all = chunks
        try storeCall { () throws(StoreError) in try transaction.place(all, in: snapshot) }
    }

    /// The look-ups are the shard's.
    private func placeNext(_ source: PlacementSource, in snapshot: SnapshotRecord) {
        next(undoing: snapshot, bytes: source.bytesToRead) { () throws(ServiceError) in
            try placeMore(source, in: snapshot)
        }
    }

    private func placeMore(_ from: PlacementSource, in snapshot: SnapshotRecord) throws(ServiceError) {
        var rest = from
        let placements = try rest.next(Self.step)
        if placements.isEmpty { return expectMore(expected[...], of: snapshot) }
        let left = rest
        change(Service.Footprint(entries: placements.count), undoing: snapshot) { (transaction) throws(ServiceError) in
            try place(placements, in: try present(snapshot, transaction), transaction)
        } then: {
            placeNext(left, in: snapshot)
        }
    }

    private func expectMore(_ from: ArraySlice<Placement>, of snapshot: SnapshotRecord) {
        let step = Array(from.prefix(Self.step))
        let left = from.dropFirst(step.count)
        guard left.isEmpty else {
            return change(Service.Footprint(entries: step.count), undoing: snapshot) {
                (transaction) throws(ServiceError) in
                try expect(step, of: try present(snapshot, transaction), transaction)
            } then: {
                next(undoing: snapshot, bytes: 0) { () throws(ServiceError) in expectMore(left, of: snapshot) }
            }
        }
        let done: Answer<Wire.CreateSnapshotResponse> = { result in
            switch result {
            case .success: answer(result)
            case .failure(let error): fail(error, undoing: snapshot)
            }
        }
        service.change(on: shard, Service.Footprint(entries: step.count + 8), context, done) {
            (transaction) throws(ServiceError) in
            let hidden = try present(snapshot, transaction)
            let revealed = try storeCall { () throws(StoreError) in try transaction.reveal(hidden) }
            return try finish(revealed, expecting: step, transaction)
        }
    }

    /// The hidden snapshot as it is now: its volume may have been deleted, and it with it.
    private func present(_ snapshot: SnapshotRecord, _ transaction: Transaction) throws(ServiceError) -> SnapshotRecord
    {
        _ = try service.volume(volume, in: transaction, context)
        let found = try storeCall { () throws(StoreError) in try transaction.snapshot(snapshot.id) }
        guard let found else { throw ServiceError.noSuchVolume }
        return found
    }

    private func expect(_ placements: [Placement], of snapshot: SnapshotRecord, _ transaction: Transaction)
        throws(ServiceError)
    {
        if placements.isEmpty { return }
        try storeCall { () throws(StoreError) in
            try transaction.expect(placements.map { ($0.chunk, $0.token) }, in: snapshot)
        }
    }

    private func finish(_ snapshot: SnapshotRecord, expecting rows: [Placement], _ transaction: Transaction)
        throws(ServiceError) -> Wire.CreateSnapshotResponse
    {
        try expect(rows, of: snapshot, transaction)
        let response = Service.created(snapshot)
        try receipt?.keep(response, in: transaction)
        return response
    }

    // MARK: Steps

    private func change(
        _ footprint: Service.Footprint,
        undoing snapshot: SnapshotRecord?,
        _ body: @escaping @Sendable (Transaction) throws(ServiceError) -> Void,
        then step: @escaping @Sendable () -> Void
    ) {
        let done: Answer<Void> = { result in
            switch result {
            case .success: step()
            case .failure(let error): fail(error, undoing: snapshot)
            }
        }
        service.change(on: shard, footprint, context, done, body)
    }

    /// Ends the call; nothing of it is left. After a crash the store does the same.
    private func fail(_ error: ServiceError, undoing snapshot: SnapshotRecord?) {
        guard let snapshot else { return answer(.failure(error)) }
        shard.submit(entries: Limits.snapshotsInProgress, reclaims: true) { (transaction) throws(StoreError) in
            guard let hidden = try transaction.snapshot(snapshot.id), hidden.state == .creating else { return }
            try transaction.deleteSnapshot(hidden)
        } completion: { _ in
            answer(.failure(error))
        }
    }
}
