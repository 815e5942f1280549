import CairnCore
import CairnStore
import CairnWire
import Foundation
import Synchronization
import Testing

@testable import CairnService

@Suite struct SnapshotSetTests {
    /// Volumes on shards of their own.
    private func volumes(_ harness: ServiceHarness, _ count: Int) throws -> [[UInt8]] {
        var found: [ShardIndex: [UInt8]] = [:]
        for key in 0..<64 where found.count < count {
            let volume = try harness.createVolume(Wire.CreateVolumeRequest(affinity: [UInt8(key)])).volumeID
            found[VolumeID(bytes: volume)!.uuid.shard] = volume
        }
        return found.sorted { $0.key < $1.key }.map(\.value)
    }

    private func snapshots(_ harness: ServiceHarness, of volume: [UInt8]) throws -> [Wire.SnapshotDescription] {
        let request = Wire.ListSnapshotsRequest(volumeID: volume)
        return try harness.call(harness.service.listSnapshots, request).snapshots.filter { $0.dataVersion > 1 }
    }

    private func create(_ harness: ServiceHarness, _ volumes: [[UInt8]], key: [UInt8] = [], _ text: String = "set")
        throws
        -> [Wire.CreateSnapshotResponse]
    {
        let request = Wire.CreateSnapshotsRequest(
            volumeIDs: volumes,
            description: text,
            tags: [Wire.Tag(key: "a", value: "b")],
            idempotencyKey: key
        )
        return try harness.call(harness.service.createSnapshots, request).snapshots
    }

