import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Synchronization
import Testing

@testable import CairnService
@testable import CairnStore

/// Small downloads are answered on the thread that they came on, where all that they read is in memory.
@Suite struct ReadHereTests {
    private static let here = CallContext(account: ServiceHarness.alice.account, mayReadHere: true)

    private func request(_ volume: [UInt8], _ offset: UInt64, _ length: UInt64, lz4: Bool) -> Wire.DownloadBlockRequest
    {
        var request = Wire.DownloadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.ranges = [Wire.ByteRange(offset: offset, length: length)]
        request.acceptedCodecs = lz4 ? [.lz4] : []
        return request
    }

    /// An answer, and whether it was given on this thread.
    private func download(_ request: Wire.DownloadBlockRequest, _ harness: ServiceHarness, _ context: CallContext)
        throws
        -> (download: Download, atOnce: Bool)
    {
        let waiter = Waiter<Download>()
        let caller = UInt(pthread_self())
        let answerer = Atomic<UInt>(0)
        harness.service.downloadBlock(request, context) { result in
            answerer.store(UInt(pthread_self()), ordering: .relaxed)
            waiter.set(result)
        }
        return (try waiter.get(), answerer.load(ordering: .relaxed) == caller)
    }

    /// A volume of noise, packed chunks, zeros, holes and parts, and what it holds.
    private func fill(_ harness: ServiceHarness, _ random: inout SeededRandom) throws -> (id: [UInt8], bytes: [UInt8]) {
        let chunk = 65536
        let volume = try harness.createVolume().volumeID
        var bytes = [UInt8](repeating: 0, count: 4 << 20)
        for index in 0..<(bytes.count / chunk) where index % 4 != 3 {
            let data =
                index % 2 == 0 ? noise(chunk, seed: UInt64(index)) : [UInt8](repeating: UInt8(index), count: chunk)
            try harness.write(data, at: UInt64(index * chunk), to: volume)
            bytes.replaceSubrange(index * chunk..<(index + 1) * chunk, with: data)
        }
        for seed in 0..<20 {
            let offset = Int.random(in: 0..<bytes.count / 512 - 8, using: &random) * 512
            let data = noise(4096, seed: UInt64(1000 + seed))
            try harness.write(data, at: UInt64(offset), to: volume)
            bytes.replaceSubrange(offset..<offset + 4096, with: data)
        }
        return (volume, bytes)
    }

    @Test("C6, D1: what is read at once is what a worker reads") func sameAnswers() throws {
        let harness = try ServiceHarness()
        var random = SeededRandom(seed: 1)
        let volume = try fill(harness, &random)
        var atOnce = 0
        for round in 0..<300 {
            let length = [512, 4096, 16384].randomElement(using: &random)!
            let offset = Int.random(in: 0...(volume.bytes.count - length) / 512, using: &random) * 512
            let request = request(volume.id, UInt64(offset), UInt64(length), lz4: round % 2 == 0)
            let slow = try download(request, harness, ServiceHarness.alice)
            let fast = try download(request, harness, Self.here)
            #expect(!slow.atOnce)
            if fast.atOnce { atOnce += 1 }
            #expect(fast.download.message == slow.download.message)
            #expect(try ServiceHarness.bytes(of: fast.download) == Array(volume.bytes[offset..<offset + length]))
        }
        // The worker has just read the same: what is not there at once has many parts, or was pushed out meanwhile.
        #expect(atOnce > 100, "\(atOnce)")
        let large = try download(request(volume.id, 0, 1 << 20, lz4: false), harness, Self.here)
        #expect(!large.atOnce)
        // Seen as soon as it is answered.
        for round in 0..<50 {
            let data = noise(4096, seed: UInt64(5000 + round))
            try harness.write(data, at: UInt64(round * 4096), to: volume.id)
            let seen = try download(request(volume.id, UInt64(round * 4096), 4096, lz4: false), harness, Self.here)
            #expect(try ServiceHarness.bytes(of: seen.download) == data)
        }
    }

    @Test("What is not in memory is read by a worker") func staysOffTheDisk() throws {
        // Without a cache nothing of the index is in memory that was flushed.
        let harness = try ServiceHarness { options, _ in options.indexCacheBytes = 0 }
        var random = SeededRandom(seed: 2)
        let volume = try fill(harness, &random)
        for shard in harness.store.shards { try shard.database.flush() }
        for _ in 0..<3 {
            let read = try download(request(volume.id, 0, 4096, lz4: false), harness, Self.here)
            #expect(!read.atOnce)
            #expect(try ServiceHarness.bytes(of: read.download) == Array(volume.bytes[..<4096]))
        }
        // After a restart, wherever it is by then.
        let later = try ServiceHarness(restarting: harness)
        for _ in 0..<3 {
            let read = try download(request(volume.id, 0, 4096, lz4: false), later, Self.here)
            #expect(try ServiceHarness.bytes(of: read.download) == Array(volume.bytes[..<4096]))
        }
    }

    @Test("C2, D5: another's volume is refused as a worker refuses it") func refusals() throws {
        let harness = try ServiceHarness()
        var random = SeededRandom(seed: 3)
        let volume = try fill(harness, &random)
        let bob = CallContext(account: ServiceHarness.bob.account, mayReadHere: true)
        let request = request(volume.id, 0, 4096, lz4: false)
        #expect(throws: ServiceError.noSuchVolume) { try download(request, harness, bob) }
        _ = try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: volume.id))
        #expect(throws: ServiceError.noSuchVolume) { try download(request, harness, Self.here) }
    }

    @Test("D5, R3: where many levels' permissions are to be asked for, a worker does it") func deepChains() throws {
        let harness = try ServiceHarness()
        let bob = CallContext(account: ServiceHarness.bob.account, mayReadHere: true)
        let grant = Wire.Grant(grantee: "bob", permission: .export)
        _ = try harness.call(harness.service.createGrant, .init(grant: grant))
        let first = try harness.createVolume().volumeID
        let bytes = noise(65536, seed: 6)
        try harness.write(bytes, at: 0, to: first)
        var source = try harness.call(harness.service.createSnapshot, .init(volumeID: first)).snapshotID
        var volumes = [first]
        for _ in 0..<9 {
            let volume = try harness.createVolume(.init(snapshotID: source))
            volumes.append(volume.volumeID)
            source = volume.initialSnapshotID
        }
        func read(_ volume: [UInt8]) throws -> (download: Download, atOnce: Bool) {
            try download(request(volume, 0, 4096, lz4: false), harness, bob)
        }
        #expect(try harness.eventually { try read(volumes[2]).atOnce })
        for _ in 0..<10 {
            let deep = try read(volumes[9])
            #expect(!deep.atOnce)
            #expect(try ServiceHarness.bytes(of: deep.download) == Array(bytes[..<4096]))
        }
    }
}
