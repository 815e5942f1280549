import CairnCore
import CairnStore
import CairnWire
import Testing

@testable import CairnService

/// What the service's model found about grants.
@Suite struct GrantLifeTests {
    private func grant(for target: Wire.Target.Target) -> Wire.Grant {
        var grant = Wire.Grant(resource: .init(target: target))
        (grant.grantee, grant.permission) = ("bob", .export)
        return grant
    }

    private func count(_ harness: ServiceHarness) throws -> Int {
        try harness.call(harness.service.listGrants, .init(page: .init(limit: 1000))).grants.count
    }

    @Test("D5, V9: the grants for snapshots that go with their volume go too; those for the ones that stay, stay")
    func deletedWithVolume() throws {
        let harness = try ServiceHarness()
        let created = try harness.createVolume(.init(size: 1 << 20, kind: .local))
        let pending = try harness.begin(created.volumeID).snapshotID
        let other = try harness.createVolume(.init(size: 1 << 20))
        let kept = try harness.begin(other.volumeID).snapshotID
        for id in [created.initialSnapshotID, pending, kept] {
            _ = try harness.call(
                harness.service.createGrant,
                Wire.CreateGrantRequest(grant: grant(for: .snapshotID(id)))
            )
        }
        _ = try harness.call(
            harness.service.deleteVolume,
            .init(volumeID: created.volumeID, cancelSnapshots: true)
        )
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: other.volumeID))
        #expect(try harness.eventually { try count(harness) == 1 })
        let left = try harness.call(harness.service.listGrants, .init()).grants
        #expect(left.first?.resource?.target == .snapshotID(kept))
    }

    @Test("C5, D5: CreateGrant said again gives its first answer, also when what was granted is gone")
    func repeated() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume(.init(size: 1 << 20)).volumeID
        let request = Wire.CreateGrantRequest(grant: grant(for: .volumeID(volume)), idempotencyKey: [1, 2, 3])
        let first = try harness.call(harness.service.createGrant, request)
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: volume))
        #expect(try harness.call(harness.service.createGrant, request) == first)
        var other = request
        other.idempotencyKey = [4]
        #expect(refusal { try harness.call(harness.service.createGrant, other) }?.code == .invalidVolumeID)
    }

    @Test("D5, S8: the grants for a volume go when neither it nor a snapshot of it is left")
    func volumeAndItsSnapshots() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume(.init(size: 1 << 20)).volumeID
        let snapshot = try harness.begin(volume).snapshotID
        _ = try harness.call(harness.service.createGrant, .init(grant: grant(for: .volumeID(volume))))
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: volume))
        // The volume's grants hold for its snapshots.
        let asked = Wire.DescribeSnapshotRequest(target: .snapshotID(snapshot))
        #expect(try harness.call(harness.service.describeSnapshot, asked, as: ServiceHarness.bob).snapshot != nil)
        try harness.delete(snapshot)
        #expect(try harness.eventually { try count(harness) == 0 })
        let bare = try harness.createVolume(.init(size: 1 << 20)).volumeID
        _ = try harness.call(harness.service.createGrant, .init(grant: grant(for: .volumeID(bare))))
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: bare))
        #expect(try harness.eventually { try count(harness) == 0 })
    }

    @Test("D5: who was granted a volume may describe it, as a snapshot: without its source, affinity and attachment")
    func describedVolume() throws {
        let harness = try ServiceHarness()
        let source = try harness.createVolume(.init(size: 2 << 20)).initialSnapshotID
        let created = try harness.createVolume(.init(snapshotID: source, affinity: [1, 2, 3]))
        _ = try harness.call(harness.service.attachVolume, .init(volumeID: created.volumeID))
        let asked = Wire.DescribeVolumeRequest(volumeID: created.volumeID)
        func asBob() throws -> Wire.VolumeDescription? {
            try harness.call(harness.service.describeVolume, asked, as: ServiceHarness.bob).volume
        }
        // A snapshot's grant is not its volume's.
        _ = try harness.call(
            harness.service.createGrant,
            .init(grant: grant(for: .snapshotID(created.initialSnapshotID)))
        )
        #expect(refusal { _ = try asBob() } == .noSuchVolume)
        let given = grant(for: .volumeID(created.volumeID))
        _ = try harness.call(harness.service.createGrant, .init(grant: given))
        var expected = try #require(try harness.call(harness.service.describeVolume, asked).volume)
        #expect(expected.sourceSnapshotID == source && expected.attachmentGeneration == 1)
        (expected.sourceSnapshotID, expected.affinity, expected.attachmentGeneration) = ([], [], 0)
        #expect(try asBob() == expected)
        _ = try harness.call(harness.service.deleteGrant, .init(grant: given))
        #expect(refusal { _ = try asBob() } == .noSuchVolume)
    }

    @Test("S6, D5: the seal of one's own snapshot over another's data is pending until it is known whose data is in it")
    func sealOverForeignData() throws {
        let harness = try ServiceHarness()
        let created = try harness.createVolume(.init(size: 1 << 20))
        try harness.write([UInt8](repeating: 7, count: 65536), at: 0, to: created.volumeID)
        let base = try harness.begin(created.volumeID).snapshotID
        var use = grant(for: .snapshotID(base))
        use.permission = .use
        _ = try harness.call(harness.service.createGrant, .init(grant: use))
        let clone = try harness.createVolume(.init(snapshotID: base, kind: .local), as: ServiceHarness.bob)
        for isOverwritten in [false, true] {
            let snapshot = try harness.call(
                harness.service.createSnapshot,
                .init(volumeID: clone.volumeID),
                as: ServiceHarness.bob
            ).snapshotID
            if isOverwritten {
                try harness.upload([UInt8](repeating: 8, count: 65536), at: 0, to: snapshot, as: ServiceHarness.bob)
            }
            let done = try harness.call(
                harness.service.snapshotProgress,
                .init(target: .snapshotID(snapshot), percent: 100),
                as: ServiceHarness.bob
            )
            #expect(done.seal?.pending == true)
            func seal() throws -> Wire.Seal? {
                let asked = Wire.DescribeSnapshotRequest(target: .snapshotID(snapshot))
                return try harness.call(harness.service.describeSnapshot, asked, as: ServiceHarness.bob).snapshot?.seal
            }
            #expect(try harness.eventually { try seal()?.pending != true })
            // Withheld where alice's data is in it.
            #expect(try seal()?.value.isEmpty == (isOverwritten ? false : nil))
        }
    }

    @Test("D5: grants that a crash kept from being withdrawn are withdrawn after the start, and no others")
    func sweptAtStart() throws {
        let harness = try ServiceHarness()
        let kept = try harness.createVolume(.init(size: 1 << 20)).volumeID
        _ = try harness.call(harness.service.createGrant, .init(grant: grant(for: .volumeID(kept))))
        let gone = try harness.createVolume(.init(size: 1 << 20))
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: gone.volumeID))
        let alice = ServiceHarness.alice.account
        let left: [GrantResource] = [
            .volume(VolumeID(bytes: gone.volumeID)!), .snapshot(SnapshotID(bytes: gone.initialSnapshotID)!),
        ]
        let given = Waiter<Bool>()
        harness.service.homeShard(of: alice).submit(entries: 2000) { (transaction) throws(StoreError) in
            // More than one step looks at.
            for grantee in 0..<300 {
                for resource in left {
                    _ = try transaction.give(
                        Grant(
                            grantor: alice,
                            resource: resource,
                            permission: .use,
                            grantee: AccountID("grantee-\(grantee)")!,
                            createdAt: 1
                        )
                    )
                }
            }
            return true
        } completion: {
            given.set($0.mapError { ServiceError($0) })
        }
        _ = try given.get()
        let again = try ServiceHarness(restarting: harness)
        #expect(try again.eventually { try count(again) == 1 })
        let grants = try again.call(again.service.listGrants, .init()).grants
        #expect(grants.map { $0.resource?.target } == [.volumeID(kept)])
    }
}
