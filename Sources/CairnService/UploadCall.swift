import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// What UploadBlock, WriteZeroes and Discard have in common: where they write, and on which conditions.
struct WriteCall: Sendable {
    let named: Named
    /// SPEC U5; 0: none.
    var dataVersion: UInt64 = 0
    /// SPEC R5; 0: none.
    let attachment: UInt64
    /// Of a snapshot only.
    var report: ProgressReport
    let durability: CommitDurability

    /// - Throws: INVALID_ARGUMENT, INVALID_PROGRESS, C2's errors.
    init(
        _ target: Wire.Target?,
        dataVersion: UInt64 = 0,
        attachment: UInt64,
        progress: Wire.Progress? = nil,
        rebased: Bool = false,
        durability: Wire.Durability
    ) throws(ServiceError) {
        named = try Named(target)
        report = try ProgressReport(percent: progress?.percent, rebased: rebased)
        (self.dataVersion, self.attachment) = (dataVersion, attachment)
        let asked = try Service.durability(durability)
        switch named {
        case .volume:
            self.durability = asked
            guard progress == nil, !rebased else {
                throw ServiceError(.invalidArgument, "progress and rebased belong to a snapshot in progress")
            }
        case .snapshot:
            // There is no Flush for it, and a report is a promise that is told to others: what it completes must be on the disk.
            self.durability = .durable
            guard attachment == 0 else {
                throw ServiceError(.invalidArgument, "an attachment belongs to a volume, not to a snapshot")
            }
        }
    }
}

/// UploadBlock and Flush (SPEC section 4).
extension Service {
    /// U1–U9.
    public func uploadBlock(
        _ request: Wire.UploadBlockRequest,
        payload: BufferSlice?,
        _ context: CallContext,
        answer: @escaping Answer<Wire.UploadBlockResponse>
    ) {
        let cost = Self.preparationCost(of: request, payload)
        workers.run(for: context.account, bytes: cost) {
            do throws(ServiceError) {
                try context.checkWanted()
                guard request.target?.target != nil else {
                    return try self.stage(request, payload: payload, context, answer: answer)
                }
                let call = try WriteCall(
                    request.target,
                    dataVersion: request.dataVersion,
                    attachment: request.attachment,
                    progress: request.progress,
                    rebased: request.rebased,
                    durability: request.durability
                )
                try self.write(call, payload, context, answer) { (target) throws(ServiceError) in
                    try UploadPlan(
                        request.blocks,
                        payloadCount: payload?.count ?? 0,
                        volumeSize: target.size,
                        chunkSize: target.chunkSize,
                        checksumOptional: self.options.checksumOptional
                    )
                }
            } catch { answer(.failure(error)) }
        }
    }

    /// Plans, prepares and commits a write. Runs on a worker.
    func write(
        _ call: WriteCall,
        _ payload: BufferSlice?,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>,
        plan: (WriteTarget) throws(ServiceError) -> UploadPlan
    ) throws(ServiceError) {
        let shard = try shard(of: call.named)
        let seen = try view(shard) { (view) throws(ServiceError) in
            try self.destination(call.named, dataVersion: call.dataVersion, in: view, context)
        }
        let target = seen.target
        try Self.check(attachment: call.attachment, against: seen.attachment)
        let plan = try plan(target)
        prepare(plan, for: target, payload, on: shard, context) { result in
            switch result {
            case .success(let changes): self.resolve(changes, seen, call, payload, on: shard, context, answer)
            case .failure(let error): answer(.failure(error))
            }
        }
    }

    /// What a worker is kept busy with, in bytes: LZ4 is hashed as what it decodes to, tokens are looked up. More than one step is
    /// paid step by step.
    private static func preparationCost(of request: Wire.UploadBlockRequest, _ payload: BufferSlice?) -> Int {
        var more = 0
        for block in request.blocks {
            if block.codec == .lz4 { more += Int(block.length) }
            if case .token = block.source { more += Workers.lookUpBytes }
        }
        return (payload?.count ?? 0) + min(more, Limits.payloadBytes)
    }

    /// Checks, hashes and compresses what came, a step at a time. Runs on a worker.
    private func prepare(
        _ plan: UploadPlan,
        for target: WriteTarget,
        _ payload: BufferSlice?,
        on shard: Shard,
        _ context: CallContext,
        then body: @escaping Answer<[Change]>
    ) {
        inSteps(context, (next: 0, changes: [Change]())) { (work) throws(ServiceError) in
            let preparation = UploadPreparation(
                chunkSize: target.chunkSize,
                volumeSize: target.size,
                payload: payload,
                find: ChunkFinder(shard, of: context.account).find
            )
            guard let next = try preparation.add(plan, from: work.next, to: &work.changes) else { return true }
            work.next = next
            return false
        } then: { result in
            body(result.map(\.changes))
        }
    }

