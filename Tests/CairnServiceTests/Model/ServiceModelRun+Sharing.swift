import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire
import Foundation

@testable import CairnService

enum ModelSeal {
    static func hash(_ bytes: [UInt8]) -> [UInt8] { SHA256.hash(bytes).bytes }
}

/// Grants, and what those see who have none (SPEC C2, C3, D5).
extension ServiceModelRun {
    private func wire(_ grant: World.Grant) -> Wire.Grant {
        var wire = Wire.Grant()
        switch grant.resource {
        case .account: break
        case .volume(let id): wire.resource = .init(target: .volumeID(id))
        case .snapshot(let id): wire.resource = .init(target: .snapshotID(id))
        }
        wire.grantee = grant.grantee.name
        wire.permission = grant.permission == .use ? .use : .export
        return wire
    }

    func grant() throws {
        let (grantor, grantee) = (pickAccount(), pickAccount())
        guard grantor != grantee else { return }
        last = "\(grantor) grants something to \(grantee)"
        var resource = World.Resource.account
        if chance(90) {
            let isVolume = chance(40)
            let id = isVolume ? pick(volumes(of: grantor))?.id : pick(snapshots(of: grantor))?.id
            guard let id else { return }
            resource = isVolume ? .volume(id) : .snapshot(id)
        }
        let grant = World.Grant(
            grantor: grantor,
            resource: resource,
            grantee: grantee,
            permission: chance(50) ? .use : .export
        )
        var request = Wire.CreateGrantRequest(grant: wire(grant))
        if chance(20) { request.idempotencyKey = random.bytes(16) }
        let context = context(grantor)
        let call = { [server] (request: Wire.CreateGrantRequest) in
            server.call(server.service.createGrant, request, context)
        }
        let answer = try succeeds(call(request))
        if !world.grants.contains(grant) { world.grants.append(grant) }
        repeatLater(request.idempotencyKey, answer, call, request) {
            $0.grant!.permission = $0.grant!.permission == .use ? .export : .use
        }
    }

    func withdraw() throws {
        last = "withdraw a grant"
        guard let index = world.grants.indices.randomElement(using: &random) else { return }
        let grant = world.grants.remove(at: index)
        let call = { [server] (request: Wire.DeleteGrantRequest) in
            server.call(server.service.deleteGrant, request, CallContext(account: grant.grantor))
        }
        _ = try succeeds(call(.init(grant: wire(grant))))
        try isRefused(call(.init(grant: wire(grant))), Refusal(.failedPrecondition))
    }

    func toldGrants(by account: AccountID) throws -> Set<World.Grant> {
        var page = Wire.PageRequest(limit: 50)
        var grants: Set<World.Grant> = []
        repeat {
            let answer = try succeeds(server.call(server.service.listGrants, .init(page: page), context(account)))
            for told in answer.grants {
                var resource = World.Resource.account
                switch told.resource?.target {
                case .volumeID(let id): resource = .volume(id)
                case .snapshotID(let id): resource = .snapshot(id)
                default: break
                }
                grants.insert(
                    World.Grant(
                        grantor: account,
                        resource: resource,
                        grantee: AccountID(told.grantee)!,
                        permission: told.permission == .use ? .use : .export
                    )
                )
            }
            page.pageToken = answer.nextPageToken
        } while !page.pageToken.isEmpty
        return grants
    }

    /// The grants for a snapshot go with it, in the background.
    func waitForGrants(of account: AccountID) throws {
        let wanted = Set(world.grants.filter { $0.grantor == account })
        let end = Date() + 20
        while try server.noting(.nothing, { try toldGrants(by: account) }) != wanted {
            try check(Date() < end, "grants for a snapshot that is gone stay")
            usleep(200)
        }
    }

    // MARK: Probes

    /// After each operation: what somebody may see of something, and may not.
    func probe() throws {
        guard let source = pickSource() else { return }
        let caller = Caller(account: pickAccount(), isHost: chance(25))
        switch random.below(4) {
        case 0: try listBlocks(source, caller)
        case 1:
            guard let snapshot = pick(world.snapshots) else { return }
            try describe(snapshot, by: caller)
        default: try download(source, caller, all: chance(30))
        }
    }

    /// Everything, as each account sees it.
    func probeAll() throws {
        for account in Self.accounts {
            try listings(of: account)
            for isHost in [false, true] {
                let caller = Caller(account: account, isHost: isHost)
                for volume in world.volumes { try download(world.source(volume), caller, all: true) }
                for snapshot in world.snapshots { try download(world.source(snapshot), caller, all: true) }
            }
            for snapshot in world.snapshots { try describe(snapshot, by: Caller(account: account, isHost: false)) }
            for volume in world.volumes {
                try listBlocks(world.source(volume), Caller(account: account, isHost: false))
            }
        }
    }

