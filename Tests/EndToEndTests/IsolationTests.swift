import CairnCore
import CairnWire
import Foundation
import Testing

/// SPEC C2 and C3: what an account cannot see might as well not exist.
@Suite(.serialized, .server())
struct IsolationTests {
    private let server = ServerProcess.shared

    /// Every call that names a volume or snapshot.
    private static func calls(volume: [UInt8], snapshot: [UInt8], token: [UInt8]) -> [(
        String, UInt32, [UInt8], [UInt8]
    )] {
        let sector = Upload.plain(0, Content.noise(70, 512))
        let range = [Wire.ByteRange(offset: 0, length: 512)]
        let targets: [(String, Wire.Target)] = [
            ("volume", .init(target: .volumeID(volume))), ("snapshot", .init(target: .snapshotID(snapshot))),
            ("token", .init(target: .snapshotToken(token))),
        ]
        var calls: [(String, UInt32, [UInt8], [UInt8])] = []
        func add<Request: WireRequest>(_ name: String, _ request: Request, _ payload: [UInt8] = []) {
            calls.append(("\(Request.messageName) \(name)", UInt32(Request.method.rawValue), request.encode(), payload))
        }
        add("from", Wire.CreateVolumeRequest(snapshotID: snapshot))
        add("from, keyed", Wire.CreateVolumeRequest(snapshotID: snapshot, idempotencyKey: Array("k1".utf8)))
        add("", Wire.DeleteVolumeRequest(volumeID: volume))
        add("keyed", Wire.DeleteVolumeRequest(volumeID: volume, idempotencyKey: Array("k2".utf8)))
        add("cancelling", Wire.DeleteVolumeRequest(volumeID: volume, cancelSnapshots: true))
        add("", Wire.DescribeVolumeRequest(volumeID: volume))
        add("", Wire.ResizeVolumeRequest(volumeID: volume, size: 4 << 20))
        add("wrong size", Wire.ResizeVolumeRequest(volumeID: volume, size: 1))
        add("", Wire.AttachVolumeRequest(volumeID: volume))
        add("", Wire.CreateSnapshotRequest(volumeID: volume))
        add("keyed", Wire.CreateSnapshotRequest(volumeID: volume, idempotencyKey: Array("k3".utf8)))
        add("described", Wire.CreateSnapshotRequest(volumeID: volume, description: String(repeating: "x", count: 2000)))
        add("", Wire.CreateSnapshotsRequest(volumeIDs: [volume]))
        add("keyed", Wire.CreateSnapshotsRequest(volumeIDs: [volume], idempotencyKey: Array("k4".utf8)))
        add("local", Wire.CreateVolumeRequest(snapshotID: snapshot, kind: .local))
        add("smaller", Wire.CreateVolumeRequest(size: 512, snapshotID: snapshot))
        add("other chunk size", Wire.CreateVolumeRequest(snapshotID: snapshot, chunkSize: 4096))
        add("", Wire.DeleteSnapshotRequest(snapshotID: snapshot))
        add("keyed", Wire.DeleteSnapshotRequest(snapshotID: snapshot, idempotencyKey: Array("k5".utf8)))
        add("", Wire.DescribeSnapshotRequest(target: .snapshotID(snapshot)))
        add("token", Wire.DescribeSnapshotRequest(target: .snapshotToken(token)))
        add("", Wire.ListSnapshotsRequest(volumeID: volume))
        add("", Wire.SnapshotProgressRequest(target: .snapshotID(snapshot), percent: 100))
        add("token", Wire.SnapshotProgressRequest(target: .snapshotToken(token), percent: 50, rebased: true))
        add("too much", Wire.SnapshotProgressRequest(target: .snapshotID(snapshot), percent: 101))
        add("", Wire.MissingBlocksRequest(target: .snapshotID(snapshot)))
        add("token", Wire.MissingBlocksRequest(target: .snapshotToken(token)))
        add("staging near", Wire.UploadBlockRequest(blocks: [sector.block], nearVolumeID: volume), sector.bytes)
        add("", Wire.FlushRequest(volumeID: volume))
        add("", Wire.QueryChunksRequest(tokens: [[UInt8](repeating: 1, count: 32)], volumeID: volume))
        add("", Wire.ListChangedBlocksRequest(older: targets[1].1, newer: targets[0].1))
        for (name, target) in targets {
            add(name, Wire.UploadBlockRequest(target: target, blocks: [sector.block]), sector.bytes)
            add("\(name), nothing", Wire.UploadBlockRequest(target: target, blocks: []))
            add(
                "\(name), at a version",
                Wire.UploadBlockRequest(target: target, dataVersion: 77, blocks: [sector.block]),
                sector.bytes
            )
            add(name, Wire.DownloadBlockRequest(target: target, ranges: range))
            add("\(name), no range", Wire.DownloadBlockRequest(target: target))
            add("\(name), at a version", Wire.DownloadBlockRequest(target: target, dataVersion: 77, ranges: range))
            add(name, Wire.ListBlocksRequest(target: target))
            add(name, Wire.ListDamageRequest(target: target))
            add(name, Wire.WriteZeroesRequest(target: target, ranges: range))
            add(name, Wire.DiscardRequest(target: target, ranges: range))
            add(name, Wire.UpdateTagsRequest(target: target, set: [.init(key: "a", value: "b")]))
            add(name, Wire.GetUsageRequest(targets: [target]))
            add("\(name), freed", Wire.GetUsageRequest(targets: [target], freedByDeletion: true, affinity: [1]))
            add("\(name), older", Wire.ListChangedBlocksRequest(older: target, newer: targets[0].1))
            add("\(name), newer", Wire.ListChangedBlocksRequest(older: targets[2].1, newer: target))
            for permission in [Wire.Permission.use, .export] {
                let grant = Wire.Grant(resource: target, grantee: "grantee", permission: permission)
                add("\(name) \(permission)", Wire.CreateGrantRequest(grant: grant))
                add("\(name) \(permission)", Wire.DeleteGrantRequest(grant: grant))
            }
        }
        return calls
    }

