import CairnCore
import CairnWire
import Testing

@testable import CairnClient

/// What each method of the client puts on the wire, and what it makes of the answer.
struct CallEncodingTests {
    static let volume = VolumeID(.random(shard: ShardIndex(0)))
    static let snapshot = SnapshotID(.random(shard: ShardIndex(0)))
    static let token = Fingerprint(bytes: [UInt8](repeating: 7, count: 32))!

    /// Makes a call that is answered by `answer`, and gives what was asked.
    static func asked<Request: WireRequest, Value: Sendable>(
        _: Request.Type,
        answer: Request.Response,
        options: ClientOptions = ClientOptions(),
        _ body: (Client) async throws -> Value
    ) async throws -> (request: Request, value: Value) {
        let caller = ScriptedCaller { method, _ in
            guard method == Request.method else { throw CallError(.unknownMethod) }
            return answer.encode()
        }
        let value = try await body(Client(caller: caller, options: options))
        return (try Request.decode(caller.calls.withLock { $0[0].message }), value)
    }

    @Test("R1: labels are set and removed in a fixed order, so that a repetition is the same call")
    func tags() async throws {
        let (request, tags) = try await Self.asked(
            Wire.UpdateTagsRequest.self,
            answer: .init(tags: [.init(key: "c", value: "3")])
        ) { try await $0.updateTags(of: .snapshot(Self.snapshot), set: ["b": "2", "a": "1"], remove: ["z", "y"]) }
        #expect(request.target?.target == .snapshotID(Self.snapshot.bytes))
        #expect(request.set.map(\.key) == ["a", "b"] && request.remove == ["y", "z"])
        #expect(tags == ["c": "3"])
    }

    @Test("R5, S9, S4: an upload carries attachment, version, progress and rebased")
    func upload() async throws {
        let bytes = Buffer(copying: [UInt8](repeating: 1, count: 512)).slice
        let (request, result) = try await Self.asked(
            Wire.UploadBlockRequest.self,
            answer: .init(writeVerifier: [1, 2], dataVersion: 4)
        ) { client in
            try await client.upload(
                [.init(offset: 512, length: 512, content: .plain(bytes))],
                to: .snapshot(Self.snapshot),
                dataVersion: DataVersion(4),
                attachment: Attachment(generation: 9),
                progress: 0,
                rebased: true,
                durability: .onFlush
            )
        }
        #expect(request.dataVersion == 4 && request.attachment == 9 && request.rebased)
        #expect(request.progress == Wire.Progress(percent: 0) && request.durability == .onFlush)
        #expect(result.writeVerifier == [1, 2] && result.dataVersion == DataVersion(4))
        let (plain, _) = try await Self.asked(Wire.UploadBlockRequest.self, answer: .init()) { client in
            try await client.upload([.init(offset: 0, length: 512, content: .hole)], to: .volume(Self.volume))
        }
        #expect(plain.progress == nil && plain.attachment == 0 && plain.dataVersion == 0 && !plain.rebased)
    }

    @Test("U4: the option's checksum in uploads, staged chunks and downloads; a block's own goes before it")
    func checksums() async throws {
        let bytes = [UInt8](repeating: 3, count: 4096)
        let slice = Buffer(copying: bytes).slice
        for algorithm in ChecksumAlgorithm.allCases {
            var options = ClientOptions()
            options.checksum = algorithm
            let expected = Checksum(algorithm, of: slice.bytes).wire
            let own = Checksum(.md5, value: [UInt8](repeating: 9, count: 16))
            let (upload, _) = try await Self.asked(Wire.UploadBlockRequest.self, answer: .init(), options: options) {
                try await $0.upload(
                    [
                        .init(offset: 0, length: 4096, content: .plain(slice)),
                        .init(offset: 4096, length: 4096, content: .plain(slice), checksum: own),
                        .init(offset: 8192, length: 8192, content: .lz4(slice), checksum: own),
                        .init(offset: 16384, length: 4096, content: .zeros),
                    ],
                    to: .volume(Self.volume)
                )
            }
            #expect(upload.blocks.map(\.checksum) == [expected, own.wire, own.wire, nil])
            let chunk = Wire.WrittenChunk(offset: 0, token: Self.token.bytes)
            let (stage, _) = try await Self.asked(
                Wire.UploadBlockRequest.self,
                answer: .init(chunks: [chunk]),
                options: options
            ) { try await $0.stage([slice], chunkSize: ChunkSize(bytes: 4096)!) }
            #expect(stage.blocks.map(\.checksum) == [expected])
            let (download, _) = try await Self.asked(
                Wire.DownloadBlockRequest.self,
                answer: .init(),
                options: options
            ) { try await $0.download([], from: .volume(Self.volume)) }
            #expect(download.checksumAlgorithm == algorithm.wire)
        }
    }

