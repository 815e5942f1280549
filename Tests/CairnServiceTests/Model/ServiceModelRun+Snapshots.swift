import CairnCore
import CairnTesting
import CairnWire

@testable import CairnService

/// CreateSnapshot, CreateSnapshots, SnapshotProgress, DeleteSnapshot.
extension ServiceModelRun {
    private var isFull: Bool { world.snapshots.count >= configuration.mix.snapshots }

    /// Of a REMOTE volume (SPEC S2).
    func createSnapshot() throws {
        guard !isFull, let volume = pick(world.volumes.filter { !$0.isLocal }) else { return }
        last = "create a snapshot"
        var request = Wire.CreateSnapshotRequest(volumeID: volume.id)
        if chance(30) { request.idempotencyKey = random.bytes(16) }
        var refusal: Refusal?
        if chance(5) {
            request.expected = [.init(offset: 0, token: [UInt8](repeating: 1, count: 32))]
            refusal = Refusal(.wrongVolumeKind)
        }
        let context = context(volume.account)
        let call = { [server] (request: Wire.CreateSnapshotRequest) in
            server.call(server.service.createSnapshot, request, context)
        }
        guard let created = try judge(call(request), refusal) else { return }
        try add(created, volume)
        repeatLater(request.idempotencyKey, created, call, request) { $0.description = "another" }
    }

    @discardableResult
    private func add(_ created: Wire.CreateSnapshotResponse, _ volume: World.Volume, pending: Bool = false) throws
        -> World.Snapshot
    {
        try check(created.dataVersion == volume.version, "data version \(created.dataVersion)")
        let snapshot = World.Snapshot(
            created.snapshotID,
            token: created.snapshotToken,
            of: volume,
            version: volume.version
        )
        snapshot.isPending = pending
        snapshot.progress = pending ? 0 : 100
        if pending { volume.pile.incomplete.insert(volume.version) }
        volume.version += 1
        world.snapshots.append(snapshot)
        try check(created.state == (snapshot.isComplete ? .complete : .inProgress), "it is \(created.state)")
        isDurable(volume.id)
        return snapshot
    }

    /// SPEC R6.
    func createSet() throws {
        let account = pickAccount()
        var chosen = volumes(of: account, local: false).filter { _ in chance(60) }
        guard !isFull, !chosen.isEmpty else { return }
        last = "create a set of snapshots"
        var request = Wire.CreateSnapshotsRequest(volumeIDs: chosen.map(\.id))
        if chance(30) { request.idempotencyKey = random.bytes(16) }
        var refusal: Refusal?
        switch random.below(10) {
        case 0:
            request.volumeIDs.append(chosen[0].id)
            refusal = Refusal(.invalidArgument, at: chosen.count)
        case 1:
            guard let local = pick(volumes(of: account, local: true)) else { return }
            request.volumeIDs.append(local.id)
            refusal = Refusal(.wrongVolumeKind, at: chosen.count)
        case 2:
            guard let foreign = pick(world.volumes.filter { $0.account != account }) else { return }
            request.volumeIDs.append(chance(50) ? foreign.id : Self.absent(foreign.id))
            refusal = Refusal(.invalidVolumeID, at: chosen.count)
        default: break
        }
        let context = context(account)
        let call = { [server] (request: Wire.CreateSnapshotsRequest) in
            server.call(server.service.createSnapshots, request, context)
        }
        guard let created = try judge(call(request), refusal) else { return }
        try check(created.snapshots.count == chosen.count, "\(created.snapshots.count) snapshots")
        for response in created.snapshots { try add(response, chosen.removeFirst()) }
        repeatLater(request.idempotencyKey, created, call, request) { $0.description = "another" }
    }

    // MARK: In progress

