import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// A DownloadBlock's answer: the message, and the payload that its blocks own in order.
public struct Download: Sendable {
    public let message: Wire.DownloadBlockResponse
    public let payload: [BufferSlice]
}

/// How far a download is.
private struct DownloadWork: Sendable {
    struct Begun: Sendable {
        let target: Readable
        let ranges: [Range<UInt64>]
        let namesChunks: Bool
        let algorithm: Wire.ChecksumAlgorithm
        var read: RangeRead
    }
    let request: Wire.DownloadBlockRequest
    let named: Named
    /// Never waits for the disk.
    let inMemory: Bool
    /// How often it was begun: what is read may change meanwhile.
    var rounds = 0
    var begun: Begun?
    /// In the end.
    var download: Download?

    init(_ request: Wire.DownloadBlockRequest, inMemory: Bool = false) throws(ServiceError) {
        (self.request, self.inMemory) = (request, inMemory)
        named = try Named(request.target)
    }
}

/// DownloadBlock and ListBlocks (SPEC section 5, R1).
extension Service {
    /// The most bytes that a request's answer can have: charged before any work.
    public static func largestAnswer(to request: Wire.DownloadBlockRequest) -> Int {
        let ranges = request.ranges.reduce(UInt64(0)) { sum, range in
            let (total, overflow) = sum.addingReportingOverflow(range.length)
            return overflow ? .max : total
        }
        return Int(min(ranges, UInt64(Limits.payloadBytes))) + Limits.messageBytes / 16
    }

    /// D1–D4.
    public func downloadBlock(
        _ request: Wire.DownloadBlockRequest,
        _ context: CallContext,
        answer: @escaping Answer<Download>
    ) {
        if Self.isSmall(request), let download = downloadHere(request, context) { return answer(.success(download)) }
        beginOnWorker(context, bytes: Self.largestAnswer(to: request), answer) { () throws(ServiceError) in
            let work = try DownloadWork(request)
            // A sector each of thousands of chunks: as much as all of these must be read.
            self.inSteps(context, work, bytes: RangeRead.stepBytes) { (work) throws(ServiceError) in
                try self.advance(&work, context)
            } then: {
                answer($0.map { $0.download! })
            }
        }
    }

    /// Whether a download takes no longer than some tens of microseconds where all that it reads is in memory.
    private static func isSmall(_ request: Wire.DownloadBlockRequest) -> Bool {
        request.ranges.count == 1 && request.ranges[0].length <= 16 << 10 && request.knownTokens.isEmpty
            && (request.checksumAlgorithm == .unspecified || request.checksumAlgorithm == .crc32c)
    }

    /// Whether so little is read and put together that many workers may do it at once: 32 that wait for the disk may come back together.
    private static func readsLittle(_ ranges: [Range<UInt64>], _ source: ReadSource) -> Bool {
        let chunks = ranges.reduce(0) { $0 + source.chunkSize.count(for: UInt64($1.count)) + 1 }
        return chunks * UInt64(source.chunkSize.bytes) <= 256 << 10
    }

    /// The download where it can be had on this thread without waiting, and without going before others (SPEC R3); else nil, and a
    /// worker finds out all over again, also what is wrong with it.
    private func downloadHere(_ request: Wire.DownloadBlockRequest, _ context: CallContext) -> Download? {
        guard context.mayReadHere, !context.isHost, !workers.isCrowded else { return nil }
        do throws(ServiceError) {
            try context.checkWanted()
            var work = try DownloadWork(request, inMemory: true)
            while try !advance(&work, context) {}
            return work.download
        } catch { return nil }
    }

    /// - Returns: whether the download is there.
    private func advance(_ work: inout DownloadWork, _ context: CallContext) throws(ServiceError) -> Bool {
        let target: Readable
        if let begun = work.begun {
            target = begun.target
        } else {
            work.rounds += 1
            // SPEC D5: a compute host reads what its account may use, and names none of it.
            target = try readable(
                work.named,
                version: work.request.dataVersion,
                for: context.isHost ? .use : .export,
                inMemory: work.inMemory,
                context
            )
        }
        let result = Result { () throws(ServiceError) in try read(&work, from: target, context) }
        if case .success(nil) = result { return false }
        if try isStill(target, named: work.named, inMemory: work.inMemory) {
            work.download = try result.get()
            return true
        }
        guard work.rounds < Self.readings else { throw Self.unsteady }
        work.begun = nil
        return false
    }

