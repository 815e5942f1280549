import CairnCore
import CairnWire
import Foundation
import Testing

/// SPEC R6, R2: what concerns several volumes at once, over the wire.
@Suite(.serialized)
struct SnapshotSetTests {
    /// Volumes on different shards.
    private func volumes(_ caller: Caller, _ count: Int) async throws -> [[UInt8]] {
        var found: [ShardIndex: [UInt8]] = [:]
        for key in 0..<64 as Range<UInt8> where found.count < count {
            let id = try await caller.createVolume(affinity: [key]).volumeID
            found[VolumeID(bytes: id)!.uuid.shard] = id
        }
        return found.sorted { $0.key < $1.key }.map(\.value)
    }

    private func snapshots(_ caller: Caller, _ volume: [UInt8]) async throws -> [Wire.SnapshotDescription] {
        var found: [Wire.SnapshotDescription] = []
        var token: [UInt8] = []
        repeat {
            let page = try await caller.call(
                Wire.ListSnapshotsRequest(page: .init(limit: 1000, pageToken: token), volumeID: volume)
            ).message
            found += page.snapshots
            token = page.nextPageToken
        } while !token.isEmpty
        return found.filter { $0.dataVersion > 1 }
    }

    @Test("R6, C5: kill -9 in the middle of sets: each is there as a whole or not at all; what was answered is there")
    func killed() async throws {
        let server = try await ServerProcess.started(shards: 4)
        let account = freshAccount()
        var caller = try await server.connect(account)
        let all = try await volumes(caller, 3)
        var answered: [String: [[UInt8]]] = [:]
        for round in 0..<4 {
            let making = Task { [caller] in
                var made: [String: [[UInt8]]] = [:]
                for number in 0..<100_000 {
                    let name = "\(round)/\(number)"
                    let request = Wire.CreateSnapshotsRequest(
                        volumeIDs: all,
                        description: name,
                        idempotencyKey: Array(name.utf8)
                    )
                    guard let answer = try? await caller.call(request).message else { break }
                    made[name] = answer.snapshots.map(\.snapshotID)
                }
                return made
            }
            try await eventually("sets are being made") { try await snapshots(caller, all[0]).count > round * 10 + 5 }
            try await server.crash()
            answered.merge(await making.value) { $1 }
            try await server.start()
            caller = try await server.connect(account)
            var found: [String: [[UInt8]]] = [:]
            for volume in all {
                for snapshot in try await snapshots(caller, volume) {
                    found[snapshot.description, default: []].append(snapshot.snapshotID)
                }
            }
            #expect(
                found.values.allSatisfy { $0.count == all.count },
                "\(found.filter { $0.value.count != all.count })"
            )
            for (name, ids) in answered { #expect(found[name] == ids, "\(name)") }
            // The call that was under way, said again, gives the set that is there, or makes it now.
            let name = "\(round)/\(answered.keys.count { $0.hasPrefix("\(round)/") })"
            let again = try await caller.call(
                Wire.CreateSnapshotsRequest(volumeIDs: all, description: name, idempotencyKey: Array(name.utf8))
            ).message.snapshots.map(\.snapshotID)
            #expect(found[name] == nil || found[name] == again)
            answered[name] = again
        }
        _ = try await server.stop()
    }

    @Test(
        "R2: GetUsage tells exactly what the deletion of a set frees, and the account has nothing when all is deleted"
    )
    func usage() async throws {
        let server = try await ServerProcess.started(shards: 2, settings: ["lease-seconds=1"])
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        try await caller.upload(volume, .plain(0, Content.noise(1, 1 << 20)))
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(volume, .plain(65536, Content.noise(2, 65536)))
        func total() async throws -> Wire.Usage {
            try await caller.call(Wire.GetUsageRequest()).message.total ?? Wire.Usage()
        }
        let before = try await total()
        #expect(before == Wire.Usage(logicalBytes: 2 << 20, uniqueBytes: 17 << 16, storedBytes: 17 << 16))
        let told = try await caller.call(
            Wire.GetUsageRequest(targets: [.init(target: .volumeID(volume))], freedByDeletion: true)
        ).message
        #expect(told.freedBytes == 1 << 16 && told.each.map(\.uniqueBytes) == [1 << 20])
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: volume))
        try await eventually("the volume's space is free") {
            try await total().storedBytes == before.storedBytes - (1 << 16)
        }
        _ = try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: snapshot))
        try await eventually("nothing is left") { try await total() == Wire.Usage() }
        _ = try await server.stop()
    }
}
