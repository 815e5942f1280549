import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire

@testable import CairnService

/// DownloadBlock, ListBlocks, ListChangedBlocks: every byte, and who may have it (SPEC section 5, R1).
extension ServiceModelRun {
    struct Caller {
        let account: AccountID
        let isHost: Bool
        var context: CallContext { CallContext(account: account, isHost: isHost) }
    }

    func pickSource() -> World.Source? {
        let isVolume = world.snapshots.isEmpty || chance(40)
        return isVolume ? pick(world.volumes).map(world.source) : pick(world.snapshots).map(world.source)
    }

    /// Mostly somebody who may see the source.
    func pickCaller(_ source: World.Source) -> Caller {
        let account = chance(50) ? source.account : pickAccount()
        return Caller(account: account, isHost: chance(15))
    }

    func target(_ source: World.Source) -> Wire.Target {
        Wire.Target(target: source.snapshot.map { .snapshotID($0) } ?? .volumeID(source.volume))
    }

    /// C2's answer, to the letter.
    func absence(_ source: World.Source) -> ServiceError { source.snapshot == nil ? .noSuchVolume : .noSuchSnapshot }

    /// Why the source as a whole is not to be read, nil where it is; the error to the letter where it must look like nothing.
    func refusal(_ source: World.Source, _ account: AccountID, _ wanted: World.Permission) -> (Refusal, ServiceError?)?
    {
        guard world.maySee(source, account, wanted) else {
            return (Refusal(absence(source).code), absence(source))
        }
        if source.isLocalVolume { return (Refusal(.wrongVolumeKind), nil) }
        if source.isError { return (Refusal(.failedPrecondition), nil) }
        return nil
    }

    func isRefused<Value>(_ result: Result<Value, ServiceError>, _ refusal: (Refusal, ServiceError?)) throws {
        try isRefused(result, refusal.0)
        if let exactly = refusal.1, case .failure(let error) = result {
            try check(error == exactly, "\(error) tells more than that nothing is there")
        }
    }

    /// Data that the caller may not have: its own resource says whose, another's is not there (SPEC D5).
    private func isForbidden<Value>(_ result: Result<Value, ServiceError>, _ source: World.Source, _ caller: Caller)
        throws
    {
        guard source.account != caller.account else { return try isRefused(result, Refusal(.permissionDenied)) }
        try isRefused(result, (Refusal(absence(source).code), absence(source)))
    }

    // MARK: Downloads

    func download() throws {
        if let source = pickSource() { try download(source, pickCaller(source)) }
    }

    func download(_ source: World.Source, _ caller: Caller, all: Bool = false) throws {
        last =
            "\(caller.account)\(caller.isHost ? "'s host" : "") downloads of \(source.account) (\(source.snapshot == nil ? "volume" : "snapshot"))"
        var request = Wire.DownloadBlockRequest(target: target(source))
        let count = source.pile.sectorsPerChunk
        let chunks = all ? writtenChunks(source) : activeChunks(source).filter { _ in chance(30) }
        for chunk in chunks {
            let room = min(count, source.sectors - chunk * count)
            let start = all || chance(60) ? 0 : random.below(room)
            let length = all || chance(60) ? room - start : 1 + random.below(room - start)
            request.ranges.append(.init(offset: UInt64((chunk * count + start) * 512), length: UInt64(length * 512)))
        }
        if request.ranges.isEmpty { request.ranges = [.init(offset: 0, length: 512)] }
        if chance(50) { request.acceptedCodecs = [.lz4] }
        if chance(20) { request.checksumAlgorithm = [.crc32, .md5, .sha256][random.below(3)] }
        if chance(30) { request.knownTokens = contents.known.suffix(40).map(\.fingerprint.bytes) }
        let wanted = caller.isHost ? World.Permission.use : .export
        var refusal = refusal(source, caller.account, wanted)
        if !all, refusal == nil, chance(8) {
            request.dataVersion = source.version + UInt64(random.below(2))
            if request.dataVersion != source.version { refusal = (Refusal(.invalidDataVersion), nil) }
        }
        if !all, refusal == nil, chance(5) {
            let index = random.below(request.ranges.count)
            request.ranges[index].offset = UInt64(source.sectors * 512)
            refusal = (Refusal(.invalidArgument, at: index), nil)
        }
        if let refusal {
            return try isRefused(server.call(server.service.downloadBlock, request, caller.context), refusal)
        }
        let opened = world.opened(source, to: caller.account, wanted)
        var verdict = World.Verdict.allowed
        for range in request.ranges {
            verdict = verdict.and(
                world.verdict(source.show(Int(range.offset / 512) / count), source, opened, caller.account)
            )
        }
        let result = server.noting(verdict == .either ? .request : .answer) {
            server.call(server.service.downloadBlock, request, caller.context)
        }
        if try !isServed(result, verdict, source, caller) { return }
        try checkBytes(try result.get(), request, source, caller)
    }

    /// Whether there is an answer to look at; throws where there must not be one, or must be.
    private func isServed<Value>(
        _ result: Result<Value, ServiceError>,
        _ verdict: World.Verdict,
        _ source: World.Source,
        _ caller: Caller
    ) throws -> Bool {
        switch (verdict, result) {
        case (.refused, _):
            verdicts.refused += 1
            try isForbidden(result, source, caller)
            return false
        case (.either, .failure):
            verdicts.either += 1
            try isForbidden(result, source, caller)
            return false
        case (.either, .success), (.allowed, _):
            _ = try succeeds(result)
            return true
        }
    }