    /// Methods that name no volume or snapshot, or that a client answers.
    private static let others: Set<Wire.Method> = [
        .unspecified, .listVolumes, .renewLease, .releaseLease, .listGrants, .describeAccount, .setAccountLimits,
        .listAccounts, .getServerFacts, .getHealth, .getMetrics, .promptProgress, .startScrub, .getScrub,
    ]

    /// Another ID of the same shard, that nothing has.
    private static func missing(_ id: [UInt8]) -> [UInt8] { UUID128.random(shard: UUID128(bytes: id)!.shard).bytes }

    @Test("C2: for every call, another account's volume and snapshot get the very bytes that missing ones get")
    func sameAnswers() async throws {
        let owner = try await server.connect(freshAccount())
        let volume = try await owner.createVolume().volumeID
        try await owner.upload(volume, .plain(0, Content.noise(71, 65536)))
        let snapshot = try await owner.createSnapshot(volume)
        let before = try await owner.download(volume, 0..<1 << 20)
        let stranger = try await server.connect(freshAccount())
        // A token of a missing snapshot cannot be made up: one whose snapshot was deleted stands for it.
        let gone = try await owner.createSnapshot(volume)
        _ = try await owner.call(Wire.DeleteSnapshotRequest(snapshotID: gone.snapshotID))

        let foreign = Self.calls(volume: volume, snapshot: snapshot.snapshotID, token: snapshot.snapshotToken)
        let missing = Self.calls(
            volume: Self.missing(volume),
            snapshot: Self.missing(snapshot.snapshotID),
            token: gone.snapshotToken
        )
        let covered = Set(foreign.map { Wire.Method(rawValue: Int32($0.1)) })
        #expect(covered.union(Self.others) == Set(Wire.Method.allCases))
        #expect(covered.isDisjoint(with: Self.others))
        for (one, other) in zip(foreign, missing) {
            let existing = try await stranger.raw(method: one.1, one.2, payload: one.3)
            let absent = try await stranger.raw(method: other.1, other.2, payload: other.3)
            #expect(existing == absent, "\(one.0): \(CallError(status: existing.status, detail: existing.message))")
            if existing.status == 0 {
                #expect(one.0.contains("ListSnapshots"), "\(one.0) succeeded")
                #expect(existing.message.isEmpty)
            }
        }
        #expect(try await owner.download(volume, 0..<1 << 20) == before)
        #expect(try await owner.describeVolume(volume).size == 1 << 20)
    }