    /// Finds out what its tokens stand for, a step at a time, and commits it. Runs on a worker.
    private func resolve(
        _ prepared: [Change],
        _ seen: Destination,
        _ call: WriteCall,
        _ payload: BufferSlice?,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>
    ) {
        let tokens = TokenResolution(
            store: store,
            home: shard,
            account: context.account,
            chunkSize: seen.target.chunkSize,
            volumeSize: seen.target.size,
            copyRoom: Limits.payloadBytes - (payload?.count ?? 0),
            makeRoom: { (bytes) throws(ServiceError) in try context.makeRoom(bytes) }
        )
        inSteps(context, TokenResolution.Work(prepared)) { (work) throws(ServiceError) in
            try tokens.resolve(&work)
        } then: { result in
            do throws(ServiceError) {
                try self.commit(try result.get().changes, seen, call, on: shard, context, answer)
            } catch { answer(.failure(error)) }
        }
    }

    private func commit(
        _ changes: [Change],
        _ seen: Destination,
        _ call: WriteCall,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>
    ) throws(ServiceError) {
        try context.checkWanted()
        let entries = try storeCall { () throws(StoreError) in
            try Self.entries(of: changes, in: seen.target, shard.makeView())
        }
        guard let snapshot = seen.snapshot else {
            return commit(changes, entries, seen, call, on: shard, context, answer)
        }
        countExpected(snapshot, call.report, on: shard, context) { result in
            guard case .success(let report) = result else { return answer(result.map { _ in .init() }) }
            var call = call
            call.report = report
            self.commit(changes, entries, seen, call, on: shard, context) { result in
                if case .success = result { self.prompts.uploaded(to: snapshot, report, context) }
                answer(result)
            }
        }
    }

    static func durability(_ durability: Wire.Durability) throws(ServiceError) -> CommitDurability {
        switch durability {
        case .unspecified, .durable: return .durable
        case .onFlush: return .onFlush
        default: throw ServiceError(.invalidArgument, "durability \(durability.rawValue) is unknown")
        }
    }

    /// What the changes make of the commit, in entries of the usual size: a part is written with all that its chunk has so far.
    private static func entries(of changes: [Change], in target: WriteTarget, _ view: ReadView) throws(StoreError)
        -> Int
    {
        let parts = changes.filter { !$0.dependsOnSize }.map { $0.chunk(target.chunkSize) }
        // 20 bytes each, of an entry's 384. No more than a group takes anyway: what does not fit is found out when it is made.
        return changes.count + 8 + min(Limits.recordsPerCall, try view.partCount(of: Set(parts), in: target) / 16)
    }

    private func commit(
        _ changes: [Change],
        _ entries: Int,
        _ prepared: Destination,
        _ call: WriteCall,
        on shard: Shard,
        _ context: CallContext,
        _ answer: @escaping Answer<Wire.UploadBlockResponse>
    ) {
        let footprint = Footprint(
            durability: call.durability,
            records: changes.count { $0.recordBytes > 0 },
            bytes: changes.reduce(0) { $0 + $1.recordBytes },
            entries: entries
        )
        change(on: shard, footprint, context, answer) { (transaction) throws(ServiceError) in
            let present = try self.destination(call.named, dataVersion: call.dataVersion, in: transaction, context)
            try Self.check(attachment: call.attachment, against: present.attachment)
            guard present.target.size == prepared.target.size || changes.allSatisfy({ !$0.dependsOnSize }) else {
                // Its last chunk is another one now: what was hashed as a whole chunk is only a part.
                throw ServiceError(.unavailable, "the volume was resized meanwhile: try again")
            }
            let response = try Self.apply(changes, to: present, call, in: transaction, verifier: shard.verifier)
            if let snapshot = present.snapshot {
                _ = try self.apply(call.report, to: snapshot, in: transaction)
            }
            return response
        }
    }

