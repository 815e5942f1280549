import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Foundation
import Testing

@testable import CairnService

@Suite struct VolumeAndSnapshotTests {
    @Test("V1, V2: a volume comes with a complete initial snapshot of version 1; sizes are checked")
    func createVolume() throws {
        let harness = try ServiceHarness()
        let created = try harness.createVolume()
        #expect(created.size == 4 << 20 && created.dataVersion == 2 && created.chunkSize == 65536)
        let snapshot = try harness.call(
            harness.service.describeSnapshot,
            Wire.DescribeSnapshotRequest(target: .snapshotID(created.initialSnapshotID))
        ).snapshot
        #expect(snapshot?.state == .complete && snapshot?.dataVersion == 1 && snapshot?.volumeID == created.volumeID)
        let sizes: [UInt64] = [512, (1 << 20) + 1, (64 << 40) + 512]
        for size in sizes {
            let error = #expect(throws: ServiceError.self) {
                try harness.createVolume(Wire.CreateVolumeRequest(size: size))
            }
            #expect(error?.code == .invalidVolumeSize)
        }
    }

    @Test("S1, S2, V4: a snapshot stays as it was, and a clone goes its own way")
    func snapshotsAndClones() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let first = noise(131072, seed: 1)
        let second = noise(65536, seed: 2)
        try harness.write(first, at: 0, to: volume)
        let snapshot = try harness.call(harness.service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: volume))
        #expect(snapshot.state == .complete && snapshot.dataVersion == 2)
        try harness.write(second, at: 0, to: volume)
        let clone = try harness.createVolume(Wire.CreateVolumeRequest(size: 8 << 20, snapshotID: snapshot.snapshotID))
            .volumeID
        try harness.write(second, at: 65536, to: clone)
        let rest = Array(first[65536...])
        #expect(try harness.read(.snapshotID(snapshot.snapshotID), 0, 131072) == first)
        #expect(try harness.read(.snapshotToken(snapshot.snapshotToken), 0, 131072) == first)
        #expect(try harness.read(.volumeID(volume), 0, 131072) == second + rest)
        #expect(try harness.read(.volumeID(clone), 0, 131072) == Array(first[..<65536]) + second)
        #expect(try harness.read(.volumeID(clone), 4 << 20, 65536).allSatisfy { $0 == 0 })
        // V9: the snapshot outlives its volume, and S8: the clone outlives the snapshot.
        _ = try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: volume))
        #expect(try harness.read(.snapshotID(snapshot.snapshotID), 0, 131072) == first)
        _ = try harness.call(
            harness.service.deleteSnapshot,
            Wire.DeleteSnapshotRequest(snapshotID: snapshot.snapshotID)
        )
        #expect(try harness.read(.volumeID(clone), 0, 131072) == Array(first[..<65536]) + second)
        let error = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: volume))
        }
        #expect(error == .noSuchVolume)
    }

    @Test("S6: the seal is what the data says, whatever way it was written")
    func seal() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume(Wire.CreateVolumeRequest(size: (1 << 20) + 512)).volumeID
        var content = [UInt8](repeating: 0, count: (1 << 20) + 512)
        func write(_ bytes: [UInt8], _ offset: Int) throws {
            try harness.write(bytes, at: UInt64(offset), to: volume)
            content.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
        try write(noise(300_032, seed: 3), 512)
        try write(noise(512, seed: 4), 1 << 20)
        try write([UInt8](repeating: 0, count: 65536), 131072)
        for part in 0..<20 { try write(noise(512, seed: UInt64(part)), 65536 + part * 1024) }
        let snapshot = try harness.call(harness.service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: volume))
            .snapshotID
        try harness.write(noise(512, seed: 99), at: 65536, to: volume)
        var seal = SealBuilder(size: UInt64(content.count), chunkSize: ChunkSize(bytes: 65536)!)
        for start in stride(from: 0, to: content.count, by: 65536) {
            let chunk = Array(content[start..<min(start + 65536, content.count)])
            seal.add(chunk.withUnsafeBytes { SHA256.hash($0, padding: 65536 - chunk.count) })
        }
        let expected = seal.finish().bytes
        let deadline = Date() + 20
        var found: Wire.Seal?
        while Date() < deadline, found?.pending ?? true {
            found = try harness.call(harness.service.describeSnapshot, .init(target: .snapshotID(snapshot))).snapshot?
                .seal
            Thread.sleep(forTimeInterval: 0.02)
        }
        #expect(found?.value == expected)
        #expect(try harness.read(.snapshotID(snapshot), 0, UInt64(content.count)) == content)
    }

    @Test("C2: a foreign volume or snapshot answers as a missing one does")
    func foreign() throws {
        let harness = try ServiceHarness()
        let created = try harness.createVolume()
        let missing = VolumeID(.random(shard: ShardIndex(0))).bytes
        for id in [created.volumeID, missing, VolumeID(.random(shard: ShardIndex(900))).bytes, [1, 2, 3]] {
            let error = #expect(throws: ServiceError.self) {
                try harness.call(harness.service.describeVolume, .init(volumeID: id), as: ServiceHarness.bob)
            }
            #expect(error == .noSuchVolume)
        }
        for id in [created.initialSnapshotID, missing] {
            let error = #expect(throws: ServiceError.self) {
                try harness.call(harness.service.deleteSnapshot, .init(snapshotID: id), as: ServiceHarness.bob)
            }
            #expect(error == .noSuchSnapshot)
        }
    }

    @Test("C2: a foreign volume or snapshot costs the lookups that a missing one costs")
    func foreignLookups() throws {
        let harness = try ServiceHarness(shards: 1)
        let created = try harness.createVolume()
        let shard = harness.store.shards[0]
        func lookups(_ body: (ReadView) throws(ServiceError) -> Void) -> Int {
            let view = shard.makeView()
            #expect(throws: ServiceError.self) { try body(view) }
            return view.lookups
        }
        let service = harness.service
        func volume(_ bytes: [UInt8]) -> Int {
            lookups { (view) throws(ServiceError) in
                _ = try service.volume(VolumeID(bytes: bytes)!, in: view, ServiceHarness.bob)
            }
        }
        func snapshot(_ bytes: [UInt8]) -> Int {
            lookups { (view) throws(ServiceError) in
                _ = try service.snapshot(SnapshotID(bytes: bytes)!, in: view, ServiceHarness.bob)
            }
        }
        let missing = UUID128.random(shard: ShardIndex(0)).bytes
        // Its owner looked at it just now, and so did a stranger: neither makes it faster to find.
        for _ in 0..<2 {
            _ = try harness.call(service.describeVolume, .init(volumeID: created.volumeID))
            #expect(volume(created.volumeID) == volume(missing) && volume(missing) == 1)
        }
        #expect(snapshot(created.initialSnapshotID) == snapshot(missing) && snapshot(missing) == 1)
    }

    @Test("C2, D5: with the lookups of grants it is the same, whichever grants there are")
    func foreignLookupsOfGrants() throws {
        struct Cost: Equatable {
            let lookups: Int
            let isLetIn: Bool
        }
        let harness = try ServiceHarness(shards: 3)
        let created = try harness.createVolume()
        let service = harness.service
        let (volume, snapshot) = (VolumeID(bytes: created.volumeID)!, SnapshotID(bytes: created.initialSnapshotID)!)
        let missing = UUID128.random(shard: volume.uuid.shard)
        func cost(_ body: (ReadView) throws(ServiceError) -> Void) -> Cost {
            let view = harness.store.shard(volume.uuid.shard).makeView()
            do throws(ServiceError) {
                try body(view)
                return Cost(lookups: view.lookups, isLetIn: true)
            } catch {
                #expect(error == .noSuchVolume || error == .noSuchSnapshot)
                return Cost(lookups: view.lookups, isLetIn: false)
            }
        }
        func costOfVolume(_ id: VolumeID, _ purpose: Service.Purpose) -> Cost {
            cost { (view) throws(ServiceError) in
                _ = try service.volume(id, for: purpose, in: view, ServiceHarness.bob)
            }
        }
        func costOfSnapshot(_ id: SnapshotID, _ purpose: Service.Purpose) -> Cost {
            cost { (view) throws(ServiceError) in
                _ = try service.snapshot(id, for: purpose, in: view, ServiceHarness.bob)
            }
        }
        let target = Wire.Target(target: .volumeID(created.volumeID))
        let grants: [Wire.Grant?] = [
            nil, Wire.Grant(resource: target, grantee: "carol", permission: .export),
            Wire.Grant(resource: target, grantee: "bob", permission: .use),
            Wire.Grant(resource: target, grantee: "bob", permission: .export),
            Wire.Grant(grantee: "bob", permission: .export),
        ]
        for (step, grant) in grants.enumerated() {
            if let grant { _ = try harness.call(service.createGrant, Wire.CreateGrantRequest(grant: grant)) }
            for purpose in [Service.Purpose.use, .export] {
                let isLetIn = step > 2 || (step == 2 && purpose == .use)
                // Its record; then USE and EXPORT of all that is the account's, of the volume, and of the snapshot.
                #expect(costOfVolume(volume, purpose) == Cost(lookups: 5, isLetIn: isLetIn), "\(step), \(purpose)")
                #expect(costOfVolume(VolumeID(missing), purpose) == Cost(lookups: 5, isLetIn: false))
                #expect(costOfSnapshot(snapshot, purpose) == Cost(lookups: 7, isLetIn: isLetIn), "\(step), \(purpose)")
                #expect(costOfSnapshot(SnapshotID(missing), purpose) == Cost(lookups: 7, isLetIn: false))
            }
        }
    }

    @Test("C5: a key gives the first answer again, and refuses other parameters, whichever shard they name")
    func idempotency() throws {
        let harness = try ServiceHarness(shards: 4)
        let key = Array("key".utf8)
        let first = try harness.createVolume(Wire.CreateVolumeRequest(size: 2 << 20, idempotencyKey: key))
        #expect(try harness.createVolume(Wire.CreateVolumeRequest(size: 2 << 20, idempotencyKey: key)) == first)
        for affinity in 0..<8 {
            let error = #expect(throws: ServiceError.self) {
                try harness.createVolume(.init(size: 2 << 20, affinity: [UInt8(affinity)], idempotencyKey: key))
            }
            #expect(error?.code == .idempotencyMismatch)
        }
        #expect(try harness.createVolume(.init(size: 2 << 20, idempotencyKey: key), as: ServiceHarness.bob) != first)
        let delete = Wire.DeleteVolumeRequest(volumeID: first.volumeID, idempotencyKey: Array("delete".utf8))
        _ = try harness.call(harness.service.deleteVolume, delete)
        _ = try harness.call(harness.service.deleteVolume, delete)
        let grant = Wire.Grant(grantee: "bob", permission: .use)
        _ = try harness.call(harness.service.createGrant, .init(grant: grant))
        let withdraw = Wire.DeleteGrantRequest(grant: grant, idempotencyKey: Array("withdraw".utf8))
        _ = try harness.call(harness.service.deleteGrant, withdraw)
        _ = try harness.call(harness.service.deleteGrant, withdraw)
        let again = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.deleteGrant, .init(grant: grant))
        }
        #expect(again?.code == .failedPrecondition)
    }

    @Test("V10: volumes of one affinity key share a shard")
    func affinity() throws {
        let harness = try ServiceHarness(shards: 8)
        let shards = try (0..<12).map { _ in
            try #require(VolumeID(bytes: harness.createVolume(.init(size: 1 << 20, affinity: [7])).volumeID)).uuid.shard
        }
        #expect(Set(shards).count == 1)
    }

    @Test("R1: listings go page by page over all shards, oldest first, each item once")
    func listing() throws {
        let harness = try ServiceHarness(shards: 4)
        let all = try (0..<25).map { number in
            try harness.createVolume(
                .init(size: 1 << 20, tags: [.init(key: "parity", value: number.isMultiple(of: 2) ? "even" : "odd")])
            ).volumeID
        }
        _ = try harness.createVolume(as: ServiceHarness.bob)
        var seen: [[UInt8]] = []
        var token: [UInt8] = []
        repeat {
            let page = try harness.call(harness.service.listVolumes, .init(page: .init(limit: 7, pageToken: token)))
            seen += page.volumes.map(\.volumeID)
            token = page.nextPageToken
        } while !token.isEmpty
        #expect(seen.count == 25 && Set(seen) == Set(all))
        let even = try harness.call(
            harness.service.listVolumes,
            .init(page: .init(limit: 1000), tags: [.init(key: "parity", value: "even")])
        )
        #expect(even.volumes.count == 13)
        let error = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.listVolumes, .init(page: .init(pageToken: [1, 2, 3])))
        }
        #expect(error?.code == .invalidArgument)
        let snapshots = try harness.call(harness.service.listSnapshots, .init(volumeID: all[0]))
        #expect(snapshots.snapshots.count == 1)
    }

    @Test(
        "R1: pages of volumes and snapshots with all the tags there can be end where an answer must; each comes once, in order"
    )
    func largePages() throws {
        let harness = try ServiceHarness(shards: 4)
        let tags = (0..<64).map {
            Wire.Tag(key: "\($0)" + String(repeating: "k", count: 120), value: String(repeating: "v", count: 256))
        }
        for _ in 0..<60 {
            let volume = try harness.createVolume(.init(size: 1 << 20, tags: tags)).volumeID
            _ = try harness.call(
                harness.service.createSnapshot,
                .init(volumeID: volume, description: String(repeating: "d", count: 1024), tags: tags)
            )
        }
        func pages<Item: Hashable>(_ page: ([UInt8]) throws -> (items: [Item], next: [UInt8], bytes: Int)) throws
            -> [[Item]]
        {
            var (pages, token): ([[Item]], [UInt8]) = ([], [])
            repeat {
                let page = try page(token)
                #expect(page.bytes < 1 << 20)
                pages.append(page.items)
                token = page.next
            } while !token.isEmpty
            return pages
        }
        let volumes = try pages { token in
            let page = try harness.call(harness.service.listVolumes, .init(page: .init(limit: 1000, pageToken: token)))
            return (page.volumes, page.nextPageToken, page.encode().count)
        }
        #expect(volumes.count > 2 && volumes.joined().count == 60 && Set(volumes.joined().map(\.volumeID)).count == 60)
        #expect(volumes.joined().map(\.createdAtMs) == volumes.joined().map(\.createdAtMs).sorted())
        let snapshots = try pages { token in
            let page = try harness.call(
                harness.service.listSnapshots,
                .init(page: .init(limit: 1000, pageToken: token))
            )
            return (page.snapshots, page.nextPageToken, page.encode().count)
        }
        #expect(snapshots.count > 2 && Set(snapshots.joined().map(\.snapshotID)).count == 120)
        #expect(snapshots.joined().count == 120)
        #expect(snapshots.joined().map(\.createdAtMs) == snapshots.joined().map(\.createdAtMs).sorted())
    }
}