    @Test("C2: IDs of no shard, and of no length at all, get the same answer")
    func oddIDs() async throws {
        let stranger = try await server.connect(freshAccount())
        for id in [UUID128.random(shard: ShardIndex(999)).bytes, [], [1, 2, 3], [UInt8](repeating: 255, count: 17)] {
            #expect(try await failure { try await stranger.describeVolume(id) }.reason == .invalidVolumeID)
            #expect(try await failure { try await stranger.describeSnapshot(id) }.reason == .invalidSnapshotID)
            #expect(try await failure { try await stranger.upload(id, .zeros(0, 512)) }.reason == .invalidVolumeID)
        }
        let error = try await failure { try await stranger.download(.snapshotToken([1, 2, 3]), [0..<512]) }
        #expect(error.reason == .invalidSnapshotID)
    }

    @Test("C3: listings show an account its own volumes and snapshots only")
    func listings() async throws {
        let (one, other) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let mine = try await one.createVolume().volumeID
        _ = try await one.createSnapshot(mine)
        let theirs = try await other.createVolume().volumeID
        let page = try await one.call(Wire.ListVolumesRequest()).message
        #expect(page.volumes.map(\.volumeID) == [mine])
        #expect(try await other.call(Wire.ListVolumesRequest()).message.volumes.map(\.volumeID) == [theirs])
        let snapshots = try await other.call(Wire.ListSnapshotsRequest()).message.snapshots
        #expect(snapshots.allSatisfy { $0.volumeID == theirs })
        #expect(try await one.call(Wire.ListSnapshotsRequest()).message.snapshots.allSatisfy { $0.volumeID == mine })
    }

    @Test("C3: a page token of one account is refused to another, as one that nobody was given")
    func pageTokens() async throws {
        let (one, other) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        for _ in 0..<3 { _ = try await one.createVolume() }
        let token = try await one.call(Wire.ListVolumesRequest(page: .init(limit: 1))).message.nextPageToken
        #expect(!token.isEmpty)
        var errors: Set<CallError> = []
        for bad in [token, [1, 2, 3]] {
            errors.insert(
                try await failure {
                    try await other.call(Wire.ListVolumesRequest(page: .init(limit: 1, pageToken: bad)))
                }
            )
        }
        #expect(errors.count == 1 && errors.first?.reason == .invalidArgument, "\(errors)")
        #expect(errors.first?.text.contains("page_token") == true, "\(errors)")
    }

