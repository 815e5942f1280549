import CairnCore
import CairnRPC
import CairnTesting
import CairnWire
import Synchronization
import Testing

@testable import CairnClient

/// Answers each call as the test says, and keeps what was asked.
final class ScriptedCaller: Caller {
    typealias Script = @Sendable (Wire.Method, [UInt8]) throws -> [UInt8]
    let calls = Mutex<[(method: Wire.Method, message: [UInt8], payloadBytes: Int)]>([])
    private let script: Script
    init(_ script: @escaping Script) { self.script = script }

    private final class NoCancel: Cancellable { func cancel() {} }
    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        let method = Wire.Method(rawValue: Int32(call.method))
        let bytes = call.payload.reduce(0) { $0 + $1.count }
        calls.withLock { $0.append((method, call.message, bytes)) }
        completion(
            Result { Answer(message: try script(method, call.message), payload: nil) }
                .mapError { ClientError(.answered, "\($0)", answer: $0 as? CallError) }
        )
        return NoCancel()
    }
    var methods: [Wire.Method] { calls.withLock { $0.map(\.method) } }
}

struct ChunkListTests {
    static func placements(_ count: Int) -> [ChunkPlacement] {
        var random = SeededRandom(seed: UInt64(count))
        return (0..<count).map { index in
            ChunkPlacement(offset: UInt64(index) * 4096, token: Fingerprint(bytes: random.bytes(32))!)
        }
    }

    @Test("S5: a list fills whole chunks, and what fills them up is skipped by every reader")
    func padding() throws {
        let chunkSize = ChunkSize(bytes: 4096)!
        for count in [1, 2, 93, 94, 95, 1000] {
            let list = Self.placements(count)
            let chunks = ChunkListCoding.encode(list, chunkSize: chunkSize)
            #expect(chunks.allSatisfy { $0.count == 4096 })
            let decoded = try Wire.ChunkList.decode(chunks.flatMap { Array($0.bytes) })
            #expect(decoded.chunks == list.map(\.wire))
        }
        // Each room that can be left, the smallest and those where the length's form changes.
        let message = Wire.ChunkList(chunks: Self.placements(3).map(\.wire)).encode()
        for unit in (message.count + 1)...(message.count + 300) {
            let padding = ChunkListCoding.padding(for: message.count, unit)
            #expect((message.count + padding.count) % unit == 0)
            #expect(try Wire.ChunkList.decode(message + padding).chunks.count == 3)
        }
    }

    @Test("S5: a short list goes with the call, a long one is staged near the volume and named, and then released")
    func pointer() async throws {
        let volume = VolumeID(.random(shard: ShardIndex(0)))
        let caller = ScriptedCaller { method, message in
            switch method {
            case .describeVolume:
                var description = Wire.VolumeDescription()
                description.volumeID = volume.bytes
                description.chunkSize = 65536
                return Wire.DescribeVolumeResponse(volume: description).encode()
            case .uploadBlock:
                let request = try Wire.UploadBlockRequest.decode(message)
                return Wire.UploadBlockResponse(
                    chunks: request.blocks.map {
                        Wire.WrittenChunk(
                            offset: $0.offset,
                            token: [UInt8](repeating: UInt8(truncatingIfNeeded: $0.offset >> 16), count: 32)
                        )
                    },
                    leaseExpiresAtMs: 5
                ).encode()
            case .createSnapshot:
                return Wire.CreateSnapshotResponse(snapshotID: volume.bytes, dataVersion: 3, state: .inProgress)
                    .encode()
            case .releaseLease: return []
            default: throw CallError(.unknownMethod)
            }
        }
        let client = Client(caller: caller)
        var new = NewSnapshot()
        new.chunks = Self.placements(5)
        _ = try await client.createSnapshot(of: volume, new)
        #expect(caller.methods == [.createSnapshot])
        new.chunks = Self.placements(30_000)
        new.expected = Self.placements(3)
        _ = try await client.createSnapshot(of: volume, new)
        #expect(caller.methods.dropFirst() == [.describeVolume, .uploadBlock, .createSnapshot, .releaseLease])
        let calls = caller.calls.withLock { $0 }
        let staged = try Wire.UploadBlockRequest.decode(calls[2].message)
        #expect(staged.target == nil && staged.nearVolumeID == volume.bytes && staged.chunkSize == 65536)
        #expect(staged.leaseSeconds == 3600 && calls[2].payloadBytes == staged.blocks.count * 65536)
        let made = try Wire.CreateSnapshotRequest.decode(calls[3].message)
        #expect(made.chunks.isEmpty && made.expected.count == 3)
        #expect(made.chunkListTokens.count == staged.blocks.count && staged.blocks.count > 15)
        new.expected = Self.placements(Client.mostExpectedChunks + 1)
        let error = await #expect(throws: ClientError.self) { try await client.createSnapshot(of: volume, new) }
        #expect(error?.code == .invalidRequest)
    }

    @Test("R1, R6: answers that contradict their request are no answers")
    func contradictions() async throws {
        let id = UUID128.random(shard: ShardIndex(0))
        let client = Client(
            caller: ScriptedCaller { method, _ in
                switch method {
                case .createSnapshots: Wire.CreateSnapshotsResponse().encode()
                case .getUsage: Wire.GetUsageResponse(total: .init(logicalBytes: 1)).encode()
                case .uploadBlock: Wire.UploadBlockResponse().encode()
                case .listGrants:
                    Wire.ListGrantsResponse(grants: [Wire.Grant(grantee: "bob", permission: .init(rawValue: 9))])
                        .encode()
                case .missingBlocks: Wire.MissingBlocksResponse(missing: [.init(offset: 0, token: [1])]).encode()
                default: throw CallError(.unknownMethod)
                }
            }
        )
        func fails(_ body: () async throws -> Void) async {
            let error = await #expect(throws: ClientError.self) { try await body() }
            #expect(error?.code == .protocolViolation)
        }
        await fails { _ = try await client.createSnapshots(of: [VolumeID(id)]) }
        await fails { _ = try await client.usage(of: [.volume(VolumeID(id))]) }
        await fails {
            _ = try await client.stage(
                [Buffer(copying: [UInt8](repeating: 1, count: 4096)).slice],
                chunkSize: .minimum
            )
        }
        await fails { _ = try await client.grants().all() }
        await fails { _ = try await client.missingBlocks(of: SnapshotID(id)).all() }
    }
}