    /// Of a LOCAL volume, with chunks that are here already, inline or by pointer, and with chunks that are to come (SPEC S3, S5).
    func beginSnapshot() throws {
        guard let volume = pick(world.volumes.filter(\.isLocal)) else { return }
        // Now and then as many as there may be.
        let most = configuration.mix.inProgress
        for _ in 0..<(chance(5) ? 3 * most : 1) where !isFull && world.outstanding(of: volume.id).count < most {
            try beginSnapshot(of: volume)
            mostInProgress = max(mostInProgress, world.outstanding(of: volume.id).count)
        }
    }

    private func beginSnapshot(of volume: World.Volume) throws {
        last = "begin a snapshot"
        let place = Place(source: world.source(volume))
        var request = Wire.CreateSnapshotRequest(volumeID: volume.id)
        if chance(30) { request.idempotencyKey = random.bytes(16) }
        var edits: [(chunk: Int, edit: Edit)] = []
        var namings: [Naming] = []
        var named: [ModelContents.Chunk] = []
        for chunk in activeChunks(place.source) where chance(15) {
            guard let content = pick(contents.known.suffix(60).map(\.self)) else { continue }
            let naming = naming(content, volume.account, place.pile.chunkSize, room: place.room(chunk))
            if naming != .known, !namings.allSatisfy({ $0 == .known }) { continue }
            namings.append(naming)
            named.append(content)
            request.chunks.append(
                .init(offset: UInt64(chunk * place.pile.chunkSize.bytes), token: content.fingerprint.bytes)
            )
            edits.append((chunk, .whole(.data, content.stamps)))
        }
        let isByPointer = !request.chunks.isEmpty && chance(30)
        if isByPointer { request = try byPointer(request, volume.account) }
        var expected: [Int: Fingerprint] = [:]
        for chunk in activeChunks(place.source) where chance(10) {
            let content = contents.make(place.pile.chunkSize, room: place.room(chunk), &random)
            expected[chunk] = content.fingerprint
            request.expected.append(
                .init(offset: UInt64(chunk * place.pile.chunkSize.bytes), token: content.fingerprint.bytes)
            )
        }
        let context = context(volume.account)
        let call = { [server] (request: Wire.CreateSnapshotRequest) in
            server.call(server.service.createSnapshot, request, context)
        }
        let isSure = Self.isSure(namings)
        var result = server.noting(isSure ? .answer : .request) { call(request) }
        // Those on other shards are brought to this one, and kept there for a while.
        longLeases[volume.account, default: []].formUnion(named.map(\.fingerprint))
        if case .failure(let error) = result {
            let index = error.blockIndex ?? -1
            let isExpected = namings.indices.contains(index) && namings[index] != .known
            try check(error.code == .invalidChunkToken && isExpected, "refused with \(error); tokens \(namings)")
            if namings.contains(.unknown) { return }
            result = try server.noting(.nothing) {
                try stage(named, volume)
                return call(request)
            }
        }
        let created = try succeeds(result)
        try check(!namings.contains(.unknown), "a chunk was named that \(volume.account) never had here")
        let snapshot = try add(created, volume, pending: true)
        apply(edits, Place(source: world.source(snapshot)))
        snapshot.expected = expected
        repeatLater(request.idempotencyKey, created, call, request) { $0.description = "another" }
    }

    /// On the volume's shard, for as long as usual.
    private func stage(_ chunks: [ModelContents.Chunk], _ volume: World.Volume) throws {
        for chunk in chunks {
            let bytes = ModelContents.bytes(chunk.stamps)
            var request = Wire.UploadBlockRequest(chunkSize: UInt32(chunk.size.bytes))
            request.nearVolumeID = volume.id
            request.blocks = [ServiceHarness.block(bytes, at: 0)]
            _ = try succeeds(server.upload(request, bytes, context(volume.account)))
        }
    }