    @Test("C3: neither QueryChunks nor an upload by token tells what another account stores")
    func chunks() async throws {
        let (owner, stranger) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let key = Array("shared".utf8)
        let volume = try await owner.createVolume(affinity: key).volumeID
        let bytes = Content.noise(72, 65536)
        try await owner.upload(volume, .plain(0, bytes))
        let token = Content.token(bytes)
        let own = try await stranger.createVolume(affinity: key).volumeID
        // On every shard: the affinity key may lead the two accounts to different ones.
        var volumes = [own]
        for _ in 0..<12 { volumes.append(try await stranger.createVolume().volumeID) }
        for target in volumes + [[]] {
            #expect(
                try await stranger.call(Wire.QueryChunksRequest(tokens: [token], volumeID: target)).message.present == [
                    0
                ]
            )
        }
        let nobodys = Content.token(Content.noise(73, 65536))
        for target in volumes {
            var answers: Set<CallError> = []
            for asked in [token, nobodys] {
                let error = try await failure {
                    try await stranger.upload(target, .zeros(65536, 512), .token(0, asked))
                }
                let text = error.text.replacingOccurrences(of: Hex.encode(asked), with: "TOKEN")
                answers.insert(
                    CallError(error.reason, text, blockIndex: error.blockIndex, retryable: error.isRetryable)
                )
            }
            #expect(answers.count == 1, "\(answers)")
            #expect(answers.first?.reason == .invalidChunkToken && answers.first?.blockIndex == 1)
        }
        // The same bytes sent by both: each has its own, and one's deletion takes nothing from the other.
        try await stranger.upload(own, .plain(0, bytes))
        _ = try await owner.call(Wire.DeleteVolumeRequest(volumeID: volume))
        #expect(try await stranger.download(own, 0..<65536) == bytes)
        try await eventually("the owner's copy is let go") {
            try await owner.call(Wire.GetUsageRequest()).message.total?.uniqueBytes ?? 0 == 0
        }
        #expect(try await stranger.call(Wire.GetUsageRequest()).message.total?.uniqueBytes == 65536)
    }

    @Test("C3: every call that takes tokens answers to another account's chunks as it does to chunks that nobody has")
    func tokensOfOthers() async throws {
        let (owner, stranger) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let (stored, staged, mine) = (Content.noise(74, 65536), Content.noise(75, 65536), Content.noise(76, 65536))
        try await owner.upload(try await owner.createVolume().volumeID, .plain(0, stored))
        try await owner.stage([staged])
        let remote = try await stranger.createVolume().volumeID
        let local = try await stranger.createLocal().volumeID
        let open = try await stranger.createSnapshot(try await stranger.createLocal().volumeID).snapshotID
        try await stranger.upload(remote, .plain(0, mine))
        func calls(_ token: [UInt8]) -> [(String, UInt32, [UInt8])] {
            let known = Content.token(mine)
            let place = Wire.ChunkPlacement(offset: 0, token: token)
            let blocks = [Wire.UploadBlock(offset: 65536, length: 65536, source: .token(token))]
            func call<Request: WireRequest>(_ request: Request) -> (String, UInt32, [UInt8]) {
                (Request.messageName, UInt32(Request.method.rawValue), request.encode())
            }
            return [
                call(Wire.QueryChunksRequest(tokens: [known, token])),
                call(Wire.QueryChunksRequest(tokens: [token], volumeID: remote)),
                call(Wire.UploadBlockRequest(target: .init(target: .volumeID(remote)), blocks: blocks)),
                call(Wire.UploadBlockRequest(target: .init(target: .snapshotID(open)), blocks: blocks)),
                call(Wire.UploadBlockRequest(blocks: blocks)),
                call(Wire.CreateSnapshotRequest(volumeID: local, chunks: [place])),
                call(Wire.CreateSnapshotRequest(volumeID: local, chunkListTokens: [token])),
                call(Wire.RenewLeaseRequest(tokens: [known, token])),
                call(Wire.ReleaseLeaseRequest(tokens: [token])),
                call(
                    Wire.DownloadBlockRequest(
                        target: .init(target: .volumeID(remote)),
                        ranges: [.init(offset: 0, length: 131072)],
                        knownTokens: [token]
                    )
                ),
            ]
        }
        let nobodys = Content.token(Content.noise(77, 65536))
        for foreign in [Content.token(stored), Content.token(staged)] {
            for (one, other) in zip(calls(foreign), calls(nobodys)) {
                let existing = try await stranger.raw(method: one.1, one.2)
                let absent = try await stranger.raw(method: other.1, other.2)
                #expect(existing.status == absent.status, "\(one.0)")
                #expect(existing.payload == absent.payload, "\(one.0)")
                guard existing.status != 0 else {
                    // The times differ, and nothing else.
                    if one.0.contains("QueryChunks") {
                        let bits = try Wire.QueryChunksResponse.decode(existing.message).present
                        #expect(try bits == Wire.QueryChunksResponse.decode(absent.message).present)
                    } else if !one.0.contains("Lease") {
                        #expect(existing.message == absent.message, "\(one.0)")
                    }
                    continue
                }
                // An error repeats the token that it was asked about.
                var (mineOf, absentOf) = (
                    try Wire.ErrorDetail.decode(existing.message), try Wire.ErrorDetail.decode(absent.message)
                )
                mineOf.text = mineOf.text.replacingOccurrences(of: Hex.encode(foreign), with: "TOKEN")
                absentOf.text = absentOf.text.replacingOccurrences(of: Hex.encode(nobodys), with: "TOKEN")
                #expect(mineOf == absentOf, "\(one.0)")
            }
        }
        // Expected chunks are promises, not questions: what comes is what counts.
        let expecting = try await stranger.createSnapshot(local, expected: [.of(0, stored)]).snapshotID
        #expect(try await stranger.describeSnapshot(expecting).missing == 1)
        try await expectFailure(.failedPrecondition) { try await stranger.progress(expecting, 100) }
    }

    @Test("C3: a known token of another account's chunk brings nothing to a download")
    func knownTokens() async throws {
        let (owner, stranger) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let volume = try await owner.createVolume().volumeID
        let bytes = Content.noise(73, 65536)
        try await owner.upload(volume, .plain(0, bytes))
        let own = try await stranger.createVolume().volumeID
        let read = try await stranger.download(.volumeID(own), [0..<65536], known: [Content.token(bytes)])
        #expect(read.blocks.allSatisfy { $0.content == .hole(Wire.Empty()) })
    }
}
