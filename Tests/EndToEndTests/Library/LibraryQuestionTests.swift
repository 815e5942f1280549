import CairnClient
import CairnCore
import CairnWire
import Testing

/// SPEC section 7 through the library. (R6: `LibrarySnapshotTests`.)
@Suite(.serialized, .server(shards: 3, "lease-seconds=1"))
struct LibraryQuestionTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536

    private func operatorClient(of other: ServerProcess? = nil) throws -> Client {
        let server = other ?? server
        let files = try server.issue(freshAccount("admin"), [.uri("cairn://admin")])
        return try Client(server: server.endpoint, credentials: files)
    }

    @Test("R1: volumes and snapshots are described, labelled, grown, and listed by label, volume and state")
    func listings() async throws {
        let client = try server.client(freshAccount())
        var (volumes, snapshots): ([VolumeID], [SnapshotID]) = ([], [])
        for index in 0..<5 {
            volumes.append(try await client.volume(index == 4 ? .local : .remote, tags: ["odd": "\(index % 2)"]).id)
            snapshots.append(try await client.createSnapshot(of: volumes[index], tags: ["n": "\(index)"]).id)
        }
        #expect(Set(try await client.volumes().all().map(\.id)) == Set(volumes))
        let odd = try await client.volumes(tags: ["odd": "1"], state: .available).all()
        #expect(odd.map(\.id) == [volumes[1], volumes[3]])
        #expect(try await client.snapshots(state: .inProgress).all().map(\.id) == [snapshots[4]])
        #expect(try await client.snapshots(of: volumes[2], tags: ["n": "2"]).all().map(\.id) == [snapshots[2]])
        #expect(try await client.snapshots(tags: ["n": "2", "m": "1"]).all().isEmpty)
        let tags = try await client.updateTags(
            of: .snapshot(snapshots[2]),
            set: ["m": "1", "n": "3"],
            remove: ["none"]
        )
        #expect(tags == ["m": "1", "n": "3"])
        #expect(try await client.updateTags(of: .volume(volumes[0]), set: ["a": "b"], remove: ["odd"]) == ["a": "b"])
        #expect(try await client.snapshots(tags: ["n": "3", "m": "1"]).all().map(\.id) == [snapshots[2]])
        #expect(try await client.describeVolume(volumes[0]).tags == ["a": "b"])
        try await expectFailure(.invalidArgument) {
            try await client.updateTags(of: .volume(volumes[0]), set: ["k": String(repeating: "v", count: 257)])
        }
        #expect(try await client.resizeVolume(volumes[0], to: (1 << 20) + 512) == (1 << 20) + 512)
        #expect(try await client.describeVolume(volumes[0]).size == (1 << 20) + 512)
        #expect(try await client.describeSnapshot(snapshots[0]).size == 1 << 20)
        for size in [1 << 20, (1 << 20) + 513] as [UInt64] {
            try await expectFailure(.invalidVolumeSize) { try await client.resizeVolume(volumes[0], to: size) }
        }
    }

    @Test("R1, V7: WriteZeroes and Discard of any ranges; what is there, what changed and what is missing is listed")
    func blocks() async throws {
        let client = try server.client(freshAccount())
        let (volume, bytes) = (try await client.volume().id, Content.noise(1, 1 << 20))
        try await client.write(bytes, to: .volume(volume))
        let before = try await client.createSnapshot(of: volume).id
        let zeros = [chunk..<2 * chunk, 3 * chunk + 512..<3 * chunk + 1024]
        let holes = [5 * chunk..<7 * chunk]
        try await client.writeZeroes(zeros.map(\.block), of: .volume(volume))
        try await client.discard(holes.map(\.block), of: .volume(volume))
        let expected = (zeros + holes).reduce(bytes) {
            $0.replacing(Int($1.lowerBound), [UInt8](repeating: 0, count: $1.count))
        }
        #expect(try await client.read(.volume(volume)) == expected)
        for bad in [BlockRange(offset: 100, length: 512), BlockRange(offset: 1 << 20, length: 512)] {
            let ranges = [BlockRange(offset: 0, length: 512), bad]
            try await expectFailure(.invalidArgument, block: 1) {
                try await client.writeZeroes(ranges, of: .volume(volume))
            }
            try await expectFailure(.invalidArgument, block: 1) {
                try await client.discard(ranges, of: .volume(volume))
            }
        }
        let listed = try await client.blocks(of: .volume(volume), in: (0..<8 * chunk).block).all()
        let data = listed.filter { $0.state == .data }
        #expect(data.map(\.offset) == [0, 2, 3, 4, 7].map { $0 * chunk })
        #expect(data[0].token == Array(bytes[0..<65536]).token)
        #expect(listed.filter { $0.state == .zeros }.map(\.offset) == [chunk])
        let after = try await client.createSnapshot(of: volume).id
        for newer in [BlockTarget.snapshot(after), .volume(volume)] {
            let changed = try await client.changedBlocks(from: .snapshot(before), to: newer).all()
            #expect(changed.map(\.offset) == [1, 3, 5, 6].map { $0 * chunk })
            #expect(changed.map(\.state) == [.zeros, .data, .hole, .hole])
        }
        let back = try await client.changedBlocks(from: .volume(volume), to: .snapshot(before)).all()
        #expect(back.map(\.token) == [1, 3, 5, 6].map { Array(bytes[$0 * 65536..<($0 + 1) * 65536]).token })
        // Of a volume that has nothing to do with it but its content.
        let other = try await client.volume().id
        try await client.write(expected, to: .volume(other))
        #expect(try await client.changedBlocks(from: .snapshot(after), to: .volume(other)).all().isEmpty)
        // In pages: more chunks than one answer lists.
        let large = try await client.volume(size: 36 << 20, chunkSize: 4096).id
        let empty = try await client.createSnapshot(of: large).id
        for part in 0..<9 as Range<UInt64> {
            try await client.write(Content.noise(40 + part, 4 << 20), at: part << 22, to: .volume(large))
        }
        let pages = [
            try await client.blocks(of: .volume(large)).all(),
            try await client.changedBlocks(from: .snapshot(empty), to: .volume(large)).all(),
        ]
        for blocks in pages {
            #expect(blocks.map(\.offset) == (0..<9216).map { $0 * 4096 } && blocks.allSatisfy { $0.token != nil })
        }
        let missing = BlockTarget.volume(VolumeID(.random(shard: ShardIndex(0))))
        try await expectFailure(.invalidVolumeID) {
            try await client.changedBlocks(from: .snapshot(before), to: missing).all()
        }
    }

    @Test("R2: usage of the account and of sets, and what deleting a set frees, to the byte; a missing one is named")
    func usage() async throws {
        let client = try server.client(freshAccount())
        let volume = try await client.volume(affinity: [1]).id
        try await client.write(Content.noise(2, 8 * 65536), to: .volume(volume))
        let snapshot = try await client.createSnapshot(of: volume).id
        try await client.write(Content.noise(3, 65536), to: .volume(volume))
        let report = try await client.usage(of: [.volume(volume), .snapshot(snapshot)], freed: true, affinity: [1])
        #expect(
            report.each.map(\.unique) == [8 * chunk, 8 * chunk] && report.each.map(\.logical) == [1 << 20, 1 << 20]
        )
        #expect(report.total.unique == 9 * chunk && report.total.stored == 9 * chunk)
        #expect(report.freedBytes == 9 * chunk && report.affinitySavingsBytes == 0)
        #expect(try await client.usage(of: [.snapshot(snapshot)], freed: true).freedBytes == chunk)
        try await expectFailure(.invalidSnapshotID, block: 1) {
            try await client.usage(of: [.volume(volume), .snapshot(SnapshotID(.random(shard: ShardIndex(0))))])
        }
        let account = try await client.describeAccount()
        #expect(account.usage.unique == 9 * chunk && account.usage.stored == 9 * chunk)
        #expect(account.volumes == 1 && account.snapshots == 1)
        try await client.deleteSnapshot(snapshot)
        try await eventually("a chunk is freed") { try await client.usage().total.unique == 8 * chunk }
        try await client.deleteVolume(volume)
        try await eventually("everything is freed") { try await client.usage().total.stored == 0 }
    }

    @Test("R2, V10: what an affinity key would have saved is what it saves: the chunks that two shards have both")
    func affinitySavings() async throws {
        let client = try server.client(freshAccount())
        let common = Content.noise(20, 4 * 65536)
        let own = [Content.noise(21, 2 * 65536), Content.noise(22, 2 * 65536)]
        let key = Array("together".utf8)
        func report(_ volumes: [VolumeID]) async throws -> UsageReport {
            for (volume, bytes) in zip(volumes, own) { try await client.write(common + bytes, to: .volume(volume)) }
            return try await client.usage(of: volumes.map { .volume($0) }, affinity: key)
        }
        var apart = [try await client.volume().id]
        for _ in 0..<100 where apart.count < 2 {
            let next = try await client.volume().id
            if next.uuid.shard != apart[0].uuid.shard { apart.append(next) }
        }
        try #require(apart.count == 2)
        let scattered = try await report(apart)
        #expect(scattered.total.unique == 12 * chunk && scattered.affinitySavingsBytes == 4 * chunk)
        let together = [try await client.volume(affinity: key).id, try await client.volume(affinity: key).id]
        let joined = try await report(together)
        #expect(joined.total.unique == 8 * chunk && joined.affinitySavingsBytes == 0)
    }

    @Test("R3: snapshots over the limit are QUOTA_EXCEEDED, also of a LOCAL volume and of a group; deleting makes room")
    func snapshotLimit() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        var limits = AccountLimits()
        limits.snapshots = 3
        try await operatorClient().setLimits(limits, of: account)
        // The snapshots that volumes begin with do not count.
        let group = [try await client.volume().id, try await client.volume().id]
        let local = try await client.volume(.local).id
        let first = try await client.createSnapshot(of: group[0]).id
        _ = try await client.createSnapshot(of: local)
        try await expectFailure(.quotaExceeded) { try await client.createSnapshots(of: group) }
        #expect(try await client.describeAccount().snapshots == 2)
        _ = try await client.createSnapshot(of: group[1])
        for volume in group + [local] {
            try await expectFailure(.quotaExceeded) { try await client.createSnapshot(of: volume) }
        }
        #expect(try await client.describeVolume(local).dataVersion == DataVersion(3))
        #expect(try await client.snapshots(of: local, state: .inProgress).all().count == 1)
        try await client.deleteSnapshot(first)
        _ = try await client.createSnapshot(of: group[0])
        #expect(try await client.describeAccount().snapshots == 3)
    }

    @Test("R3: uploads over the bytes in flight are THROTTLED; the library waits as told, and all of them end well")
    func bytesInFlight() async throws {
        // Of its own: what all of its calls came to is told.
        let server = try await ServerProcess.started()
        let account = freshAccount()
        var options = ClientOptions()
        options.callLimit = .seconds(120)
        let (client, patient) = (try server.client(account, .once), try server.client(account, options))
        let admin = try operatorClient(of: server)
        let target = BlockTarget.volume(try await patient.volume(size: 16 << 20).id)
        var limits = AccountLimits()
        limits.bytesInFlight = 1 << 20
        try await admin.setLimits(limits, of: account)
        let parts = (0..<16).map { Content.noise(UInt64(30 + $0), 786_432) }
        /// All at once; what they fail with.
        func upload(by client: Client) async -> [ClientError] {
            await withTaskGroup(of: ClientError?.self) { group in
                for (index, bytes) in parts.enumerated() {
                    group.addTask {
                        let block = BlockUpload.plain(UInt64(index) << 20, bytes)
                        do throws(ClientError) {
                            _ = try await client.upload([block], to: target)
                            return nil
                        } catch { return error }
                    }
                }
                return await group.reduce(into: [ClientError]()) { errors, error in
                    if let error { errors.append(error) }
                }
            }
        }
        let refusals = await upload(by: client)
        #expect(!refusals.isEmpty && refusals.allSatisfy { $0.answer?.reason == .throttled }, "\(refusals)")
        let waits = refusals.map { $0.answer?.retryAfter ?? .zero }
        #expect(waits.allSatisfy { $0 > .zero && $0 <= .seconds(1) }, "\(waits)")
        // The same for who waits as told: the server has turned its calls away as well, and each came in later.
        let refused = "cairn_calls_total{method=\"UploadBlock\",status=\"RESOURCE_EXHAUSTED\"}"
        let before = try sample(refused, in: try await admin.metrics())
        let failures = await upload(by: patient)
        #expect(failures.isEmpty, "\(failures)")
        let after = try sample(refused, in: try await admin.metrics())
        #expect(after > before)
        for (index, bytes) in parts.enumerated() {
            let start = UInt64(index) << 20
            #expect(try await patient.read(target, start..<start + 786_432) == bytes)
        }
        withExtendedLifetime(server) {}
    }

    @Test("R3: volumes' sizes together over the limit are QUOTA_EXCEEDED, of new ones, clones, and of those that grow")
    func logicalLimit() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        var limits = AccountLimits()
        limits.logicalBytes = 3 << 20
        try await operatorClient().setLimits(limits, of: account)
        let first = try await client.volume(size: 2 << 20)
        try await expectFailure(.quotaExceeded) { try await client.volume(size: 2 << 20) }
        try await expectFailure(.quotaExceeded) { try await client.clone(first.initialSnapshot) }
        try await expectFailure(.quotaExceeded) { try await client.resizeVolume(first.id, to: 4 << 20) }
        let second = try await client.volume().id
        #expect(try await client.describeAccount().usage.logical == 3 << 20)
        try await expectFailure(.quotaExceeded) { try await client.resizeVolume(second, to: (1 << 20) + 512) }
        try await client.deleteVolume(second)
        #expect(try await client.resizeVolume(first.id, to: 3 << 20) == 3 << 20)
        #expect(try await client.volumes().all().map(\.id) == [first.id])
    }

    @Test("R3: limits are QUOTA_EXCEEDED, or THROTTLED with the time to come again, after which the library comes in")
    func limits() async throws {
        let account = freshAccount()
        let (client, patient) = (try server.client(account, .once), try server.client(account))
        let admin = try operatorClient()
        var limits = AccountLimits()
        (limits.volumes, limits.storedBytes, limits.requestsPerSecond) = (1, 6 * chunk, 20)
        try await admin.setLimits(limits, of: account)
        #expect(try await patient.describeAccount().limits == limits)
        let volume = try await patient.volume().id
        try await expectFailure(.quotaExceeded) { try await patient.volume() }
        try await patient.write(Content.noise(4, 4 * 65536), to: .volume(volume))
        try await expectFailure(.quotaExceeded) {
            try await patient.write(Content.noise(5, 4 * 65536), at: 8 * chunk, to: .volume(volume))
        }
        // All at once: a busy machine might not come to 20 in a second one by one.
        let throttled = await withTaskGroup(of: CallError?.self) { group in
            for _ in 0..<200 {
                group.addTask {
                    do throws(ClientError) { _ = try await client.volumes().all() } catch { return error.answer }
                    return nil
                }
            }
            return await group.reduce(nil) { $0 ?? $1 }
        }
        #expect(throttled?.reason == .throttled && throttled?.isRetryable == true)
        let wait = try #require(throttled?.retryAfter)
        #expect(wait > .zero && wait <= .seconds(1))
        for _ in 0..<10 { #expect(try await patient.volumes().all().map(\.id) == [volume]) }
        let foreign = try await failure { try await patient.setLimits(nil, of: account) }
        #expect(foreign.reason == .permissionDenied)
        #expect(try await admin.accounts().all().contains(account))
        try await admin.setLimits(nil, of: account)
        _ = try await patient.volume()
    }

    @Test("R4: server facts, health and metrics")
    func facts() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let facts = try await client.serverFacts()
        #expect(facts.identity == account && facts.shardCount == 3 && !facts.storeID.isEmpty)
        #expect(facts.volumeSizes == 1 << 20...64 << 40 && facts.maxBlocksPerCall > 0 && facts.maxTokensPerCall > 0)
        #expect(!facts.version.isEmpty && !facts.checksumOptional)
        #expect(facts.startedAt < Timestamp(milliseconds: UnixTime.milliseconds))
        #expect(try await client.healthProblems() == [])
        let admin = try operatorClient()
        _ = try await client.volume()
        let text = try await admin.metrics()
        #expect(text.contains("cairn_calls_total{method=\"CreateVolume\",status=\"OK\"}"), "\(text.prefix(2000))")
        #expect(!text.contains(account))
    }

    @Test("R5: who attaches later fences the earlier one out, of every kind of write; reads go on")
    func attachments() async throws {
        let client = try server.client(freshAccount())
        let volume = try await client.volume().id
        let (target, range) = (BlockTarget.volume(volume), [BlockRange(offset: 0, length: 512)])
        let first = try await client.attachVolume(volume)
        _ = try await client.upload([.plain(0, Content.noise(6, 512))], to: target, attachment: first)
        let second = try await client.attachVolume(volume)
        #expect(second > first)
        #expect(try await client.describeVolume(volume).attachment == second)
        try await expectFailure(.staleAttachment) {
            try await client.upload([.zeros(0, 512)], to: target, attachment: first)
        }
        try await expectFailure(.staleAttachment) { try await client.writeZeroes(range, of: target, attachment: first) }
        try await expectFailure(.staleAttachment) { try await client.discard(range, of: target, attachment: first) }
        let never = Attachment(generation: second.generation + 1)
        try await expectFailure(.invalidArgument) { try await client.discard(range, of: target, attachment: never) }
        #expect(try await client.read(target, 0..<512) == Content.noise(6, 512))
        try await client.discard(range, of: target, attachment: second)
        #expect(try await client.read(target, 0..<512) == [UInt8](repeating: 0, count: 512))
    }
}
