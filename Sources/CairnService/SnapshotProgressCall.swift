import CairnCore
import CairnStore
import CairnWire

/// A client's word on how far its snapshot is (SPEC S4, S9): by SnapshotProgress, or with an upload.
struct ProgressReport: Sendable {
    /// Nil where nothing is said.
    let percent: UInt32?
    let rebased: Bool
    /// Where the first expected chunk belongs that is not there: for the text of a refusal.
    var firstMissing: UInt64?

    /// - Throws: INVALID_PROGRESS for what is no percentage.
    init(percent: UInt32?, rebased: Bool) throws(ServiceError) {
        if let percent, percent > 100 {
            throw ServiceError(.invalidProgress, "progress is 0 to 100 percent, not \(percent)")
        }
        (self.percent, self.rebased) = (percent, rebased)
    }

    var completes: Bool { percent == 100 }
}

/// SnapshotProgress and MissingBlocks (SPEC S5, S9, R1).
extension Service {
    public func snapshotProgress(
        _ request: Wire.SnapshotProgressRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.SnapshotProgressResponse>
    ) {
        beginOnWorker(context, answer) { () throws(ServiceError) in
            let report = try ProgressReport(percent: request.percent, rebased: request.rebased)
            let id = try Self.snapshotID(request.target)
            guard let shard = self.shard(of: id.uuid) else { throw ServiceError.noSuchSnapshot }
            let record = try self.view(shard) { (view) throws(ServiceError) in
                try self.snapshot(id, in: view, context)
            }
            // C5: said again, because the answer was lost.
            if report.completes, record.state == .complete || record.state == .waiting {
                let said = try self.progress(of: record, in: shard.makeView(), context)
                return answer(.success(said))
            }
            let done: Answer<Wire.SnapshotProgressResponse> = { result in
                if case .success = result { self.prompts.reported(id, complete: report.completes) }
                answer(result)
            }
            self.countExpected(record, report, on: shard, context) { result in
                guard case .success(let report) = result else { return answer(result.map { _ in .init() }) }
                self.change(on: shard, Footprint(), context, done) { (transaction) throws(ServiceError) in
                    let present = try self.snapshot(id, in: transaction, context)
                    if report.completes, present.state == .complete || present.state == .waiting {
                        return try self.progress(of: present, in: transaction, context)
                    }
                    if let earlier = try Self.checkInProgress(present, in: transaction) {
                        throw ServiceError(
                            .invalidSnapshotID,
                            "\(present.id) is not the next to be completed: \(Self.comesFirst(earlier))"
                        )
                    }
                    let reported = try self.apply(report, to: present, in: transaction)
                    return try self.progress(of: reported, in: transaction, context)
                }
            }
        }
    }

    private func progress(of snapshot: SnapshotRecord, in reader: ManifestReader, _ context: CallContext)
        throws(ServiceError) -> Wire.SnapshotProgressResponse
    {
        var response = Wire.SnapshotProgressResponse()
        response.state = Self.state(of: snapshot)
        response.percent = UInt32(snapshot.progress)
        if snapshot.progress == 100 {
            response.seal = try toldSeal(of: snapshot, in: reader, context)
        }
        return response
    }

    static func snapshotID(_ target: Wire.SnapshotProgressRequest.Target?) throws(ServiceError) -> SnapshotID {
        switch target {
        case .snapshotID(let bytes): return try Self.snapshotID(bytes)
        case .snapshotToken(let token): return try SnapshotToken.id(token)
        case nil: throw ServiceError(.invalidArgument, "the call names no snapshot")
        }
    }

    static func snapshotID(_ bytes: [UInt8]) throws(ServiceError) -> SnapshotID {
        guard let id = SnapshotID(bytes: bytes) else { throw ServiceError.noSuchSnapshot }
        return id
    }

    // MARK: Reports

