import CairnCore
import CairnStore
import CairnWire
import Testing

@testable import CairnService

/// Parts of chunks that become zeros cost no bytes of the log.
@Suite struct PartialZeroesTests {
    /// 4 MiB chunks: of 4096 ranges each leaves the first and last sector of a chunk as they were.
    @Test(
        "R1, V7, U3: parts of as many chunks as one call may name become zeros, or are discarded",
        arguments: [true, false]
    )
    func manyLargeParts(discarding: Bool) throws {
        let harness = try ServiceHarness(chunkSize: 4 << 20)
        let chunk: UInt64 = 4 << 20
        let volume = try harness.createVolume(.init(size: 4096 * chunk)).volumeID
        let bytes = wideNoise(4, seed: 5)
        for index in [0, 7, 4095] as [UInt64] { try harness.write(bytes, at: index * chunk, to: volume) }
        let target = Wire.Target(target: .volumeID(volume))
        let ranges = (0..<4096).map { Wire.ByteRange(offset: UInt64($0) * chunk + 512, length: chunk - 1024) }
        if discarding {
            _ = try harness.call(harness.service.discard, .init(target: target, ranges: ranges))
        } else {
            _ = try harness.call(harness.service.writeZeroes, .init(target: target, ranges: ranges))
        }
        let zeros = [UInt8](repeating: 0, count: Int(chunk) - 1024)
        for index in [0, 7, 4095] as [UInt64] {
            let read = try harness.read(.volumeID(volume), index * chunk, chunk)
            #expect(read == bytes[..<512] + zeros + bytes[(Int(chunk) - 512)...])
        }
        #expect(try harness.read(.volumeID(volume), 9 * chunk, chunk).allSatisfy { $0 == 0 })
        try harness.audit()
        // Written over again, and after a restart.
        try harness.write(Array(bytes[..<512]), at: 512, to: volume)
        let again = try ServiceHarness(restarting: harness)
        let read = try again.read(.volumeID(volume), 0, 2048)
        #expect(read == Array(bytes[..<512] + bytes[..<512]) + [UInt8](repeating: 0, count: 1024))
        try again.audit()
    }

    @Test("U1: the zeros marks of an upload fit beside 16 MiB of bytes")
    func marksBesideBytes() throws {
        let harness = try ServiceHarness(chunkSize: 4 << 20, segmentBytes: 64 << 20)
        let chunk: UInt64 = 4 << 20
        let volume = try harness.createVolume(.init(size: 64 * chunk)).volumeID
        let bytes = wideNoise(16, seed: 8)
        var request = Wire.UploadBlockRequest(target: Wire.Target(target: .volumeID(volume)))
        request.blocks = [ServiceHarness.block(bytes, at: 0)]
        for index in 4..<64 as Range<UInt64> {
            request.blocks.append(
                Wire.UploadBlock(offset: index * chunk + 512, length: UInt32(chunk) - 512, source: .zeros(.init()))
            )
        }
        #expect(try harness.upload(request, payload: bytes).chunks.count == 4)
        #expect(try harness.read(.volumeID(volume), 0, 16 << 20) == bytes)
    }

    @Test("U1, V10: tokens of another shard get no more room than the call's own bytes leave")
    func tokensFromAnotherShard() throws {
        let harness = try ServiceHarness(chunkSize: 1 << 20, shards: 2, segmentBytes: 64 << 20)
        let (first, second) = try harness.volumesOnTwoShards()
        let own = wideNoise(16, seed: 9)
        let other = wideNoise(1, seed: 10)
        let token = try #require(try harness.write(other, at: 0, to: first).chunks.first?.token)
        var request = Wire.UploadBlockRequest(target: Wire.Target(target: .volumeID(second)))
        request.blocks = [
            ServiceHarness.block(own, at: 0),
            Wire.UploadBlock(offset: 16 << 20, length: 1 << 20, source: .token(token)),
        ]
        let refused = #expect(throws: ServiceError.self) { try harness.upload(request, payload: own) }
        #expect(refused?.code == .invalidChunkToken && refused?.blockIndex == 1)
        // With room it is copied.
        request.blocks[0] = ServiceHarness.block(Array(own[..<(15 << 20)]), at: 0)
        #expect(try harness.upload(request, payload: Array(own[..<(15 << 20)])).chunks.count == 16)
        #expect(try harness.read(.volumeID(second), 16 << 20, 1 << 20) == other)
    }
}

/// MiBs that do not compress, no two alike.
func wideNoise(_ count: UInt8, seed: UInt64) -> [UInt8] {
    var piece = noise(1 << 20, seed: seed)
    var bytes: [UInt8] = []
    for index in 0..<count {
        piece[0] = index
        bytes += piece
    }
    return bytes
}

extension ServiceHarness {
    /// Two volumes of 32 MiB that do not lie on one shard.
    func volumesOnTwoShards() throws -> ([UInt8], [UInt8]) {
        var first: [UInt8]?
        for number in 0..<64 as Range<UInt8> {
            let id = try createVolume(.init(size: 32 << 20, affinity: [number])).volumeID
            guard let first else {
                first = id
                continue
            }
            let shards = [first, id].map { VolumeID(bytes: $0).flatMap { service.shard(of: $0.uuid)?.index } }
            if shards[0] != shards[1] { return (first, id) }
        }
        throw ServiceError(.internalFailure, "all volumes lie on one shard")
    }
}
