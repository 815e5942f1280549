import CairnCore
import CairnWire
import Synchronization
import Testing

@testable import CairnService

/// What an upload by token copies from other shards is in memory until it is committed, and counts for the call.
@Suite struct CopyRoomTests {
    private static let largest = ChunkSize.maximum.bytes

    private func request(_ tokens: [[UInt8]], to volume: [UInt8]) -> Wire.UploadBlockRequest {
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.blocks = tokens.enumerated().map {
            Wire.UploadBlock(offset: UInt64($0) * 65536, length: 65536, source: .token($1))
        }
        return request
    }

    @Test(
        "R3, V10: room is asked for once, for no more than may be copied, and not for what is here; THROTTLED ends the call"
    )
    func counted() throws {
        let harness = try ServiceHarness(shards: 2)
        var volumes: [ShardIndex: [UInt8]] = [:]
        for key in 0..<64 where volumes.count < 2 {
            let volume = try harness.createVolume(Wire.CreateVolumeRequest(affinity: [UInt8(key)])).volumeID
            volumes[VolumeID(bytes: volume)!.uuid.shard] = volume
        }
        let near = try #require(volumes[ShardIndex(0)])
        let far = try #require(volumes[ShardIndex(1)])
        let bytes = noise(65536 * 9, seed: 300)
        let tokens = try harness.write(bytes, at: 0, to: far).chunks.map(\.token)
        #expect(tokens.count == 9)
        let asked = Mutex<[Int]>([])
        let counting = CallContext(
            account: ServiceHarness.alice.account,
            makeRoom: { bytes in asked.withLock { $0.append(bytes) } }
        )
        _ = try harness.upload(request(Array(tokens[..<2]), to: near), as: counting)
        #expect(asked.withLock { $0 } == [2 * Self.largest])
        // Two of them are here now; of the others there may be 16 MiB, and one more is read to find that out.
        _ = try harness.upload(request(Array(tokens[..<8]), to: near), as: counting)
        #expect(asked.withLock { $0 } == [2 * Self.largest, Limits.payloadBytes + Self.largest])
        _ = try harness.upload(request(Array(tokens[..<8]), to: near), as: counting)
        #expect(asked.withLock { $0.count } == 2)
        #expect(try harness.read(.volumeID(near), 0, 65536 * 8) == Array(bytes[..<(65536 * 8)]))
        let refused = CallContext(
            account: ServiceHarness.alice.account,
            makeRoom: { (_) throws(ServiceError) in throw ServiceError(.throttled, "no room") }
        )
        #expect(refusal { try harness.upload(request([tokens[8]], to: near), as: refused) }?.code == .throttled)
        #expect(try harness.read(.volumeID(near), 0, 65536) == Array(bytes[..<65536]))
    }
}