    /// - Returns: nil while there is more to read.
    private func read(_ work: inout DownloadWork, from target: Readable, _ context: CallContext) throws(ServiceError)
        -> Download?
    {
        var begun: DownloadWork.Begun
        if let earlier = work.begun {
            begun = earlier
        } else {
            let request = work.request
            let ranges = try Self.check(request.ranges, target.source, payloadLimit: context.payloadLimit)
            let namesChunks = try mayNameChunks(of: target, request.target, context)
            let named = Set(try Self.fingerprints(request.knownTokens))
            begun = DownloadWork.Begun(
                target: target,
                ranges: ranges,
                namesChunks: namesChunks,
                algorithm: try Self.check(request.checksumAlgorithm),
                read: RangeRead(
                    target.shard,
                    target.source,
                    ranges,
                    acceptsLZ4: request.acceptedCodecs.contains(.lz4),
                    known: namesChunks ? named : [],
                    rule: target.rule,
                    inMemory: work.inMemory,
                    waits: Self.readsLittle(ranges, target.source) ? workers : nil
                )
            )
        }
        // Its pieces have one holder.
        work.begun = nil
        let isComplete: Bool
        do throws(StoreError) { isComplete = try begun.read.step() } catch { throw target.refusal(error) }
        guard isComplete else {
            work.begun = begun
            return nil
        }
        return try Self.answer(
            begun.read.pieces,
            begun.ranges,
            target.source,
            begun.algorithm,
            namesChunks: begun.namesChunks
        )
    }

    /// Whether the tokens of what a call reads may be told and confirmed: not to a compute host that only may use it.
    private func mayNameChunks(of target: Readable, _ named: Wire.Target?, _ context: CallContext) throws(ServiceError)
        -> Bool
    {
        guard context.isHost else { return true }
        do throws(ServiceError) {
            return try readable(try Named(named), version: 0, context).rule.isOpen
        } catch {
            return false
        }
    }

    /// - Parameter payloadLimit: what the ranges may sum up to, whatever is there.
    private static func check(_ ranges: [Wire.ByteRange], _ source: ReadSource, payloadLimit: Int) throws(ServiceError)
        -> [Range<UInt64>]
    {
        guard !ranges.isEmpty, ranges.count <= Limits.blocksPerCall else {
            throw ServiceError(
                .invalidArgument,
                "1 to \(Limits.blocksPerCall) ranges go in one call, not \(ranges.count)"
            )
        }
        var checked: [Range<UInt64>] = []
        var total: UInt64 = 0
        var chunks: UInt64 = 0
        for (index, range) in ranges.enumerated() {
            do throws(ServiceError) {
                try UploadPlan.check(offset: range.offset, length: range.length, within: source.size)
            } catch { throw error.at(index) }
            total += range.length
            chunks += source.chunkSize.count(for: range.length) + 1
            guard total <= UInt64(payloadLimit), chunks <= UploadPlan.chunksPerCall else {
                throw ServiceError(
                    .invalidArgument,
                    "the ranges sum up to more than \(payloadLimit) bytes, or touch more than \(UploadPlan.chunksPerCall) chunks",
                    blockIndex: index
                )
            }
            checked.append(range.offset..<range.offset + range.length)
        }
        return checked
    }

    private static func check(_ algorithm: Wire.ChecksumAlgorithm) throws(ServiceError) -> Wire.ChecksumAlgorithm {
        switch algorithm {
        case .unspecified: return .crc32c
        case .crc32c, .crc32, .md5, .sha256: return algorithm
        default: throw ServiceError(.invalidArgument, "checksum algorithm \(algorithm.rawValue) is unknown")
        }
    }

    private static func answer(
        _ pieces: [ReadPiece],
        _ ranges: [Range<UInt64>],
        _ source: ReadSource,
        _ algorithm: Wire.ChecksumAlgorithm,
        namesChunks: Bool
    ) throws(ServiceError) -> Download {
        var message = Wire.DownloadBlockResponse()
        message.dataVersion = source.version.rawValue
        message.blocks.reserveCapacity(pieces.count)
        var payload: [BufferSlice] = []
        let rangeStarts = Set(ranges.map(\.lowerBound))
        for piece in pieces {
            if let last = message.blocks.last, !rangeStarts.contains(piece.offset), piece.extends(last) {
                message.blocks[message.blocks.count - 1].length += UInt32(piece.length)
                continue
            }
            var block = Wire.DownloadedBlock()
            block.offset = piece.offset
            block.length = UInt32(piece.length)
            if namesChunks { block.token = piece.fingerprint?.bytes ?? [] }
            switch piece.content {
            case .hole: block.content = .hole(Wire.Empty())
            case .zeros: block.content = .zeros(Wire.Empty())
            case .known: block.content = .known(Wire.Empty())
            case .plain(let bytes, let crc):
                block.codec = .plain
                block.content = .payloadLength(UInt32(bytes.count))
                block.checksum = checksum(of: bytes, crc, algorithm)
                payload.append(bytes)
            case .lz4(let bytes, let crc):
                block.codec = .lz4
                block.content = .payloadLength(UInt32(bytes.count))
                block.checksum = try checksum(ofLZ4: bytes, piece.length, crc, algorithm)
                payload.append(bytes)
            }
            message.blocks.append(block)
        }
        return Download(message: message, payload: payload)
    }

