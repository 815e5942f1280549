import CairnCore
import CairnStore
import CairnWire
import Testing

@testable import CairnService

@Suite struct UsageTests {
    private func usage(
        _ harness: ServiceHarness,
        _ targets: [Wire.Target.Target] = [],
        freed: Bool = false,
        affinity: [UInt8] = [],
        as context: CallContext = ServiceHarness.alice
    ) throws -> Wire.GetUsageResponse {
        let request = Wire.GetUsageRequest(
            targets: targets.map { Wire.Target(target: $0) },
            freedByDeletion: freed,
            affinity: affinity
        )
        // One walk at a time: the one before may not have left yet.
        var answer: Wire.GetUsageResponse?
        _ = try harness.eventually {
            do { answer = try harness.call(harness.service.getUsage, request, as: context) } catch {
                guard (error as? ServiceError)?.code == .throttled else { throw error }
            }
            return answer != nil
        }
        return try #require(answer)
    }

    @Test("R2: logical, unique and stored bytes of the account, of volumes and snapshots, and of sets")
    func sums() throws {
        let harness = try ServiceHarness(shards: 1)
        #expect(try usage(harness).total == Wire.Usage())
        let volume = try harness.createVolume().volumeID
        try harness.write(noise(65536 * 4, seed: 1), at: 0, to: volume)
        // The same again elsewhere: nothing more.
        try harness.write(noise(65536 * 4, seed: 1), at: 65536 * 8, to: volume)
        let snapshot = try harness.call(harness.service.createSnapshot, .init(volumeID: volume)).snapshotID
        try harness.write(noise(65536, seed: 2), at: 65536 * 8, to: volume)
        let size: UInt64 = 4 << 20
        let chunk: UInt64 = 65536
        let account = try #require(try usage(harness).total)
        #expect(account == Wire.Usage(logicalBytes: 2 * size, uniqueBytes: 5 * chunk, storedBytes: 5 * chunk))
        let both = try usage(harness, [.volumeID(volume), .snapshotID(snapshot)])
        #expect(both.each.map(\.uniqueBytes) == [5 * chunk, 4 * chunk])
        #expect(both.each.map(\.logicalBytes) == [size, size])
        #expect(both.total == account)
        // Another account has nothing of it, and asks about its own alone.
        #expect(try usage(harness, as: ServiceHarness.bob).total == Wire.Usage())
        let foreign = #expect(throws: ServiceError.self) {
            try usage(harness, [.volumeID(volume)], as: ServiceHarness.bob)
        }
        #expect(foreign?.code == .invalidVolumeID && foreign?.blockIndex == 0)
    }

    @Test("R2: a walk ends after the server's limit, though the caller waits for ever")
    func limit() throws {
        let harness = try ServiceHarness(shards: 1) { _, options in options.usageMilliseconds = 0 }
        let volume = try harness.createVolume().volumeID
        let error = #expect(throws: ServiceError.self) { try usage(harness, [.volumeID(volume)]) }
        #expect(error?.code == .deadlineExceeded && error?.text.contains("fewer") == true, "\(String(describing: error))")
        #expect(try usage(harness).total?.logicalBytes != 0)
    }

    @Test("R2: what deleting a set frees is told exactly: what others share stays, what only the set shares goes")
    func freed() throws {
        let harness = try ServiceHarness(shards: 1) { store, _ in store.leaseTime = .milliseconds(1) }
        let chunk: UInt64 = 65536
        let volume = try harness.createVolume().volumeID
        try harness.write(noise(65536 * 4, seed: 1), at: 0, to: volume)
        let snapshot = try harness.call(harness.service.createSnapshot, .init(volumeID: volume)).snapshotID
        try harness.write(noise(65536, seed: 2), at: 0, to: volume)
        let clone = try harness.createVolume(Wire.CreateVolumeRequest(snapshotID: snapshot)).volumeID
        try harness.write(noise(65536, seed: 3), at: 65536, to: clone)
        let other = try harness.createVolume().volumeID
        try harness.write(Array(noise(65536 * 4, seed: 1).suffix(65536)), at: 0, to: other)
        func freed(_ targets: Wire.Target.Target...) throws -> UInt64 {
            try usage(harness, targets, freed: true).freedBytes
        }
        #expect(try freed(.volumeID(volume)) == chunk)
        #expect(try freed(.snapshotID(snapshot)) == 0)
        #expect(try freed(.volumeID(clone)) == chunk)
        #expect(try freed(.volumeID(volume), .snapshotID(snapshot)) == chunk)
        // One of the four is the other volume's as well.
        #expect(try freed(.volumeID(volume), .snapshotID(snapshot), .volumeID(clone)) == 5 * chunk)
        let before = try usage(harness, [], freed: true)
        #expect(before.freedBytes == before.total?.storedBytes && before.freedBytes == 6 * chunk)
        for id in [volume, clone] { _ = try harness.call(harness.service.deleteVolume, .init(volumeID: id)) }
        _ = try harness.call(harness.service.deleteSnapshot, .init(snapshotID: snapshot))
        #expect(try harness.eventually { try usage(harness).total?.storedBytes == chunk })
    }

    @Test("R2, V10: what an affinity key would have saved: chunks that would not be stored twice")
    func affinity() throws {
        let harness = try ServiceHarness(shards: 4)
        let chunk: UInt64 = 65536
        // A key on each of two shards.
        var volumes: [ShardIndex: (key: UInt8, id: [UInt8])] = [:]
        for key in 0..<64 as Range<UInt8> where volumes.count < 3 {
            let id = try harness.createVolume(Wire.CreateVolumeRequest(affinity: [key])).volumeID
            volumes[VolumeID(bytes: id)!.uuid.shard] = (key, id)
        }
        let (first, second, third) = (Array(volumes.values)[0], Array(volumes.values)[1], Array(volumes.values)[2])
        for volume in [first, second, third] {
            // Three chunks that all have, and one of its own; from other bytes each, lest they be taken from each other.
            let own = UInt64(volume.key) + 100
            try harness.write(noise(65536 * 3, seed: 1) + noise(65536, seed: own), at: 0, to: volume.id)
        }
        let targets = [first, second, third].map { Wire.Target.Target.volumeID($0.id) }
        #expect(try usage(harness, targets, affinity: [first.key]).affinitySavingsBytes == 6 * chunk)
        #expect(try usage(harness, [targets[1]], affinity: [first.key]).affinitySavingsBytes == 3 * chunk)
        #expect(try usage(harness, [targets[1]], affinity: [second.key]).affinitySavingsBytes == 0)
    }

    @Test("R2: a walk ends when nobody waits for it any more")
    func cancelled() throws {
        let harness = try ServiceHarness(shards: 1)
        let volume = try harness.createVolume().volumeID
        let gone = CallContext(account: ServiceHarness.alice.account, isCancelled: { true })
        let error = #expect(throws: ServiceError.self) { try usage(harness, [.volumeID(volume)], as: gone) }
        #expect(error?.code == .cancelled)
    }
}