    @Test(
        "R6, S1, S2, C5: of volumes on several shards, in the request's order; the same key gives the same ones again"
    )
    func severalShards() throws {
        let harness = try ServiceHarness(shards: 4)
        let all = try volumes(harness, 3)
        let order = [all[2], all[0], all[1]]
        for (index, volume) in order.enumerated() {
            try harness.write(noise(512, seed: UInt64(index + 1)), at: 0, to: volume)
        }
        let made = try create(harness, order, key: [1])
        #expect(made.map(\.state) == [.complete, .complete, .complete] && made.map(\.dataVersion) == [2, 2, 2])
        for (index, volume) in order.enumerated() {
            try harness.write(noise(512, seed: 50), at: 0, to: volume)
            #expect(
                try harness.read(.snapshotID(made[index].snapshotID), 0, 512) == noise(512, seed: UInt64(index + 1))
            )
            let described = try snapshots(harness, of: volume)
            #expect(described.map(\.snapshotID) == [made[index].snapshotID])
            #expect(described[0].description == "set" && described[0].tags == [Wire.Tag(key: "a", value: "b")])
        }
        #expect(try create(harness, order, key: [1]) == made)
        let error = #expect(throws: ServiceError.self) { try create(harness, order, key: [1], "another") }
        #expect(error?.code == .idempotencyMismatch)
        #expect(try create(harness, [all[0]]).count == 1)
    }

    @Test("R6, C2, V3: duplicates, LOCAL volumes, too many and other accounts' ones: nothing is made")
    func refusals() throws {
        let harness = try ServiceHarness(shards: 4)
        let all = try volumes(harness, 2)
        let local = try harness.createVolume(Wire.CreateVolumeRequest(kind: .local)).volumeID
        let foreign = try harness.createVolume(.init(), as: ServiceHarness.bob).volumeID
        func refusal(_ volumes: [[UInt8]]) -> ServiceError? {
            #expect(throws: ServiceError.self) { try create(harness, volumes) }
        }
        #expect(refusal([])?.code == .invalidArgument)
        #expect(refusal(Array(repeating: all[0], count: 65))?.code == .invalidArgument)
        let twice = refusal([all[0], all[1], all[0]])
        #expect(twice?.code == .invalidArgument && twice?.blockIndex == 2)
        let wrong = refusal([all[0], all[1], local])
        #expect(wrong?.code == .wrongVolumeKind && wrong?.blockIndex == 2)
        #expect(refusal([all[0], all[1], foreign])?.code == .invalidVolumeID)
        for volume in all { #expect(try snapshots(harness, of: volume).isEmpty) }
    }

    @Test(
        "R6: one point in time: no set has a write without the one that was answered before it, on whichever shards they are"
    )
    func pointInTime() throws {
        let harness = try ServiceHarness(shards: 2)
        let all = try volumes(harness, 2)
        let isDone = Atomic(false)
        let ended = DispatchGroup()
        // Each writes a number to one volume, waits for the answer, and writes it to the other.
        for (writer, order) in [[0, 1], [1, 0], [0, 1], [1, 0]].enumerated() {
            ended.enter()
            Thread.detachNewThread {
                var number: UInt64 = 0
                while !isDone.load(ordering: .relaxed) {
                    number += 1
                    var bytes = [UInt8](repeating: 0, count: 512)
                    bytes.withUnsafeMutableBytes { $0.storeBytes(of: number, as: UInt64.self) }
                    for place in order { _ = try? harness.write(bytes, at: UInt64(writer) * 512, to: all[place]) }
                }
                ended.leave()
            }
        }
        defer {
            isDone.store(true, ordering: .relaxed)
            ended.wait()
        }
        var last: UInt64 = 0
        for _ in 0..<40 {
            let made = try create(harness, all)
            for (writer, order) in [[0, 1], [1, 0], [0, 1], [1, 0]].enumerated() {
                let seen = try order.map { place in
                    let id = Wire.Target.Target.snapshotID(made[place].snapshotID)
                    let bytes = try harness.read(id, UInt64(writer) * 512, 512)
                    return bytes.withUnsafeBytes { $0.load(as: UInt64.self) }
                }
                #expect(seen[0] == seen[1] || seen[0] == seen[1] + 1, "writer \(writer): \(seen)")
                last = max(last, seen[1])
            }
        }
        #expect(last > 0)
    }

    @Test("R6: what a crash leaves of a set is removed at the next start; finished sets stay")
    func interrupted() throws {
        let harness = try ServiceHarness(shards: 2)
        let all = try volumes(harness, 2).map { VolumeID(bytes: $0)! }
        let made = try create(harness, all.map(\.bytes), key: [7])
        // Stopped after the intent and the first shard's snapshot.
        let ids = all.map { SnapshotID(.random(shard: $0.uuid.shard)) }
        func change(_ shard: ShardIndex, _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Void) throws {
            let waiter = Waiter<Void>()
            harness.store.shard(shard).submit(body) { waiter.set($0.mapError { ServiceError($0) }) }
            try waiter.get()
        }
        try change(ShardIndex(0)) { (transaction) throws(StoreError) in
            transaction.putIntent(.random(shard: ShardIndex(0)), snapshots: ids)
        }
        try change(all[1].uuid.shard) { (transaction) throws(StoreError) in
            _ = try transaction.createSnapshot(
                of: try transaction.volume(all[1])!,
                id: ids[1],
                description: "",
                tags: [:]
            )
        }
        #expect(try snapshots(harness, of: all[1].bytes).count == 2)
        let restarted = try ServiceHarness(restarting: harness)
        for (volume, snapshot) in zip(all, made) {
            #expect(try snapshots(restarted, of: volume.bytes).map(\.snapshotID) == [snapshot.snapshotID])
        }
        #expect(try create(restarted, all.map(\.bytes), key: [7]) == made)
        let again = try ServiceHarness(restarting: restarted)
        #expect(try snapshots(again, of: all[1].bytes).count == 1)
    }

    @Test("R6, R3: a set that is more than the account may have is refused as a whole, on whichever shards it is")
    func quota() throws {
        let harness = try ServiceHarness(shards: 2)
        let all = try volumes(harness, 2)
        let limits = Wire.SetAccountLimitsRequest(account: "alice", limits: Wire.AccountLimits(snapshots: 3))
        _ = try harness.call(harness.service.setAccountLimits, limits)
        #expect(try create(harness, all).count == 2)
        let error = #expect(throws: ServiceError.self) { try create(harness, all) }
        #expect(error?.code == .quotaExceeded)
        for volume in all { #expect(try snapshots(harness, of: volume).count == 1) }
        #expect(try create(harness, [all[0]]).count == 1)
    }
}