    private static func apply(
        _ changes: [Change],
        to destination: Destination,
        _ call: WriteCall,
        in transaction: Transaction,
        verifier: UInt64
    ) throws(ServiceError) -> Wire.UploadBlockResponse {
        let target = destination.target
        var response = Wire.UploadBlockResponse()
        response.dataVersion = target.version.rawValue
        response.writeVerifier = withUnsafeBytes(of: verifier.bigEndian, Array.init)
        if call.dataVersion > target.version.rawValue {
            throw ServiceError(
                .invalidDataVersion,
                "data_version \(call.dataVersion) is later than the volume's \(target.version)"
            )
        }
        // A token names what was here before the call: looked up before anything of the call is written.
        for change in changes {
            guard case .token(_, let token, let block) = change else { continue }
            let known = try storeCall { () throws(StoreError) in
                try transaction.holdsChunk(account: target.account, token)
            }
            guard known else {
                throw ServiceError(.invalidChunkToken, "this account has no chunk \(token)", blockIndex: block)
            }
        }
        // So is what a later version wrote: the call's own writes carry the present one, and must not supersede each other.
        let superseded = try storeCall { () throws(StoreError) in
            // A snapshot's version is the only one that is written there.
            destination.snapshot == nil
                ? try laterWritten(changes, than: call.dataVersion, target, in: transaction) : []
        }
        response.superseded = superseded.sorted().map(target.chunkSize.offset)
        for change in changes where !superseded.contains(change.chunk(target.chunkSize)) {
            if let written = try storeCall({ () throws(StoreError) in try write(change, to: target, in: transaction) })
            {
                response.chunks.append(written)
            }
        }
        return response
    }

    /// Of the chunks to be changed, those last written at a version after `version` (SPEC U5); none where that is 0.
    private static func laterWritten(
        _ changes: [Change],
        than version: UInt64,
        _ target: WriteTarget,
        in transaction: Transaction
    ) throws(StoreError) -> Set<ChunkIndex> {
        guard version != 0 else { return [] }
        var later: Set<ChunkIndex> = []
        for chunk in Set(changes.map { $0.chunk(target.chunkSize) }) {
            let written = try transaction.lastWrittenVersion(of: chunk, in: target)
            if let written, written.rawValue > version { later.insert(chunk) }
        }
        return later
    }

    /// Gives the token where a whole chunk of data was written (SPEC U6).
    private static func write(
        _ change: Change,
        to target: WriteTarget,
        in transaction: Transaction
    ) throws(StoreError) -> Wire.WrittenChunk? {
        switch change {
        case .data(let chunk, let data):
            try transaction.writeChunk(chunk, of: target, .data(data))
            return Wire.WrittenChunk(offset: target.chunkSize.offset(of: chunk), token: data.fingerprint.bytes)
        case .token(let chunk, let token, _):
            try transaction.writeChunk(chunk, of: target, .token(token))
            return Wire.WrittenChunk(offset: target.chunkSize.offset(of: chunk), token: token.bytes)
        case .zeros(let chunk, let token):
            try transaction.writeChunk(chunk, of: target, .zeros)
            if token {
                return Wire.WrittenChunk(
                    offset: target.chunkSize.offset(of: chunk),
                    token: ZeroChunk.fingerprint(target.chunkSize).bytes
                )
            }
        case .hole(let chunk): try transaction.writeChunk(chunk, of: target, .hole)
        case .patch(let offset, let bytes, let checksum):
            try transaction.writePatch(at: offset, bytes, checksum: checksum, of: target)
        case .zeroPart(let range): try transaction.writeZeros(range, of: target)
        }
        return nil
    }

    /// U8: what was answered before on the volume's shard is durable when this answers.
    public func flush(
        _ request: Wire.FlushRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.FlushResponse>
    ) {
        workers.run(for: context.account) {
            do throws(ServiceError) {
                guard let id = VolumeID(bytes: request.volumeID), let shard = self.shard(of: id.uuid) else {
                    throw ServiceError.noSuchVolume
                }
                let volume = try self.view(shard) { (view) throws(ServiceError) in
                    try self.volume(id, in: view, context)
                }
                try Self.checkRemote(volume)
                shard.flush { result in
                    answer(
                        result.mapError { ServiceError($0) }.map { _ in
                            Wire.FlushResponse(writeVerifier: withUnsafeBytes(of: shard.verifier.bigEndian, Array.init))
                        }
                    )
                }
            } catch { answer(.failure(error)) }
        }
    }
}

extension Change {
    /// The bytes that the change adds to the log, headers aside.
    var recordBytes: Int {
        switch self {
        case .data(_, let data): data.bytes.count
        case .patch(_, let bytes, _): bytes.count
        case .token, .zeros, .hole, .zeroPart: 0
        }
    }

    /// Whether the change would mean something else in a volume of another size: those of a whole chunk may be of a last,
    /// shorter one.
    var dependsOnSize: Bool {
        switch self {
        case .patch, .zeroPart: false
        case .data, .token, .zeros, .hole: true
        }
    }

    func chunk(_ size: ChunkSize) -> ChunkIndex {
        switch self {
        case .data(let chunk, _), .token(let chunk, _, _), .zeros(let chunk, _), .hole(let chunk): chunk
        case .patch(let offset, _, _): size.chunk(at: offset)
        case .zeroPart(let range): size.chunk(at: range.lowerBound)
        }
    }
}