    @Test("S9: progress by ID and by token; no percentage is made up")
    func progress() async throws {
        let answer = Wire.SnapshotProgressResponse(state: .complete, percent: 100, seal: .init(value: Self.token.bytes))
        let (byID, result) = try await Self.asked(Wire.SnapshotProgressRequest.self, answer: answer) {
            try await $0.reportProgress(100, of: Self.snapshot, rebased: true)
        }
        #expect(byID.target == .snapshotID(Self.snapshot.bytes) && byID.percent == 100 && byID.rebased)
        #expect(result.state == .complete && result.seal == .value(Self.token))
        let (byToken, _) = try await Self.asked(Wire.SnapshotProgressRequest.self, answer: answer) {
            try await $0.reportProgress(7, ofToken: [1, 2, 3])
        }
        #expect(byToken.target == .snapshotToken([1, 2, 3]) && byToken.percent == 7 && !byToken.rebased)
        // The server refuses what is beyond 100: not the library.
        let (beyond, _) = try await Self.asked(Wire.SnapshotProgressRequest.self, answer: answer) {
            try await $0.reportProgress(101, of: Self.snapshot)
        }
        #expect(beyond.percent == 101)
        let error = await #expect(throws: ClientError.self) {
            try await Client(caller: ScriptedCaller { _, _ in [] }).reportProgress(-1, of: Self.snapshot)
        }
        #expect(error?.code == .invalidRequest)
    }

    @Test("U7: leases are whole seconds, never 0 by rounding")
    func leases() async throws {
        #expect(Leases.seconds(nil) == 0 && Leases.seconds(.milliseconds(1)) == 1 && Leases.seconds(.zero) == 1)
        #expect(Leases.seconds(.milliseconds(1500)) == 2 && Leases.seconds(.seconds(1 << 40)) == .max)
        let (renew, expiry) = try await Self.asked(
            Wire.RenewLeaseRequest.self,
            answer: .init(leaseExpiresAtMs: 77)
        ) { try await $0.renewLease(of: [Self.token], for: .seconds(60)) }
        #expect(renew.tokens == [Self.token.bytes] && renew.leaseSeconds == 60)
        #expect(expiry == Timestamp(milliseconds: 77))
        let (release, _) = try await Self.asked(Wire.ReleaseLeaseRequest.self, answer: .init()) {
            try await $0.releaseLease(of: [Self.token])
        }
        #expect(release.tokens == [Self.token.bytes])
    }

    @Test("D5: grants on a snapshot, a volume and the account")
    func grants() async throws {
        for (resource, wire) in [
            (GrantResource.account, nil), (.volume(Self.volume), .volumeID(Self.volume.bytes)),
            (.snapshot(Self.snapshot), .snapshotID(Self.snapshot.bytes)),
        ] as [(GrantResource, Wire.Target.Target?)] {
            let answer = Wire.Grant(
                resource: wire.map { Wire.Target(target: $0) },
                grantee: "bob",
                permission: .export,
                createdAtMs: 5,
                grantor: "alice"
            )
            let key = IdempotencyKey([1, 2, 3])!
            let (create, made) = try await Self.asked(Wire.CreateGrantRequest.self, answer: .init(grant: answer)) {
                try await $0.createGrant(.export, on: resource, to: "bob", key: key)
            }
            #expect(create.grant?.resource?.target == wire && create.grant?.permission == .export)
            #expect(create.idempotencyKey == [1, 2, 3])
            #expect(made.resource == resource && made.grantee == "bob" && made.permission == .export)
            #expect(made.grantor == "alice")
            let (delete, _) = try await Self.asked(Wire.DeleteGrantRequest.self, answer: .init()) {
                try await $0.deleteGrant(.use, on: resource, to: "bob", key: key)
            }
            #expect(delete.idempotencyKey == [1, 2, 3])
            #expect(delete.grant?.resource?.target == wire && delete.grant?.permission == .use)
        }
    }

    @Test("R2: what was not asked for is not told as 0")
    func usage() async throws {
        let answer = Wire.GetUsageResponse(total: .init(logicalBytes: 3), each: [.init(uniqueBytes: 2)], freedBytes: 1)
        let (request, usage) = try await Self.asked(Wire.GetUsageRequest.self, answer: answer) {
            try await $0.usage(of: [.volume(Self.volume)], freed: true)
        }
        #expect(request.freedByDeletion && request.affinity.isEmpty && request.targets.count == 1)
        #expect(usage.total.logical == 3 && usage.each[0].unique == 2)
        #expect(usage.freedBytes == 1 && usage.affinitySavingsBytes == nil)
    }

    @Test("R1: differences and missing chunks go page by page")
    func pages() async throws {
        let caller = ScriptedCaller { method, message in
            switch method {
            case .listChangedBlocks:
                let request = try Wire.ListChangedBlocksRequest.decode(message)
                let page = request.page?.pageToken ?? []
                return Wire.ListChangedBlocksResponse(
                    blocks: page == [2] ? [] : [.init(offset: UInt64(page.count) * 4096, length: 4096, state: .hole)],
                    nextPageToken: page.isEmpty ? [2] : page == [2] ? [2, 3] : []
                ).encode()
            default: throw CallError(.unknownMethod)
            }
        }
        let blocks = try await Client(caller: caller)
            .changedBlocks(from: .snapshot(Self.snapshot), to: .volume(Self.volume)).all()
        #expect(blocks.map(\.offset) == [0, 8192], "an empty page in between does not end the listing")
        let first = try Wire.ListChangedBlocksRequest.decode(caller.calls.withLock { $0[0].message })
        #expect(first.older?.target == .snapshotID(Self.snapshot.bytes))
        #expect(first.newer?.target == .volumeID(Self.volume.bytes))
    }

    @Test("C5: keys have 1 to 64 bytes, and a call carries the one that it is given")
    func keys() async throws {
        #expect(IdempotencyKey([]) == nil && IdempotencyKey([UInt8](repeating: 1, count: 65)) == nil)
        #expect(IdempotencyKey().bytes.count == 16 && IdempotencyKey() != IdempotencyKey())
        let key = IdempotencyKey(Array("nightly".utf8))!
        let (request, _) = try await Self.asked(Wire.DeleteSnapshotRequest.self, answer: .init()) {
            try await $0.deleteSnapshot(Self.snapshot, key: key)
        }
        #expect(request.idempotencyKey == key.bytes)
    }

    @Test("R3, R4: limits go as they are; health is told by its problems")
    func operation() async throws {
        var limits = AccountLimits()
        (limits.volumes, limits.bytesInFlight) = (3, 9)
        let (set, _) = try await Self.asked(Wire.SetAccountLimitsRequest.self, answer: .init()) {
            try await $0.setLimits(limits, of: "acme")
        }
        #expect(set.account == "acme" && set.limits == limits.wire && AccountLimits(limits.wire) == limits)
        let (_, well) = try await Self.asked(Wire.GetHealthRequest.self, answer: .init(healthy: true)) {
            try await $0.healthProblems()
        }
        let (_, ill) = try await Self.asked(Wire.GetHealthRequest.self, answer: .init()) {
            try await $0.healthProblems()
        }
        #expect(well.isEmpty && !ill.isEmpty)
    }
}