    /// Calls for another's resource that no grant allows: they end as if there were no such thing, to the letter.
    func strangers() throws {
        let account = pickAccount()
        let context = context(account, host: chance(20))
        if chance(50), let volume = pick(world.volumes.filter { $0.account != account }) {
            last = "\(account) tries a volume of \(volume.account)"
            let absent = Self.absent(volume.id)
            for (theirs, nothing) in zip(attempts(onVolume: volume.id, context), attempts(onVolume: absent, context)) {
                try looksAbsent(theirs, nothing, .invalidVolumeID)
            }
            try describe(volume, absent, account, context)
        } else if let snapshot = pick(world.snapshots.filter { $0.account != account }) {
            last = "\(account) tries a snapshot of \(snapshot.account)"
            let absent = Self.absent(snapshot.id)
            for (theirs, nothing) in zip(
                attempts(onSnapshot: snapshot.id, context),
                attempts(onSnapshot: absent, context)
            ) {
                try looksAbsent(theirs, nothing, .invalidSnapshotID)
            }
        }
    }

    /// Another's volume: who was granted it learns what it needs to read it, and no more.
    private func describe(_ volume: World.Volume, _ absent: [UInt8], _ account: AccountID, _ context: CallContext)
        throws
    {
        let result = server.call(server.service.describeVolume, .init(volumeID: volume.id), context)
        guard world.permits(.use, by: volume.account, volume.id, nil, to: account) else {
            let nothing = server.call(server.service.describeVolume, .init(volumeID: absent), context)
            return try looksAbsent(error(result), error(nothing), .invalidVolumeID)
        }
        let told = try succeeds(result).volume
        try check(
            told?.volumeID == volume.id && told?.account == volume.account.name
                && told?.size == UInt64(volume.sectors * 512),
            "another volume"
        )
        try check(
            told?.sourceSnapshotID == [] && told?.affinity == [] && told?.attachmentGeneration == 0,
            "what is the owner's alone is told"
        )
    }

    private func looksAbsent(_ theirs: ServiceError?, _ nothing: ServiceError?, _ code: ServiceError.Code) throws {
        try check(
            theirs != nil && theirs == nothing && theirs?.code == code,
            "\(theirs.map(String.init(describing:)) ?? "answered")"
        )
    }

    private func error<Value>(_ result: Result<Value, ServiceError>) -> ServiceError? {
        if case .failure(let error) = result { return error }
        return nil
    }

    /// What any resource can be named in.
    private func attempts(on target: Wire.Target, _ context: CallContext) -> [ServiceError?] {
        let (server, service) = (server, server.service)
        var upload = Wire.UploadBlockRequest(target: target)
        let bytes = [UInt8](repeating: 7, count: 512)
        upload.blocks = [ServiceHarness.block(bytes, at: 0)]
        var grant = Wire.Grant(resource: target)
        (grant.grantee, grant.permission) = ("dan", .export)
        let range = Wire.ByteRange(offset: 0, length: 512)
        return [
            error(server.upload(upload, bytes, context)),
            error(server.call(service.discard, .init(target: target, ranges: [range]), context)),
            error(server.call(service.updateTags, .init(target: target), context)),
            error(server.call(service.createGrant, Wire.CreateGrantRequest(grant: grant), context)),
            error(server.call(service.getUsage, Wire.GetUsageRequest(targets: [target]), context)),
        ]
    }

    private func attempts(onVolume id: [UInt8], _ context: CallContext) -> [ServiceError?] {
        let (server, target) = (server, Wire.Target(target: .volumeID(id)))
        let service = server.service
        let range = Wire.ByteRange(offset: 0, length: 512)
        return attempts(on: target, context) + [
            error(server.call(service.flush, .init(volumeID: id), context)),
            error(server.call(service.writeZeroes, .init(target: target, ranges: [range]), context)),
            error(server.call(service.attachVolume, .init(volumeID: id), context)),
            error(server.call(service.resizeVolume, .init(volumeID: id, size: 32 << 20), context)),
            error(server.call(service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: id), context)),
            error(server.call(service.createSnapshots, Wire.CreateSnapshotsRequest(volumeIDs: [id]), context)),
            error(server.call(service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: id), context)),
            error(
                server.call(service.getUsage, Wire.GetUsageRequest(targets: [target], freedByDeletion: true), context)
            ),
            error(server.call(service.queryChunks, Wire.QueryChunksRequest(volumeID: id), context)),
        ]
    }

    private func attempts(onSnapshot id: [UInt8], _ context: CallContext) -> [ServiceError?] {
        let (server, target) = (server, Wire.Target(target: .snapshotID(id)))
        let service = server.service
        return attempts(on: target, context) + [
            error(server.call(service.snapshotProgress, .init(target: .snapshotID(id), percent: 100), context)),
            error(server.call(service.missingBlocks, .init(target: .snapshotID(id)), context)),
            error(server.call(service.deleteSnapshot, Wire.DeleteSnapshotRequest(snapshotID: id), context)),
        ]
    }
}
