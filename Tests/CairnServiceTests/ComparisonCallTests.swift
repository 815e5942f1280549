import CairnCore
import CairnStore
import CairnWire
import Testing

@testable import CairnService

@Suite struct ComparisonCallTests {
    private func changes(
        _ harness: ServiceHarness,
        _ older: Wire.Target.Target,
        _ newer: Wire.Target.Target,
        limit: UInt32 = 2
    ) throws -> [Wire.BlockDescription] {
        var found: [Wire.BlockDescription] = []
        var token: [UInt8] = []
        repeat {
            let request = Wire.ListChangedBlocksRequest(
                older: Wire.Target(target: older),
                newer: Wire.Target(target: newer),
                page: Wire.PageRequest(limit: limit, pageToken: token)
            )
            let page = try harness.call(harness.service.listChangedBlocks, request)
            #expect(page.blocks.count <= Int(limit))
            found += page.blocks
            token = page.nextPageToken
        } while !token.isEmpty
        return found
    }

    @Test(
        "R1, V8: what changed since a snapshot, page by page: data with token and owner, zeros, and what was discarded"
    )
    func sinceSnapshot() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let target = Wire.Target(target: .volumeID(volume))
        try harness.write(noise(65536 * 6, seed: 1), at: 0, to: volume)
        let snapshot = try harness.call(harness.service.createSnapshot, .init(volumeID: volume))
        let token = try harness.write(noise(65536, seed: 2), at: 65536, to: volume).chunks[0].token
        try harness.write(noise(65536, seed: 2), at: 0, to: volume)
        // Back to what it was: no change.
        try harness.write(Array(noise(65536 * 6, seed: 1).prefix(65536)), at: 0, to: volume)
        let part = Wire.ByteRange(offset: 65536 * 3, length: 65536)
        _ = try harness.call(harness.service.writeZeroes, Wire.WriteZeroesRequest(target: target, ranges: [part]))
        let range = Wire.ByteRange(offset: 65536 * 5, length: 65536)
        _ = try harness.call(harness.service.discard, Wire.DiscardRequest(target: target, ranges: [range]))
        // A discard where nothing was.
        let nothing = Wire.ByteRange(offset: 65536 * 20, length: 65536)
        _ = try harness.call(harness.service.discard, Wire.DiscardRequest(target: target, ranges: [nothing]))
        let found = try changes(harness, .snapshotToken(snapshot.snapshotToken), .volumeID(volume))
        #expect(found.map(\.offset) == [65536, 65536 * 3, 65536 * 5])
        #expect(found.map(\.state) == [.data, .zeros, .hole])
        #expect(found.map(\.owner) == ["alice", "", ""])
        #expect(found[0].token == token && found.allSatisfy { $0.length == 65536 })
        let back = try changes(harness, .volumeID(volume), .snapshotID(snapshot.snapshotID))
        #expect(back.map(\.offset) == found.map(\.offset) && back.allSatisfy { $0.state == .data })
        let listed = try harness.call(harness.service.listBlocks, Wire.ListBlocksRequest(target: target)).blocks
        #expect(listed.filter { $0.state == .data }.allSatisfy { $0.owner == "alice" })
    }

    @Test("R1, C2, V3: refusals name neither side's data")
    func refusals() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume()
        let local = try harness.createVolume(Wire.CreateVolumeRequest(kind: .local))
        let foreign = try harness.createVolume(.init(), as: ServiceHarness.bob)
        func refusal(_ older: Wire.Target.Target, _ newer: Wire.Target.Target) -> ServiceError? {
            #expect(throws: ServiceError.self) { try changes(harness, older, newer) }
        }
        let own = Wire.Target.Target.volumeID(volume.volumeID)
        #expect(refusal(own, .volumeID(foreign.volumeID)) == .noSuchVolume)
        #expect(refusal(.snapshotID(foreign.initialSnapshotID), own) == .noSuchSnapshot)
        #expect(refusal(.volumeID(local.volumeID), own)?.code == .wrongVolumeKind)
        #expect(try changes(harness, .snapshotID(local.initialSnapshotID), own).isEmpty)
        let request = Wire.ListChangedBlocksRequest(
            older: Wire.Target(target: own),
            newer: Wire.Target(target: own),
            page: Wire.PageRequest(limit: 0, pageToken: [1, 2, 3])
        )
        let page = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.listChangedBlocks, request)
        }
        #expect(page?.code == .invalidArgument)
    }

    @Test("R1, D5, C2: what is missing is told of the side that it is missing on")
    func whichSide() throws {
        let harness = try ServiceHarness()
        func shared(_ seed: UInt64, _ permission: Wire.Permission) throws -> [UInt8] {
            let volume = try harness.createVolume().volumeID
            try harness.write(noise(65536, seed: seed), at: 0, to: volume)
            let snapshot = try harness.call(harness.service.createSnapshot, .init(volumeID: volume)).snapshotID
            let resource = Wire.Target(target: .snapshotID(snapshot))
            let grant = Wire.Grant(resource: resource, grantee: "bob", permission: permission)
            _ = try harness.call(harness.service.createGrant, .init(grant: grant))
            return snapshot
        }
        let older = try shared(1, .export)
        // Bob's own, of data that he may use and not have.
        let source = try shared(2, .use)
        let newer = try harness.createVolume(.init(snapshotID: source), as: ServiceHarness.bob).volumeID
        let request = Wire.ListChangedBlocksRequest(
            older: Wire.Target(target: .snapshotID(older)),
            newer: Wire.Target(target: .volumeID(newer))
        )
        let error = refusal {
            try harness.call(harness.service.listChangedBlocks, request, as: ServiceHarness.bob)
        }
        #expect(error?.code == .permissionDenied)
        #expect(error?.text.hasPrefix("\(VolumeID(bytes: newer)!): ") == true && error?.text.contains("alice") == true)
    }
}