    private func checkBytes(
        _ download: Download,
        _ request: Wire.DownloadBlockRequest,
        _ source: World.Source,
        _ caller: Caller
    ) throws {
        let count = source.pile.sectorsPerChunk
        let exported = world.opened(source, to: caller.account, .export)
        var payload = download.payload.flatMap { Array($0.bytes) }[...]
        var blocks = download.message.blocks[...]
        for range in request.ranges {
            var offset = range.offset
            while offset < range.offset + range.length {
                guard let block = blocks.popFirst(), block.offset == offset else {
                    throw ModelFailure("\(last): a gap at \(offset)")
                }
                let (first, sectors) = (Int(offset / 512), Int(block.length) / 512)
                let shown = source.show(first / count)
                try check(first / count == (first + sectors - 1) / count, "a block of two chunks")
                let stamps = shown.stamps[first % count..<first % count + sectors]
                try checkContent(block, &payload, stamps, shown, request)
                if !block.token.isEmpty {
                    try check(block.token == contents.fingerprint(shown.stamps).bytes, "another token at \(offset)")
                    let mayName =
                        world.maySee(source, caller.account, .export)
                        && world.verdict(shown, source, exported, caller.account) != .refused
                    try check(mayName, "a token is told that the caller may not name")
                }
                offset += UInt64(block.length)
            }
        }
        try check(blocks.isEmpty && payload.isEmpty, "more than was asked for")
    }

    private func checkContent(
        _ block: Wire.DownloadedBlock,
        _ payload: inout ArraySlice<UInt8>,
        _ stamps: ArraySlice<Stamp>,
        _ shown: Shown,
        _ request: Wire.DownloadBlockRequest
    ) throws {
        let isZero = stamps.allSatisfy { $0 == 0 }
        switch block.content {
        case .payloadLength(let length):
            let stored = Array(payload.prefix(Int(length)))
            payload = payload.dropFirst(Int(length))
            var bytes = stored
            if block.codec == .lz4 {
                try check(request.acceptedCodecs.contains(.lz4), "LZ4 was not asked for")
                bytes = [UInt8](repeating: 0, count: Int(block.length))
                let isWhole = stored.withUnsafeBytes { from in
                    bytes.withUnsafeMutableBytes { LZ4.decompress(from, into: $0) }
                }
                try check(isWhole, "LZ4 that does not decode")
            }
            try check(bytes == ModelContents.bytes(stamps), "other bytes at \(block.offset)")
            guard let checksum = block.checksum else { throw ModelFailure("\(last): no checksum") }
            let value = bytes.withUnsafeBytes { Checksum.value(checksum.algorithm, over: $0) }
            try check(value == checksum.value, "another checksum at \(block.offset)")
        case .hole: try check(isZero && shown.whole != .data, "a hole at \(block.offset)")
        case .zeros: try check(isZero, "zeros at \(block.offset)")
        case .known:
            let fingerprint = contents.fingerprint(shown.stamps).bytes
            try check(request.knownTokens.contains(fingerprint), "a chunk at \(block.offset) that the caller has not")
        case nil: throw ModelFailure("\(last): a block of nothing")
        }
    }

    // MARK: Lists

    /// All chunks that somebody ever wrote of what the source stands on.
    func writtenChunks(_ source: World.Source) -> [Int] {
        var chunks: Set<Int> = []
        var pile: Pile? = source.pile
        while let next = pile {
            for version in next.versions.values { chunks.formUnion(version.keys) }
            pile = next.below?.pile
        }
        return chunks.filter { $0 < source.chunks }.sorted()
    }

    func listBlocks() throws {
        guard let source = pickSource() else { return }
        try listBlocks(source, pickCaller(source))
    }

    func listBlocks(_ source: World.Source, _ caller: Caller) throws {
        last = "\(caller.account) lists blocks of \(source.account)"
        let request = Wire.ListBlocksRequest(target: target(source), page: .init(limit: 1000))
        if let refusal = refusal(source, caller.account, .export) {
            return try isRefused(server.call(server.service.listBlocks, request, caller.context), refusal)
        }
        let opened = world.opened(source, to: caller.account, .export)
        let shown = writtenChunks(source).map { ($0, source.show($0)) }
        let verdict = shown.reduce(World.Verdict.allowed) {
            $0.and(world.verdict($1.1, source, opened, caller.account))
        }
        let result = server.noting(verdict == .either ? .request : .answer) {
            server.call(server.service.listBlocks, request, caller.context)
        }
        guard try isServed(result, verdict, source, caller) else { return }
        var listed: [Int: Wire.BlockDescription] = [:]
        for block in try result.get().blocks { listed[Int(block.offset) / source.pile.chunkSize.bytes] = block }
        for (chunk, shown) in shown {
            let block = listed.removeValue(forKey: chunk)
            if let block { try describes(block, shown, chunk) }
            if !shown.isZero || (shown.whole == .zeros && !shown.hasParts) {
                try check(block != nil, "chunk \(chunk) is not listed")
            }
            if shown.whole == .hole || shown.whole == .nothing, !shown.hasParts {
                try check(block == nil, "hole \(chunk) is listed")
            }
        }
        try check(listed.isEmpty, "chunks \(listed.keys) are listed that nobody wrote")
    }

    func describes(_ block: Wire.BlockDescription, _ shown: Shown, _ chunk: Int) throws {
        if shown.isZero, block.state != .data { return }
        try check(block.state == .data, "chunk \(chunk) is \(block.state)")
        try check(
            block.token.isEmpty || block.token == contents.fingerprint(shown.stamps).bytes,
            "chunk \(chunk): another token"
        )
        try check(shown.writers.contains { $0.account.name == block.owner }, "chunk \(chunk) is \(block.owner)'s")
    }
}
