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
        try harness.call(harness.service.listGrants, .init()).grants.count
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
}
