import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire

@testable import CairnService

/// The calls that write blocks, with what may be wrong with them.
extension ServiceModelRun {
    // MARK: Volumes

    func uploadToVolume() throws {
        guard let volume = pick(world.volumes) else { return }
        last = "upload to a volume"
        let place = Place(source: world.source(volume))
        var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume.id)))
        var refusal = volume.isLocal ? Refusal(.wrongVolumeKind) : nil
        if chance(15), volume.attachment > 0 {
            request.attachment = UInt64(1 + random.below(Int(volume.attachment) + 1))
            if request.attachment != volume.attachment {
                refusal =
                    refusal ?? Refusal(request.attachment < volume.attachment ? .staleAttachment : .invalidArgument)
            }
        }
        if refusal == nil, chance(15) {
            request.dataVersion = UInt64(1 + random.below(Int(volume.version) + 1))
            if request.dataVersion > volume.version { refusal = Refusal(.invalidDataVersion) }
        }
        request.durability = chance(20) ? .onFlush : .durable
        let blocks = makeBlocks(place, volume.account)
        var (must, may) = supersededChunks(blocks, place, request.dataVersion)
        // What it comes to must not depend on the background.
        if refusal == nil, !may.isEmpty { (request.dataVersion, must, may) = (0, [], []) }
        let answer = try send(request, blocks, place, refusal)
        guard let answer else { return }
        try check(answer.dataVersion == volume.version, "data version \(answer.dataVersion)")
        try checkSuperseded(answer, must, place)
        try checkTold(answer, blocks, place, must)
        keep(volume, request.durability == .onFlush ? blocks : nil, request.dataVersion)
        apply(blocks.flatMap(\.edits), place, except: must)
    }

    private func checkSuperseded(_ answer: Wire.UploadBlockResponse, _ chunks: Set<Int>, _ place: Place) throws {
        let offsets = chunks.sorted().map { UInt64($0 * place.pile.chunkSize.bytes) }
        try check(answer.superseded == offsets, "superseded \(answer.superseded) instead of chunks \(chunks)")
    }

    /// SPEC U5: chunks that a higher version than the caller's wrote. A hole under which nothing lies any more counts as never
    /// written: those, perhaps.
    private func supersededChunks(_ blocks: [Block], _ place: Place, _ version: UInt64) -> (
        must: Set<Int>, may: Set<Int>
    ) {
        guard version != 0 else { return ([], []) }
        var (must, may): (Set<Int>, Set<Int>) = ([], [])
        for chunk in Set(blocks.flatMap(\.edits).map(\.chunk)) {
            let newest = place.pile.newestFirst(upTo: place.source.version).first {
                place.pile.versions[$0]?[chunk] != nil
            }
            guard let newest, newest > version, let written = place.pile.versions[newest]?[chunk] else { continue }
            if written.whole == .hole, !written.hasParts { may.insert(chunk) } else { must.insert(chunk) }
        }
        return (must, may)
    }

    private func checkTold(
        _ answer: Wire.UploadBlockResponse,
        _ blocks: [Block],
        _ place: Place,
        _ superseded: Set<Int> = []
    )
        throws
    {
        let told = blocks.flatMap(\.told).filter { !superseded.contains(Int($0.offset) / place.pile.chunkSize.bytes) }
        try check(answer.chunks == told, "other tokens than those of the chunks written")
    }

    /// Remembers how a volume was before a call that is not durable yet; one that is makes all before it on the shard durable.
    private func keep(_ volume: World.Volume, _ unflushedBlocks: [Block]?, _ dataVersion: UInt64) {
        guard let blocks = unflushedBlocks else { return isDurable(volume.id) }
        let before = volume.pile.versions[volume.version]
        unflushed[Self.shard(of: volume.id), default: []].append(
            .init(
                pile: volume.pile,
                version: volume.version,
                before: before,
                volume: volume,
                blocks: blocks,
                dataVersion: dataVersion
            )
        )
    }

    /// What the client does when the write verifier has changed (SPEC U8).
    func sendAgain(_ lost: Unflushed) throws {
        let place = Place(source: world.source(lost.volume))
        let blocks = lost.blocks.map { sendingBytes($0, place) }
        var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(lost.volume.id)))
        request.dataVersion = lost.dataVersion
        let (superseded, _) = supersededChunks(blocks, place, lost.dataVersion)
        try checkSuperseded(try succeeds(send(request, blocks, context(lost.volume.account))), superseded, place)
        apply(blocks.flatMap(\.edits), place, except: superseded)
    }

    /// What any other durable change does to the calls before it on its shard.
    func isDurable(_ id: [UInt8]) { unflushed[Self.shard(of: id)] = [] }

    func flush() throws {
        guard let volume = pick(world.volumes) else { return }
        last = "flush"
        let result = server.call(server.service.flush, .init(volumeID: volume.id), context(volume.account))
        guard try judge(result, volume.isLocal ? Refusal(.wrongVolumeKind) : nil) != nil else { return }
        isDurable(volume.id)
    }

    // MARK: Sending

    /// Sends blocks as they are, or with one thing wrong with one of them; nil where the call was to be refused, and was.
    private func send(
        _ request: Wire.UploadBlockRequest,
        _ blocks: [Block],
        _ place: Place,
        _ refused: Refusal?,
        orEither isEither: Bool = false
    ) throws -> Wire.UploadBlockResponse? {
        var (blocks, refusal) = (blocks, refused)
        let account = place.pile.account
        let namings = blocks.map { block in
            block.token.map { token in
                naming(token, account, place.pile.chunkSize, room: place.room(block.edits[0].chunk))
            } ?? .known
        }
        let bad = namings.indices.filter { namings[$0] != .known }
        // Two things wrong at once: which of them is told is nobody's concern.
        if refusal != nil, !bad.isEmpty { return nil }
        if refusal == nil, bad.isEmpty, !isEither, chance(12) { refusal = spoil(&blocks, place) }
        let context = context(account, host: chance(10))
        let unknown = bad.first { namings[$0] == .unknown }
        let isSure = !isEither && Self.isSure(namings)
        let answer = server.noting(isSure ? .answer : .request) { send(request, blocks, context) }
        if let refusal {
            try isRefused(answer, refusal)
            return nil
        }
        if case .success = answer, let unknown {
            throw ModelFailure("\(last): \(account) named a chunk that it never had here, in block \(unknown)")
        }
        guard case .failure(let error) = answer else { return try answer.get() }
        if isEither, error.code == .failedPrecondition { return try sendBeforeReport(request, blocks, context, place) }
        guard error.code == .invalidChunkToken, let index = error.blockIndex, bad.contains(index) else {
            throw ModelFailure("\(last): refused with \(error); tokens \(namings)")
        }
        if unknown != nil { return nil }
        let again = server.noting(.nothing) { send(request, blocks.map { sendingBytes($0, place) }, context) }
        if isEither, case .failure(let error) = again, error.code == .failedPrecondition {
            return try sendBeforeReport(request, blocks, context, place)
        }
        return try succeeds(again)
    }

    private func send(_ request: Wire.UploadBlockRequest, _ blocks: [Block], _ context: CallContext)
        -> Result<Wire.UploadBlockResponse, ServiceError>
    {
        var request = request
        request.blocks = blocks.map(\.wire)
        return server.upload(request, blocks.flatMap(\.payload), context)
    }

    /// The blocks, and then the progress that they were to carry: all that it needs is there before it.
    private func sendBeforeReport(
        _ request: Wire.UploadBlockRequest,
        _ blocks: [Block],
        _ context: CallContext,
        _ place: Place
    ) throws -> Wire.UploadBlockResponse {
        var upload = request
        upload.progress = nil
        return try server.noting(.nothing) {
            let answer = try succeeds(send(upload, blocks.map { sendingBytes($0, place) }, context))
            guard let snapshot = place.source.snapshot, let percent = request.progress?.percent else { return answer }
            let report = Wire.SnapshotProgressRequest(target: .snapshotID(snapshot), percent: percent)
            _ = try succeeds(server.call(server.service.snapshotProgress, report, context))
            return answer
        }
    }

    /// Makes one thing wrong, and says how that must be refused.
    private func spoil(_ blocks: inout [Block], _ place: Place) -> Refusal? {
        let index = random.below(blocks.count)
        switch random.below(5) {
        case 0:
            guard blocks[index].wire.checksum != nil else { return nil }
            blocks[index].wire.checksum!.value[0] ^= 1
            return Refusal(.checksumError, at: index)
        case 1:
            blocks[index].wire.offset = UInt64(place.source.sectors) * 512
            return Refusal(.invalidArgument, at: index)
        case 2:
            blocks[index].wire.length -= 1
            return Refusal(.invalidArgument, at: index)
        case 3:
            guard blocks[index].wire.checksum != nil else { return nil }
            blocks[index].wire.checksum = nil
            return Refusal(.invalidArgument, at: index)
        default:
            guard blocks[index].wire.codec == .lz4 else { return nil }
            blocks[index].payload[0] = 0xff
            // It does not decode, or to other bytes.
            blocks[index].payload.removeLast()
            blocks[index].wire.source = .payloadLength(UInt32(blocks[index].payload.count))
            return Refusal(.invalidArgument, at: index)
        }
    }

    // MARK: Snapshots

    /// Why a call that changes a snapshot is to be refused; nil: it is not.
    func refusal(of snapshot: World.Snapshot, outOfTurn: ServiceError.Code) -> Refusal? {
        if snapshot.isError { return Refusal(.failedPrecondition) }
        if !snapshot.isPending { return Refusal(.snapshotAlreadyComplete) }
        return world.outstanding(of: snapshot.volume).first === snapshot ? nil : Refusal(outOfTurn)
    }

    func uploadToSnapshot() throws {
        let outstanding = world.volumes.compactMap { world.outstanding(of: $0.id).first }
        guard let snapshot = chance(85) ? pick(outstanding) : pick(world.snapshots) else { return }
        last = "upload to a snapshot"
        let place = Place(source: world.source(snapshot))
        var request = Wire.UploadBlockRequest()
        request.target = .init(target: chance(50) ? .snapshotID(snapshot.id) : .snapshotToken(snapshot.token))
        request.rebased = chance(10)
        var refusal = refusal(of: snapshot, outOfTurn: .invalidDataVersion)
        if chance(20) {
            request.dataVersion = chance(80) ? snapshot.version : snapshot.version + UInt64(1 + random.below(3))
            if request.dataVersion != snapshot.version { refusal = refusal ?? Refusal(.invalidDataVersion) }
        }
        let blocks = makeBlocks(place, snapshot.account, wanted: snapshot)
        var isEither = false
        if chance(15), refusal == nil {
            request.progress = .init(percent: chance(40) ? 100 : UInt32(random.below(100)))
            let after = missing(snapshot, after: blocks, place)
            if !after.isDecided { request.progress!.percent = min(request.progress!.percent, 99) }
            refusal = self.refusal(
                ofReport: request.progress!.percent,
                snapshot,
                rebased: request.rebased,
                missing: after.chunks.count
            )
            // The parts that make a chunk up are looked at before the call, and a chunk that is overwritten counts as missing.
            let expected = Set(snapshot.expected.keys)
            let touched = blocks.contains { block in block.edits.contains { expected.contains($0.chunk) } }
            isEither = request.progress!.percent == 100 && touched && blocks.contains { $0.told.isEmpty }
            if isEither, refusal?.code == .failedPrecondition { isEither = false }
        }
        guard let answer = try send(request, blocks, place, refusal, orEither: isEither) else { return }
        try check(answer.dataVersion == snapshot.version && answer.superseded.isEmpty, "another version")
        try checkTold(answer, blocks, place)
        isDurable(snapshot.id)
        apply(blocks.flatMap(\.edits), place)
        if request.rebased { snapshot.needsRebase = false }
        if let percent = request.progress?.percent { reported(percent, snapshot) }
    }

    func reported(_ percent: UInt32, _ snapshot: World.Snapshot) {
        snapshot.progress = percent
        if percent == 100 { world.complete(snapshot) }
    }

    /// Chunks that are expected of a snapshot and not there, in order.
    struct Missing {
        var chunks: [Int] = []
        /// Those that show what is expected, over what is closed to the snapshot's account: what it may not have is missing, and whether
        /// it counts as that depends on when parts are merged (``World/Verdict/either``).
        var perhaps: [Int] = []
        var isDecided: Bool { perhaps.isEmpty }
    }

    func missing(_ snapshot: World.Snapshot) -> Missing {
        let source = world.source(snapshot)
        let opened = world.opened(source, to: snapshot.account, .export)
        var missing = Missing()
        for (chunk, token) in snapshot.expected.sorted(by: { $0.key < $1.key }) {
            let shown = source.show(chunk)
            if contents.fingerprint(shown.stamps) != token {
                missing.chunks.append(chunk)
            } else if world.verdict(shown, source, opened, snapshot.account) != .allowed {
                missing.perhaps.append(chunk)
            }
        }
        return missing
    }

    private func missing(_ snapshot: World.Snapshot, after blocks: [Block], _ place: Place) -> Missing {
        let before = place.pile.versions[snapshot.version]
        let writers = world.writers
        apply(blocks.flatMap(\.edits), place)
        defer {
            place.pile.versions[snapshot.version] = before
            world.writers = writers
        }
        return missing(snapshot)
    }

    func refusal(ofReport percent: UInt32, _ snapshot: World.Snapshot, rebased: Bool, missing: Int) -> Refusal? {
        if percent < snapshot.progress { return Refusal(.invalidProgress) }
        guard percent == 100 else { return nil }
        if snapshot.needsRebase, !rebased { return Refusal(.needsRebase) }
        return missing > 0 ? Refusal(.failedPrecondition) : nil
    }

    // MARK: Marks

    /// WriteZeroes and Discard, of a volume or a snapshot.
    func mark() throws {
        let snapshot = chance(30) ? pick(world.snapshots) : nil
        let volume = snapshot == nil ? pick(world.volumes) : nil
        guard snapshot != nil || volume != nil else { return }
        last = "mark a \(snapshot == nil ? "volume" : "snapshot")"
        let place = Place(source: snapshot.map(world.source) ?? world.source(volume!))
        let target = Wire.Target(target: snapshot.map { .snapshotID($0.id) } ?? .volumeID(volume!.id))
        var refusal =
            snapshot.map { self.refusal(of: $0, outOfTurn: .invalidDataVersion) }
            ?? (volume!.isLocal ? Refusal(.wrongVolumeKind) : nil)
        let isHole = chance(50)
        var ranges: [Wire.ByteRange] = []
        var edits: [(chunk: Int, edit: Edit)] = []
        for chunk in activeChunks(place.source) where chance(20) || ranges.isEmpty {
            let start = chunk * place.count + (chance(50) ? 0 : random.below(place.room(chunk)))
            let rest = chunk * place.count + place.room(chunk) - start
            let sectors = start..<start + (chance(70) ? rest : 1 + random.below(rest))
            ranges.append(Wire.ByteRange(offset: UInt64(sectors.lowerBound * 512), length: UInt64(sectors.count * 512)))
            edits += markEdits(place, sectors, isHole: isHole)
        }
        if refusal == nil, chance(10) {
            let index = random.below(ranges.count)
            ranges[index].length = chance(50) ? UInt64(place.source.sectors * 512 + 512) : 0
            refusal = Refusal(.invalidArgument, at: index)
        }
        let account = context(place.pile.account)
        let isAnswered: Bool
        if isHole {
            let result = server.call(server.service.discard, .init(target: target, ranges: ranges), account)
            isAnswered = try judge(result, refusal) != nil
        } else {
            let result = server.call(server.service.writeZeroes, .init(target: target, ranges: ranges), account)
            isAnswered = try judge(result, refusal) != nil
        }
        guard isAnswered else { return }
        isDurable(target.volumeOrSnapshot)
        apply(edits, place)
    }
}

extension Wire.Target {
    var volumeOrSnapshot: [UInt8] {
        switch target {
        case .volumeID(let id), .snapshotID(let id): id
        default: []
        }
    }
}
