import CairnCore
import CairnTesting
import CairnWire

@testable import CairnService

/// CreateVolume, DeleteVolume, ResizeVolume, UpdateTags, AttachVolume.
extension ServiceModelRun {
    func createVolume() throws {
        let account = pickAccount()
        guard volumes(of: account).count < 5 else { return }
        last = "create a volume"
        var request = Wire.CreateVolumeRequest(size: UInt64((2048 + (chance(40) ? random.below(60) : 0)) * 512))
        request.chunkSize = UInt32(configuration.chunks[random.below(configuration.chunks.count)])
        request.kind = chance(40) ? .local : .remote
        if chance(20) { request.affinity = [UInt8(random.below(3))] }
        var refusal: Refusal?
        if chance(10) {
            request.size = [512, (1 << 20) + 1, (64 << 40) + 512][random.below(3)]
            refusal = Refusal(.invalidVolumeSize)
        }
        try create(request, account, from: nil, refusal)
    }

    /// A volume from a snapshot: of one's own, or of somebody who shares it, or does not (SPEC V4, V5, D5).
    func clone() throws {
        let account = pickAccount()
        guard volumes(of: account).count < 6, let snapshot = pick(world.snapshots) else { return }
        guard depth(snapshot.pile) < 6 else { return }
        last = "\(account) makes a volume from a snapshot of \(snapshot.account)"
        var request = Wire.CreateVolumeRequest(snapshotID: snapshot.id)
        request.kind = chance(30) ? .local : .remote
        var refusal: Refusal?
        if !world.maySee(world.source(snapshot), account, .use) {
            refusal = Refusal(.invalidSnapshotID)
        } else if snapshot.isError {
            refusal = Refusal(.failedPrecondition)
        } else if chance(30) {
            // Larger, and rarely smaller.
            let more = chance(20) ? -1 : random.below(40)
            request.size = UInt64((snapshot.sectors + more) * 512)
            if more < 0 { refusal = Refusal(.invalidVolumeSize) }
        } else if chance(5) {
            request.chunkSize = UInt32(snapshot.pile.chunkSize.bytes * 2)
            refusal = Refusal(.invalidArgument)
        }
        try create(request, account, from: snapshot, refusal)
    }

    private func depth(_ pile: Pile) -> Int { pile.below.map { depth($0.pile) + 1 } ?? 0 }

    private func create(
        _ request: Wire.CreateVolumeRequest,
        _ account: AccountID,
        from source: World.Snapshot?,
        _ refusal: Refusal?
    ) throws {
        var request = request
        if chance(30) { request.idempotencyKey = random.bytes(16) }
        let context = context(account, host: chance(20))
        let call = { [server] (request: Wire.CreateVolumeRequest) in
            server.call(server.service.createVolume, request, context)
        }
        guard let created = try judge(call(request), refusal) else { return }
        let sectors = Int(created.size / 512)
        try check(
            created.size == (request.size != 0 ? request.size : UInt64(source!.sectors * 512)),
            "its size is \(created.size)"
        )
        try check(created.dataVersion == 2, "its data version is \(created.dataVersion)")
        let below = source.map {
            Pile.Below(pile: $0.pile, version: $0.version, sectors: $0.sectors, snapshot: $0.id, volume: $0.volume)
        }
        guard let chunkSize = source?.pile.chunkSize ?? ChunkSize(bytes: request.chunkSize) else { return }
        try check(Int(created.chunkSize) == chunkSize.bytes, "its chunks have \(created.chunkSize) bytes")
        let pile = Pile(account, chunkSize, over: below)
        let volume = World.Volume(
            created.volumeID,
            account,
            isLocal: request.kind == .local,
            pile,
            initial: created.initialSnapshotID,
            sectors: sectors
        )
        world.volumes.append(volume)
        source?.wasCloned = true
        let token = try describe(volume.initial, context).snapshotToken
        world.snapshots.append(World.Snapshot(volume.initial, token: token, of: volume, version: 1, isInitial: true))
        isDurable(volume.id)
        repeatLater(request.idempotencyKey, created, call, request) { $0.size = 8 << 20 }
    }

    func deleteVolume() throws {
        guard let volume = pick(world.volumes) else { return }
        last = "delete a volume of \(volume.account)"
        var request = Wire.DeleteVolumeRequest(volumeID: volume.id, cancelSnapshots: chance(50))
        if chance(30) { request.idempotencyKey = random.bytes(16) }
        let inProgress = world.snapshots.filter {
            $0.volume == volume.id && !$0.isInitial && !$0.isComplete && !$0.isError
        }
        let refusal = !inProgress.isEmpty && !request.cancelSnapshots ? Refusal(.failedPrecondition) : nil
        let context = context(volume.account)
        let call = { [server] (request: Wire.DeleteVolumeRequest) in
            server.call(server.service.deleteVolume, request, context)
        }
        guard let answer = try judge(call(request), refusal) else { return }
        isDurable(volume.id)
        for snapshot in inProgress.reversed() { world.remove(snapshot) }
        world.remove(volume)
        repeatLater(request.idempotencyKey, answer, call, request) { $0.cancelSnapshots.toggle() }
        try forgetInitial(volume)
        try waitForGrants(of: volume.account)
    }

