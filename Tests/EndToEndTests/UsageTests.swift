import CairnCore
import CairnWire
import Testing

/// SPEC R2: what data takes, exactly.
@Suite(.serialized, .server(shards: 3, "lease-seconds=1"))
struct UsageTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536

    private func usage(
        _ caller: Caller,
        _ targets: [Wire.Target.Target] = [],
        freed: Bool = false,
        affinity: [UInt8] = []
    ) async throws -> Wire.GetUsageResponse {
        try await caller.call(
            Wire.GetUsageRequest(targets: targets.map(\.wire), freedByDeletion: freed, affinity: affinity)
        ).message
    }

    @Test(
        "R2: logical, unique and stored bytes of an account, by its volumes and snapshots: each distinct chunk counts once"
    )
    func account() async throws {
        let caller = try await server.connect(freshAccount())
        let empty = try await usage(caller)
        #expect(empty.total?.uniqueBytes ?? 0 == 0)
        let key = Array("one shard".utf8)
        let one = try await caller.createVolume(affinity: key).volumeID
        let bytes = Content.noise(1, 8 * 65536)
        try await caller.upload(one, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(one).snapshotID
        let other = try await caller.createVolume(affinity: key).volumeID
        // Half of it again, and something new that packs well.
        try await caller.upload(
            other,
            .plain(0, Array(bytes[0..<4 * 65536])),
            .plain(8 * chunk, Content.text(2, 65536))
        )
        try await caller.upload(one, .plain(0, Content.noise(3, 65536)))
        let answer = try await usage(
            caller,
            [.volumeID(one), .snapshotID(snapshot), .volumeID(other)]
        )
        #expect(answer.each.count == 3)
        #expect(answer.each.map(\.uniqueBytes) == [8 * chunk, 8 * chunk, 5 * chunk])
        #expect(answer.each.map(\.logicalBytes) == [1 << 20, 1 << 20, 1 << 20])
        // 8 of noise, one that replaced another, one of text.
        let total = try #require(answer.total)
        #expect(total.uniqueBytes == 10 * chunk)
        #expect(total.logicalBytes == 3 << 20)
        #expect(total.storedBytes >= 9 * chunk)
        #expect(total.storedBytes < 9 * chunk + chunk / 2)
        let all = try #require(try await usage(caller).total)
        #expect(all.uniqueBytes == 10 * chunk)
        #expect(all.storedBytes == total.storedBytes)
        // Two volumes and a snapshot; the initial ones do not count.
        #expect(all.logicalBytes == 3 << 20)
        let described = try await caller.call(Wire.DescribeAccountRequest()).message
        #expect(described.usage?.uniqueBytes == all.uniqueBytes)
        #expect(described.usage?.storedBytes == all.storedBytes)
        #expect(described.volumes == 2)
        #expect(described.snapshots == 1)
    }

    @Test("R2, S8: what deleting a set would free is what deleting it frees, to the byte")
    func freed() async throws {
        let caller = try await server.connect(freshAccount())
        let key = Array("set".utf8)
        let volume = try await caller.createVolume(affinity: key).volumeID
        try await caller.upload(volume, .plain(0, Content.noise(10, 16 * 65536)))
        let first = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(volume, .plain(0, Content.noise(11, 3 * 65536)))
        let second = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(
            volume,
            .plain(0, Content.noise(12, 65536))
        )
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: first).volumeID
        try await caller.upload(clone, .plain(15 * chunk, Content.noise(14, 65536)))
        // The clone holds all of `first`; `second` alone holds 1 chunk that the volume replaced, and shares 2 with it.
        var expected: [([Wire.Target.Target], UInt64)] = [
            ([.snapshotID(first)], 0), ([.snapshotID(second)], chunk), ([.volumeID(clone)], chunk),
            ([.snapshotID(first), .volumeID(clone)], 4 * chunk),
        ]
        for (targets, bytes) in expected {
            let answer = try await usage(caller, targets, freed: true)
            #expect(answer.freedBytes == bytes, "\(targets)")
        }
        // Deleted, one set after the other: the account's unique bytes fall by what was told.
        expected = [([.snapshotID(second)], 0), ([.volumeID(clone), .snapshotID(first)], 0), ([.volumeID(volume)], 0)]
        for (targets, _) in expected {
            let before = try #require(try await usage(caller).total).uniqueBytes
            let told = try await usage(caller, targets, freed: true).freedBytes
            for target in targets {
                switch target {
                case .volumeID(let id): try await caller.deleteVolume(id)
                case .snapshotID(let id): try await caller.deleteSnapshot(id)
                default: break
                }
            }
            try await eventually("\(told) of \(before) bytes are freed") {
                try await usage(caller).total.map { $0.uniqueBytes + told } == before
            }
        }
        #expect(try await usage(caller).total?.uniqueBytes == 0)
        try await eventually("what is stored is freed") { try await usage(caller).total?.storedBytes == 0 }
    }

    @Test("R2, V10: what an affinity key would have saved: chunks that lie on several shards")
    func affinity() async throws {
        let caller = try await server.connect(freshAccount())
        let bytes = Content.noise(20, 6 * 65536)
        var byShard: [ShardIndex: [UInt8]] = [:]
        while byShard.count < 2 {
            let volume = try await caller.createVolume().volumeID
            if byShard.updateValue(volume, forKey: UUID128(bytes: volume)!.shard) != nil {
                byShard[UUID128(bytes: volume)!.shard] = volume
            }
        }
        let volumes = byShard.values.prefix(2).map { $0 }
        for volume in volumes { try await caller.upload(volume, .plain(0, bytes)) }
        let apart = try await usage(caller, volumes.map { .volumeID($0) }, affinity: Array("together".utf8))
        #expect(apart.affinitySavingsBytes == 6 * chunk)
        let key = Array("together".utf8)
        let together = [
            try await caller.createVolume(affinity: key).volumeID,
            try await caller.createVolume(affinity: key).volumeID,
        ]
        let other = Content.noise(21, 6 * 65536)
        for volume in together { try await caller.upload(volume, .plain(0, other)) }
        let saved = try await usage(caller, together.map { .volumeID($0) }, affinity: key)
        #expect(saved.affinitySavingsBytes == 0)
    }

    @Test("R2, C2, D5: usage is told of one's own only; a target that is not there names itself")
    func foreign() async throws {
        let (caller, other) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let (mine, foreign) = (try await caller.createVolume().volumeID, try await other.createVolume().volumeID)
        try await other.upload(foreign, .plain(0, Content.noise(30, 65536)))
        let missing = UUID128.random(shard: UUID128(bytes: foreign)!.shard).bytes
        var answers: Set<CallError> = []
        for target in [foreign, missing] {
            answers.insert(
                try await failure { try await usage(caller, [.volumeID(mine), .volumeID(target)], freed: true) }
            )
        }
        #expect(answers.count == 1, "\(answers)")
        #expect(answers.first?.reason == .invalidVolumeID && answers.first?.blockIndex == 1, "\(answers)")
        try await expectFailure(.invalidSnapshotID, block: 2) {
            try await usage(caller, [.volumeID(mine), .volumeID(mine), .snapshotID(missing)])
        }
        #expect(try await usage(caller).total?.uniqueBytes == 0)
    }

    @Test(
        "R2, S3, U7: of a LOCAL volume, of snapshots in progress, and of leased chunks, which stay when a set is deleted"
    )
    func leased() async throws {
        let caller = try await server.connect(freshAccount())
        let key = Array("leased".utf8)
        let local = try await caller.call(
            Wire.CreateVolumeRequest(size: 1 << 20, chunkSize: 65536, kind: .local, affinity: key)
        ).message.volumeID
        let first = try await caller.createSnapshot(local).snapshotID
        let bytes = Content.noise(40, 4 * 65536)
        try await caller.upload(to: .snapshotID(first), [.plain(0, bytes)], progress: 100)
        let open = try await caller.createSnapshot(local).snapshotID
        let new = Content.noise(41, 2 * 65536)
        try await caller.upload(snapshot: open, .plain(0, new))
        let each = try await usage(caller, [.volumeID(local), .snapshotID(first), .snapshotID(open)]).each
        // The volume's own data is the client's.
        #expect(
            each.map(\.uniqueBytes) == [0, 4 * chunk, 4 * chunk]
                && each.map(\.logicalBytes) == [1 << 20, 1 << 20, 1 << 20]
        )
        #expect(try await usage(caller, [.snapshotID(open)], freed: true).freedBytes == 2 * chunk)
        let all: [Wire.Target.Target] = [.volumeID(local), .snapshotID(first), .snapshotID(open)]
        #expect(try await usage(caller, all, freed: true).freedBytes == 6 * chunk)
        // One of the snapshot's chunks is leased; so is one that nothing else has.
        let tokens = [Content.token(Array(new[0..<65536]))]
        _ = try await caller.call(Wire.RenewLeaseRequest(tokens: tokens, leaseSeconds: 3600))
        try await caller.stage([Content.noise(42, 65536)], leaseSeconds: 3600, near: local)
        #expect(try await usage(caller, all, freed: true).freedBytes == 5 * chunk)
        #expect(try await usage(caller).total?.uniqueBytes == 7 * chunk)
        try await caller.deleteVolume(local, cancelling: true)
        try await caller.deleteSnapshot(first)
        try await eventually("all but the leased is freed") { try await usage(caller).total?.uniqueBytes == 2 * chunk }
        _ = try await caller.call(Wire.ReleaseLeaseRequest(tokens: tokens + [Content.token(Content.noise(42, 65536))]))
        try await eventually("the leased is freed") { try await usage(caller).total?.storedBytes == 0 }
    }
}