    /// Carries a report out, in the transaction of its call; without one it is only noted that something was done (SPEC S11).
    /// - Parameter snapshot: the earliest outstanding one of its volume.
    /// - Returns: the snapshot as it is then.
    func apply(_ report: ProgressReport, to snapshot: SnapshotRecord, in transaction: Transaction) throws(ServiceError)
        -> SnapshotRecord
    {
        let now = self.now
        if report.rebased {
            try storeCall { () throws(StoreError) in try transaction.declareRebased(snapshot) }
        }
        guard let percent = report.percent else {
            if idleRule.wantsTouch(snapshot, at: now) {
                try storeCall { () throws(StoreError) in try transaction.touch(snapshot, at: now) }
            }
            return snapshot
        }
        guard percent >= snapshot.progress else {
            throw ServiceError(
                .invalidProgress,
                "progress does not go back: \(snapshot.progress) percent were reported before \(percent)"
            )
        }
        if percent == 100 { return try complete(snapshot, report, in: transaction, at: now) }
        return try storeCall { () throws(StoreError) in
            try transaction.setProgress(UInt8(percent), of: snapshot, at: now)
            return try transaction.snapshot(snapshot.id) ?? snapshot
        }
    }

    private func complete(
        _ reported: SnapshotRecord,
        _ report: ProgressReport,
        in transaction: Transaction,
        at now: UInt64
    ) throws(ServiceError) -> SnapshotRecord {
        let present = try storeCall { () throws(StoreError) in try transaction.snapshot(reported.id) }
        guard let snapshot = present else { throw ServiceError.noSuchSnapshot }
        guard !snapshot.needsRebase else {
            throw ServiceError(
                .needsRebase,
                "an earlier snapshot, on whose data this one counted, was cancelled: upload what changed since the last "
                    + "complete one, and say so with `rebased`"
            )
        }
        if snapshot.isExpecting, snapshot.missing > 0 {
            let first = report.firstMissing.map { ", the first at offset \($0)" } ?? ""
            throw ServiceError(.failedPrecondition, "\(snapshot.missing) expected chunks are missing\(first)")
        }
        return try storeCall { () throws(StoreError) in
            let complete = try transaction.complete(snapshot, at: now)
            // It could not be touched before, and its time begins now (SPEC S11).
            if let next = try transaction.earliestOutstanding(of: snapshot.volume) {
                try transaction.touch(next, at: now)
            }
            return complete
        }
    }

    /// Rows of what is expected that are looked at in one step.
    private static let missingStep = 256
    /// Chunks that came in parts are read and hashed: so many bytes of them in one step.
    private static let missingBytes = Limits.payloadBytes

    private static func missingCost(of snapshot: SnapshotRecord) -> Int {
        min(missingStep * snapshot.chunkSize.bytes, missingBytes)
    }

    /// Before completion: counts what is expected and there by inheritance or in parts, a bounded step at a time (SPEC S5). Gives
    /// the report as it can be carried out then. Runs on a worker.
    func countExpected(
        _ snapshot: SnapshotRecord,
        _ report: ProgressReport,
        on shard: Shard,
        from: ChunkIndex = ChunkIndex(0),
        attempt: Int = 1,
        _ context: CallContext,
        then body: @escaping Answer<ProgressReport>
    ) {
        guard report.completes, snapshot.state == .pending, snapshot.isExpecting else { return body(.success(report)) }
        let page: ExpectedPage
        do throws(ServiceError) {
            try context.checkWanted()
            let rule = try exportRule(of: snapshot, in: shard.makeView(), context)
            page = try storeCall { () throws(StoreError) in
                try shard.expected(
                    of: snapshot,
                    from: from,
                    limit: Self.missingStep,
                    bytes: Self.missingBytes,
                    rule: rule
                )
            }
        } catch { return body(.failure(error)) }
        let step: Answer<Bool> = { result in
            guard case .success(let isAsFound) = result else { return body(result.map { _ in report }) }
            guard isAsFound || attempt < 8 else {
                return body(.failure(ServiceError(.unavailable, "expected chunks change while they are counted")))
            }
            var report = report
            if isAsFound, report.firstMissing == nil {
                report.firstMissing = page.missing.first.map { snapshot.chunkSize.offset(of: $0.chunk) }
            }
            guard let next = isAsFound ? page.next : from else { return body(.success(report)) }
            let (soFar, attempt) = (report, isAsFound ? 1 : attempt + 1)
            self.workers.run(for: context.account, bytes: Self.missingCost(of: snapshot)) {
                self.countExpected(snapshot, soFar, on: shard, from: next, attempt: attempt, context, then: body)
            }
        }
        change(on: shard, Footprint(entries: Self.missingStep), context, step) { (transaction) throws(ServiceError) in
            let present = try self.snapshot(snapshot.id, in: transaction, context)
            // What is below it may still change: then nothing is counted, and the call is refused for that.
            guard present.state == .pending, try Self.checkInProgress(present, in: transaction) == nil else {
                return true
            }
            return try storeCall { () throws(StoreError) in try transaction.count(page, in: present) }
        }
    }