    /// The list as the content of chunks, which are staged (SPEC S5).
    private func byPointer(_ request: Wire.CreateSnapshotRequest, _ account: AccountID) throws
        -> Wire.CreateSnapshotRequest
    {
        var bytes = Wire.ChunkList(chunks: request.chunks).encode()
        bytes += [UInt8](repeating: 0, count: (4096 - bytes.count % 4096) % 4096)
        var staging = Wire.UploadBlockRequest(chunkSize: 4096, leaseSeconds: 2)
        staging.blocks = [ServiceHarness.block(bytes, at: 0)]
        let staged = try succeeds(server.upload(staging, bytes, context(account)))
        var request = request
        request.chunks = []
        request.chunkListTokens = staged.chunks.map(\.token)
        return request
    }

    func report() throws {
        guard let snapshot = chance(80) ? pick(world.snapshots.filter(\.isPending)) : pick(world.snapshots) else {
            return
        }
        last = "report"
        var percent = chance(60) ? 100 : UInt32(random.below(104))
        let rebased = chance(40)
        var refusal = refusal(of: snapshot, outOfTurn: .invalidSnapshotID)
        if percent > 100 { refusal = Refusal(.invalidProgress) }
        // C5: said again.
        let isAgain = percent == 100 && refusal?.code == .snapshotAlreadyComplete
        if isAgain { refusal = nil }
        let missing = snapshot.isPending ? missing(snapshot) : Missing()
        if percent == 100, !missing.isDecided { percent = 99 }
        if refusal == nil, !isAgain {
            refusal = self.refusal(ofReport: percent, snapshot, rebased: rebased, missing: missing.chunks.count)
        }
        if snapshot.isPending, chance(30) { try checkMissing(missing, snapshot) }
        let request = Wire.SnapshotProgressRequest(target: .snapshotID(snapshot.id), percent: percent, rebased: rebased)
        let result = server.call(server.service.snapshotProgress, request, context(snapshot.account))
        guard let answer = try judge(result, refusal) else { return }
        if !isAgain {
            if rebased { snapshot.needsRebase = false }
            reported(percent, snapshot)
            isDurable(snapshot.id)
        }
        try check(answer.percent == snapshot.progress, "\(answer.percent) percent")
        try check(answer.state == (snapshot.isComplete ? .complete : .inProgress), "it is \(answer.state)")
    }

    private func checkMissing(_ missing: Missing, _ snapshot: World.Snapshot) throws {
        let request = Wire.MissingBlocksRequest(target: .snapshotID(snapshot.id))
        let answer = try server.noting(missing.isDecided ? .answer : .request) {
            try succeeds(server.call(server.service.missingBlocks, request, context(snapshot.account)))
        }
        let size = UInt64(snapshot.pile.chunkSize.bytes)
        let perhaps = Set(missing.perhaps)
        let told = answer.missing.filter { !perhaps.contains(Int($0.offset / size)) || $0.offset % size != 0 }
        let expected = missing.chunks.map {
            Wire.ChunkPlacement(offset: UInt64($0) * size, token: snapshot.expected[$0]!.bytes)
        }
        try check(
            told == expected,
            "\(told.map { $0.offset / size }) are missing instead of \(missing.chunks), perhaps \(missing.perhaps)"
        )
    }

    func deleteSnapshot() throws {
        guard let snapshot = pick(world.snapshots) else { return }
        last = "delete a snapshot of \(snapshot.account)"
        var request = Wire.DeleteSnapshotRequest(snapshotID: snapshot.id)
        if chance(30) { request.idempotencyKey = random.bytes(16) }
        let context = context(snapshot.account)
        let call = { [server] (request: Wire.DeleteSnapshotRequest) in
            server.call(server.service.deleteSnapshot, request, context)
        }
        let answer = try succeeds(call(request))
        world.remove(snapshot)
        isDurable(snapshot.id)
        repeatLater(request.idempotencyKey, answer, call, request) { $0.snapshotID = Self.absent($0.snapshotID) }
        try isRefused(call(.init(snapshotID: snapshot.id)), Refusal(.invalidSnapshotID))
        try waitForGrants(of: snapshot.account)
    }
}