    /// SPEC V1: the initial snapshot goes with its volume unless something was cloned from it. That all clones are gone themselves may be
    /// known already, or not: then it is deleted.
    private func forgetInitial(_ volume: World.Volume) throws {
        guard let initial = world.snapshots.first(where: { $0.id == volume.initial }) else { return }
        let piles = world.volumes.map(\.pile) + world.snapshots.filter { !$0.isError }.map(\.pile)
        let isCloned = piles.contains { $0.below?.pile === volume.pile && $0.below?.version == 1 }
        let request = Wire.DescribeSnapshotRequest(target: .snapshotID(initial.id))
        let result = server.noting(isCloned ? .answer : .request) {
            server.call(server.service.describeSnapshot, request, context(volume.account))
        }
        switch result {
        case .failure(let error):
            try check(error.code == .invalidSnapshotID && !isCloned, "its initial snapshot: \(error)")
        case .success where isCloned: return
        case .success:
            try check(initial.wasCloned, "its initial snapshot is still there")
            let deletion = Wire.DeleteSnapshotRequest(snapshotID: initial.id)
            _ = try server.noting(.nothing) {
                try succeeds(server.call(server.service.deleteSnapshot, deletion, context(volume.account)))
            }
        }
        world.remove(initial)
    }

    func resize() throws {
        guard let volume = pick(world.volumes) else { return }
        last = "resize"
        let sectors = volume.sectors + (chance(20) ? -1 : random.below(50))
        let request = Wire.ResizeVolumeRequest(volumeID: volume.id, size: UInt64(sectors * 512))
        let refusal = sectors < volume.sectors ? Refusal(.invalidVolumeSize) : nil
        let result = server.call(server.service.resizeVolume, request, context(volume.account))
        guard try judge(result, refusal) != nil else { return }
        isDurable(volume.id)
        volume.sectors = sectors
    }

    func tag() throws {
        let set = ["k\(random.below(4))": "v\(random.below(9))"]
        let remove = ["k\(4 + random.below(3))"]
        var request = Wire.UpdateTagsRequest(set: set.map { Wire.Tag(key: $0.key, value: $0.value) }, remove: remove)
        if let snapshot = pick(world.snapshots), chance(50) {
            last = "tag a snapshot"
            request.target = .init(target: .snapshotID(snapshot.id))
            let answer = try succeeds(server.call(server.service.updateTags, request, context(snapshot.account)))
            snapshot.tags = try tags(answer, snapshot.tags, set)
            isDurable(snapshot.id)
        } else if let volume = pick(world.volumes) {
            last = "tag a volume"
            request.target = .init(target: .volumeID(volume.id))
            let answer = try succeeds(server.call(server.service.updateTags, request, context(volume.account)))
            volume.tags = try tags(answer, volume.tags, set)
            isDurable(volume.id)
        }
    }

    private func tags(_ answer: Wire.UpdateTagsResponse, _ old: [String: String], _ set: [String: String]) throws
        -> [String: String]
    {
        let tags = old.merging(set) { $1 }
        let told = Dictionary(uniqueKeysWithValues: answer.tags.map { ($0.key, $0.value) })
        try check(told == tags, "tags \(told) instead of \(tags)")
        return tags
    }

    func attach() throws {
        guard let volume = pick(world.volumes) else { return }
        last = "attach"
        let result = server.call(server.service.attachVolume, .init(volumeID: volume.id), context(volume.account))
        guard let answer = try judge(result, volume.isLocal ? Refusal(.wrongVolumeKind) : nil) else { return }
        volume.attachment += 1
        isDurable(volume.id)
        try check(answer.generation == volume.attachment, "generation \(answer.generation)")
    }

    // MARK: Idempotency (SPEC C5)

    /// Keeps a call that was answered under a key, to be made again at any time: also with other parameters, which is refused.
    func repeatLater<Request, Response: Equatable>(
        _ key: [UInt8],
        _ answer: Response,
        _ call: @escaping (Request) -> Result<Response, ServiceError>,
        _ request: Request,
        other change: (inout Request) -> Void
    ) {
        guard !key.isEmpty else { return }
        var other = request
        change(&other)
        repeatable.append(
            Repeatable { [unowned self] in
                let again = try succeeds(call(request))
                try check(again == answer, "the first answer was another")
                try isRefused(call(other), Refusal(.idempotencyMismatch))
            }
        )
        if repeatable.count > 60 { repeatable.removeFirst(20) }
    }

    func repeatCall() throws {
        last = "repeat a call"
        try pick(repeatable)?.again()
    }
}