    // MARK: Missing blocks

    /// R1: what is expected of a snapshot in progress and not there yet.
    public func missingBlocks(
        _ request: Wire.MissingBlocksRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.MissingBlocksResponse>
    ) {
        beginOnWorker(context, answer) { () throws(ServiceError) in
            let id: SnapshotID
            switch request.target {
            case .snapshotID(let bytes): id = try Self.snapshotID(bytes)
            case .snapshotToken(let bytes): id = try SnapshotToken.id(bytes)
            case nil: throw ServiceError(.invalidArgument, "the call names no snapshot")
            }
            guard let shard = self.shard(of: id.uuid) else { throw ServiceError.noSuchSnapshot }
            let limit = try request.page.itemCount()
            let call = PagedCall(request, of: context.account)
            let start = try BlockCursor.chunk(call) ?? ChunkIndex(0)
            let snapshot = try self.uncancelled(id, in: shard.makeView(), context)
            guard snapshot.isExpecting else { return answer(.success(.init())) }
            // Only now it is known what it may cost.
            self.onWorker(context, bytes: Self.missingCost(of: snapshot), answer) { () throws(ServiceError) in
                do throws(ServiceError) {
                    return try self.missing(of: id, from: start, limit, on: shard, call, context)
                } catch {
                    // Where it was deleted meanwhile, its data may be what is not to be found.
                    _ = try self.uncancelled(id, in: shard.makeView(), context)
                    throw error
                }
            }
        }
    }

    private func uncancelled(_ id: SnapshotID, in view: ReadView, _ context: CallContext) throws(ServiceError)
        -> SnapshotRecord
    {
        let snapshot = try snapshot(id, in: view, context)
        if snapshot.state == .error { throw Self.cancelled(snapshot) }
        return snapshot
    }

    private func missing(
        of id: SnapshotID,
        from start: ChunkIndex,
        _ limit: Int,
        on shard: Shard,
        _ call: PagedCall,
        _ context: CallContext
    ) throws(ServiceError) -> Wire.MissingBlocksResponse {
        let view = shard.makeView()
        let snapshot = try uncancelled(id, in: view, context)
        let rule = try exportRule(of: snapshot, in: view, context)
        // Parts are read and hashed: some at a time, and the page token goes on.
        let page = try storeCall { () throws(StoreError) in
            try shard.expected(
                of: snapshot,
                from: start,
                limit: min(limit, Self.missingStep),
                bytes: Self.missingBytes,
                rule: rule
            )
        }
        var response = Wire.MissingBlocksResponse()
        response.missing = page.missing.map { chunk, token in
            Wire.ChunkPlacement(offset: snapshot.chunkSize.offset(of: chunk), token: token.bytes)
        }
        response.nextPageToken = page.next.map { BlockCursor.token($0, in: call) } ?? []
        return response
    }
}