    private static func checksum(of bytes: BufferSlice, _ crc: UInt32?, _ algorithm: Wire.ChecksumAlgorithm)
        -> Wire.Checksum
    {
        let value =
            if algorithm == .crc32c, let crc { Checksum.encode(crc) } else {
                Checksum.value(algorithm, over: bytes.bytes)
            }
        return Wire.Checksum(algorithm: algorithm, value: value)
    }

    /// The store keeps the CRC32C of the uncompressed bytes; any other checksum costs a decode.
    private static func checksum(
        ofLZ4 bytes: BufferSlice,
        _ length: Int,
        _ crc: UInt32,
        _ algorithm: Wire.ChecksumAlgorithm
    ) throws(ServiceError) -> Wire.Checksum {
        if algorithm == .crc32c { return Wire.Checksum(algorithm: algorithm, value: Checksum.encode(crc)) }
        let raw = BufferPool.shared.buffer(capacity: length)
        raw.count = length
        guard LZ4.decompress(bytes.bytes, into: UnsafeMutableRawBufferPointer(rebasing: raw.memory[0..<length])) else {
            throw ServiceError(.dataLoss, "a stored chunk does not decode")
        }
        return Wire.Checksum(algorithm: algorithm, value: Checksum.value(algorithm, over: raw.bytes))
    }

    /// R1: chunks that hold something; what is not listed is a hole.
    public func listBlocks(
        _ request: Wire.ListBlocksRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ListBlocksResponse>
    ) {
        onWorker(context, bytes: request.page.cost(atMost: Limits.blocksPerPage, each: 4096), answer) {
            () throws(ServiceError) in
            try self.reading(try Named(request.target), context) { (target) throws(ServiceError) in
                try Self.listBlocks(request, of: target, context)
            }
        }
    }

    private static func listBlocks(_ request: Wire.ListBlocksRequest, of target: Readable, _ context: CallContext)
        throws(ServiceError) -> Wire.ListBlocksResponse
    {
        let source = target.source
        let limit = try request.page.itemCount(atMost: Limits.blocksPerPage)
        var range = ChunkIndex(0)..<ChunkIndex(source.chunkSize.count(for: source.size))
        if let wanted = request.range {
            try UploadPlan.check(offset: wanted.offset, length: wanted.length, within: source.size)
            let end = wanted.offset + wanted.length
            range = source.chunkSize.chunk(at: wanted.offset)..<ChunkIndex(source.chunkSize.count(for: end))
        }
        let call = PagedCall(request, of: context.account)
        if let start = try BlockCursor.chunk(call) {
            guard start >= range.lowerBound, start < range.upperBound else { throw PagedCall.refusal }
            range = start..<range.upperBound
        }
        let page = range
        let (entries, next): ([BlockEntry], ChunkIndex?)
        do throws(StoreError) {
            (entries, next) = try target.shard.makeView().blocks(
                of: source.lineage,
                at: source.version,
                in: page,
                limit: limit,
                rule: target.rule,
                hidingDamage: true
            )
        } catch { throw target.refusal(error) }
        var response = Wire.ListBlocksResponse()
        response.blocks = entries.map { Self.describe($0, source.chunkSize, end: source.size) }
        response.nextPageToken = next.map { BlockCursor.token($0, in: call) } ?? []
        return response
    }

    /// - Parameter end: bytes: a last chunk may be shorter.
    static func describe(_ entry: BlockEntry, _ chunkSize: ChunkSize, end: UInt64) -> Wire.BlockDescription {
        var block = Wire.BlockDescription()
        block.offset = chunkSize.offset(of: entry.chunk)
        block.length = UInt32(min(UInt64(chunkSize.bytes), end - block.offset))
        block.owner = entry.owner?.name ?? ""
        switch entry.state {
        case .data(let fingerprint):
            block.state = .data
            block.token = fingerprint?.bytes ?? []
        case .zeros: block.state = .zeros
        case .hole: block.state = .hole
        }
        return block
    }
}

extension ReadPiece {
    /// Whether it only makes a hole or written zeros longer.
    fileprivate func extends(_ last: Wire.DownloadedBlock) -> Bool {
        guard last.offset + UInt64(last.length) == offset, UInt64(last.length) + UInt64(length) <= UInt64(UInt32.max)
        else { return false }
        switch (content, last.content) {
        case (.hole, .hole), (.zeros, .zeros): return true
        default: return false
        }
    }
}
