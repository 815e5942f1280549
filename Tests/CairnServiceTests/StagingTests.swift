import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Synchronization
import Testing

@testable import CairnService

@Suite struct StagingTests {
    private static let day: UInt64 = 24 * 3600 * 1000

    private func stage(
        _ harness: ServiceHarness,
        _ chunks: [[UInt8]],
        as context: CallContext = ServiceHarness.alice,
        _ change: (inout Wire.UploadBlockRequest) -> Void = { _ in }
    ) throws -> Wire.UploadBlockResponse {
        var request = Wire.UploadBlockRequest()
        request.blocks = chunks.enumerated().map { ServiceHarness.block($1, at: UInt64($0) * 65536) }
        change(&request)
        return try harness.upload(request, payload: Array(chunks.joined()), as: context)
    }

    private func present(
        _ harness: ServiceHarness,
        _ tokens: [[UInt8]],
        as context: CallContext = ServiceHarness.alice
    ) throws -> [UInt8] {
        try harness.call(harness.service.queryChunks, Wire.QueryChunksRequest(tokens: tokens), as: context).present
    }

    @Test("U7, A1, C3: staged chunks are the account's alone, for the lease that the answer states")
    func staged() throws {
        let harness = try ServiceHarness(shards: 4)
        let chunks = (0..<3).map { noise(65536, seed: 1 + UInt64($0)) }
        let before = UnixTime.milliseconds
        let answer = try stage(harness, chunks)
        #expect(answer.chunks.map(\.offset) == [0, 65536, 131072])
        #expect(answer.chunks.map(\.token) == chunks.map { $0.withUnsafeBytes { SHA256.hash($0).bytes } })
        #expect(
            answer.leaseExpiresAtMs >= before + Self.day && answer.leaseExpiresAtMs <= UnixTime.milliseconds + Self.day
        )
        #expect(answer.writeVerifier.count == 8)
        let tokens = answer.chunks.map(\.token)
        #expect(try present(harness, tokens) == [0b111])
        #expect(try present(harness, tokens, as: ServiceHarness.bob) == [0])
        let hour = try stage(harness, [noise(65536, seed: 9)]) { $0.leaseSeconds = 3600 }.leaseExpiresAtMs
        #expect(hour <= UnixTime.milliseconds + 3_600_000)
        let error = #expect(throws: ServiceError.self) {
            try stage(harness, chunks) { $0.leaseSeconds = 30 * 24 * 3600 + 1 }
        }
        #expect(error?.code == .invalidArgument)
    }

    @Test("U7, V10: what was staged on one shard is used by token on every other")
    func acrossShards() throws {
        let harness = try ServiceHarness(shards: 4)
        let bytes = noise(65536, seed: 20)
        let token = try #require(try stage(harness, [bytes]).chunks.first).token
        for affinity in 0..<8 {
            let volume = try harness.createVolume(.init(affinity: [UInt8(affinity)])).volumeID
            var request = Wire.UploadBlockRequest()
            request.target = Wire.Target(target: .volumeID(volume))
            request.blocks = [Wire.UploadBlock(offset: 65536, length: 65536, source: .token(token))]
            _ = try harness.upload(request)
            #expect(try harness.read(.volumeID(volume), 65536, 65536) == bytes)
        }
    }

    @Test("U7: near_volume_id keeps the chunks on that volume's shard; a foreign one is C2's error")
    func nearVolume() throws {
        let harness = try ServiceHarness(shards: 4)
        for affinity in 0..<6 {
            let created = try harness.createVolume(.init(affinity: [UInt8(affinity)])).volumeID
            let volume = try #require(VolumeID(bytes: created))
            let answer = try stage(harness, [noise(65536, seed: 30 + UInt64(affinity))]) { $0.nearVolumeID = created }
            let first = try #require(answer.chunks.first)
            let token = try #require(Fingerprint(bytes: first.token))
            for shard in harness.store.shards {
                let isHere = try shard.makeView().holdsChunk(account: ServiceHarness.alice.account, token)
                #expect(isHere == (shard.index == volume.uuid.shard))
            }
            let error = #expect(throws: ServiceError.self) {
                try stage(harness, [noise(65536, seed: 1)], as: ServiceHarness.bob) { $0.nearVolumeID = created }
            }
            #expect(error == .noSuchVolume)
        }
    }

    @Test("U7, V6: blocks fill chunks from a boundary on, the last one padded; zeros have a token and take nothing")
    func shapes() throws {
        let harness = try ServiceHarness()
        let long = noise(65536 + 512, seed: 40)
        let answer = try stage(harness, [long, [UInt8](repeating: 0, count: 4096)]) {
            $0.blocks[1].offset = 1 << 40
            $0.chunkSize = 4096
            $0.blocks[0].offset = 8192
        }
        #expect(answer.chunks.count == 18)
        #expect(answer.chunks.map(\.offset) == (0..<17).map { 8192 + $0 * 4096 } + [1 << 40])
        let tail = Array(long[65536...])
        #expect(answer.chunks[16].token == tail.withUnsafeBytes { SHA256.hash($0, padding: 3584).bytes })
        #expect(answer.chunks[17].token == ZeroChunk.fingerprint(ChunkSize(bytes: 4096)!).bytes)
        #expect(try present(harness, answer.chunks.map(\.token)) == [255, 255, 3])
    }

    @Test("U7, U4: only bytes from a chunk's boundary on are staged; the error names the block, and nothing is kept")
    func refusals() throws {
        let harness = try ServiceHarness()
        let bytes = noise(65536, seed: 50)
        let token = bytes.withUnsafeBytes { SHA256.hash($0).bytes }
        let spoiled: [(inout Wire.UploadBlock) -> Void] = [
            { $0.offset = 512 }, { $0.length = 1024 }, { $0.source = nil }, { $0.checksum = nil },
            { $0.offset = 1 << 60 },
        ]
        for spoil in spoiled {
            let error = #expect(throws: ServiceError.self) {
                try stage(harness, [bytes, bytes]) { spoil(&$0.blocks[1]) }
            }
            #expect(error?.code == .invalidArgument && error?.blockIndex == 1)
        }
        for source: Wire.UploadBlock.Source in [.zeros(.init()), .hole(.init()), .token(token)] {
            let error = #expect(throws: ServiceError.self) {
                try stage(harness, [bytes]) { $0.blocks.append(.init(offset: 65536, length: 65536, source: source)) }
            }
            #expect(error?.code == .invalidArgument && error?.blockIndex == 1)
        }
        let checksum = #expect(throws: ServiceError.self) {
            try stage(harness, [bytes, bytes]) { $0.blocks[1].checksum?.value[0] ^= 1 }
        }
        #expect(checksum?.code == .checksumError && checksum?.blockIndex == 1)
        let fields: [(inout Wire.UploadBlockRequest) -> Void] = [
            { $0.dataVersion = 2 }, { $0.attachment = 1 }, { $0.progress = .init(percent: 1) }, { $0.rebased = true },
            { $0.chunkSize = 5000 }, { $0.blocks = [] },
        ]
        for field in fields {
            let error = #expect(throws: ServiceError.self) { try stage(harness, [bytes], field) }
            #expect(error?.code == .invalidArgument)
        }
        #expect(try present(harness, [token]) == [0])
    }

    @Test("U7: leases are renewed, also of chunks in volumes, and released; an unknown token changes nothing")
    func renewAndRelease() throws {
        let harness = try ServiceHarness(shards: 4)
        let staged = try stage(harness, [noise(65536, seed: 60)]).chunks.map(\.token)
        let volume = try harness.createVolume().volumeID
        let written = try harness.write(noise(65536, seed: 61), at: 0, to: volume).chunks.map(\.token)
        let zero = ZeroChunk.fingerprint(.minimum).bytes
        let before = UnixTime.milliseconds
        let renewed = try harness.call(
            harness.service.renewLease,
            Wire.RenewLeaseRequest(tokens: staged + [zero] + written, leaseSeconds: 7200)
        )
        #expect(renewed.leaseExpiresAtMs >= before + 7_200_000)
        #expect(renewed.leaseExpiresAtMs <= UnixTime.milliseconds + 7_200_000)
        let leases = { try harness.store.shards.reduce(0) { try $0 + $1.audit().leases } }
        #expect(try leases() == 2)
        for (tokens, index) in [(staged + [noise(32, seed: 62)], 1), ([[1, 2, 3]], 0)] {
            let error = #expect(throws: ServiceError.self) {
                try harness.call(harness.service.renewLease, Wire.RenewLeaseRequest(tokens: tokens))
            }
            #expect(error?.code == .invalidChunkToken && error?.blockIndex == index)
        }
        let foreign = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.renewLease, .init(tokens: staged), as: ServiceHarness.bob)
        }
        #expect(foreign?.code == .invalidChunkToken && foreign?.blockIndex == 0)
        let long = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.renewLease, .init(tokens: staged, leaseSeconds: .max))
        }
        #expect(long?.code == .invalidArgument)
        _ = try harness.call(harness.service.releaseLease, .init(tokens: staged + written), as: ServiceHarness.bob)
        #expect(try leases() == 2)
        let release = Wire.ReleaseLeaseRequest(tokens: staged + [noise(32, seed: 63)] + written)
        for _ in 0..<2 { _ = try harness.call(harness.service.releaseLease, release) }
        #expect(try leases() == 0)
        #expect(try harness.read(.volumeID(volume), 0, 65536) == noise(65536, seed: 61))
    }

    @Test("U7: leases survive a restart, and end when they were said to")
    func restart() throws {
        var harness = try ServiceHarness { store, _ in store.leaseTime = .milliseconds(100) }
        let long = try stage(harness, [noise(65536, seed: 70)]).chunks.map(\.token)
        let short = try stage(harness, [noise(65536, seed: 71)]) { $0.leaseSeconds = 3 }.chunks.map(\.token)
        harness = try ServiceHarness(restarting: harness) { store, _ in store.leaseTime = .milliseconds(100) }
        func holds(_ token: [UInt8]) throws -> Bool {
            try harness.store.shards.contains {
                try $0.makeView().holdsChunk(account: ServiceHarness.alice.account, Fingerprint(bytes: token)!)
            }
        }
        #expect(try harness.eventually { try !holds(short[0]) })
        #expect(try present(harness, long + short) == [0b01])
        for shard in harness.store.shards { #expect(try shard.audit().problems == []) }
    }

    @Test("U7, R3: LZ4 chunks are decoded and hashed in steps; the call ends between them when nobody waits any more")
    func steps() throws {
        let harness = try ServiceHarness(chunkSize: 4 << 20, segmentBytes: 64 << 20)
        let raw = [UInt8](repeating: 7, count: 4 << 20)
        let target = Buffer(copying: [UInt8](repeating: 0, count: raw.count / 16))
        let count = try #require(raw.withUnsafeBytes { LZ4.compress($0, into: target.memory) })
        let packed = Array(target.memory[0..<count])
        let checksum = raw.withUnsafeBytes { Checksum.encode(CRC32C.extend(0, $0)) }
        var request = Wire.UploadBlockRequest()
        request.blocks = (0..<12).map { index in
            var block = Wire.UploadBlock(offset: UInt64(index * raw.count), length: UInt32(raw.count), codec: .lz4)
            block.checksum = Wire.Checksum(algorithm: .crc32c, value: checksum)
            block.source = .payloadLength(UInt32(count))
            return block
        }
        let payload = Array((0..<12).map { _ in packed }.joined())
        let looks = Mutex(0)
        // The call's begin, and the first of three steps of 16 MiB.
        let gone = CallContext(account: ServiceHarness.alice.account) {
            looks.withLock { looks in
                looks += 1
                return looks > 2
            }
        }
        #expect(refusal { try harness.upload(request, payload: payload, as: gone) }?.code == .cancelled)
        let token = raw.withUnsafeBytes { SHA256.hash($0).bytes }
        #expect(try present(harness, [token]) == [0])
        looks.withLock { $0 = -100 }
        let answer = try harness.upload(request, payload: payload, as: gone)
        #expect(answer.chunks.map(\.token) == (0..<12).map { _ in token })
        #expect(answer.chunks.map(\.offset) == (0..<12).map { UInt64($0 * raw.count) })
        // And before its commit.
        #expect(looks.withLock { $0 } >= -100 + 5)
        // What is wrong with a later block is said before anything is hashed.
        request.blocks[0].checksum?.value[0] ^= 1
        request.blocks[11].offset = 512
        let wrong = refusal { try harness.upload(request, payload: payload) }
        #expect(wrong?.code == .invalidArgument && wrong?.blockIndex == 11)
    }
}
