import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Testing

@testable import CairnService

@Suite struct BlockTests {
    @Test("U1, U3, U6, D1: plain blocks over chunks and within them come back")
    func plainBlocks() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let big = noise(200_192, seed: 1)
        let answer = try harness.write(big, at: 512, to: volume)
        // Two of the four chunks that the block touches are whole.
        #expect(answer.chunks.map(\.offset) == [65536, 131072])
        #expect(try harness.read(.volumeID(volume), 512, 200_192) == big)
        let small = noise(512, seed: 2)
        try harness.write(small, at: 66048, to: volume)
        var expected = big
        expected.replaceSubrange(66048 - 512..<66560 - 512, with: small)
        #expect(try harness.read(.volumeID(volume), 512, 200_192) == expected)
        #expect(try harness.read(.volumeID(volume), 0, 512) == [UInt8](repeating: 0, count: 512))
        let token = try #require(answer.chunks.last).token
        let chunk = Array(big[131072 - 512..<196608 - 512])
        #expect(token == chunk.withUnsafeBytes { SHA256.hash($0).bytes })
    }

    @Test("U2, U4: a wrong checksum names its block, and nothing of the call is written")
    func checksumError() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        let bytes = noise(65536, seed: 3)
        request.blocks = [ServiceHarness.block(bytes, at: 0), ServiceHarness.block(bytes, at: 65536)]
        request.blocks[1].checksum!.value[0] ^= 1
        let error = #expect(throws: ServiceError.self) { try harness.upload(request, payload: bytes + bytes) }
        #expect(error?.code == .checksumError && error?.blockIndex == 1)
        #expect(try harness.read(.volumeID(volume), 0, 131072).allSatisfy { $0 == 0 })
    }

    @Test("U4: every algorithm", arguments: [Wire.ChecksumAlgorithm.crc32c, .crc32, .md5, .sha256])
    func algorithms(algorithm: Wire.ChecksumAlgorithm) throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let bytes = noise(65536, seed: 4)
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.blocks = [ServiceHarness.block(bytes, at: 0)]
        request.blocks[0].checksum = Wire.Checksum(
            algorithm: algorithm,
            value: bytes.withUnsafeBytes { Checksum.value(algorithm, over: $0) }
        )
        _ = try harness.upload(request, payload: bytes)
        var download = Wire.DownloadBlockRequest()
        download.target = Wire.Target(target: .volumeID(volume))
        download.ranges = [Wire.ByteRange(offset: 0, length: 65536)]
        download.checksumAlgorithm = algorithm
        let answer = try harness.call(harness.service.downloadBlock, download)
        #expect(answer.message.blocks.first?.checksum?.algorithm == algorithm)
        #expect(try ServiceHarness.bytes(of: answer) == bytes)
        request.blocks[0].checksum = nil
        let error = #expect(throws: ServiceError.self) { try harness.upload(request, payload: bytes) }
        #expect(error?.code == .invalidArgument)
    }

    @Test("U3: offsets and lengths that do not fit name the block")
    func illegalRanges() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let ranges: [(UInt64, Int)] = [(1, 512), (0, 513), (4 << 20, 512), (.max - 511, 512), ((4 << 20) - 512, 1024)]
        for (offset, length) in ranges {
            var request = Wire.UploadBlockRequest()
            request.target = Wire.Target(target: .volumeID(volume))
            let good = noise(512, seed: 5)
            let bytes = noise(length, seed: 5)
            request.blocks = [ServiceHarness.block(good, at: 0), ServiceHarness.block(bytes, at: offset)]
            let error = #expect(throws: ServiceError.self) { try harness.upload(request, payload: good + bytes) }
            #expect(error?.code == .invalidArgument && error?.blockIndex == 1)
        }
    }

    @Test("U1, U9: LZ4 is one whole chunk, decodes exactly, and comes back as it was stored (D3)")
    func lz4() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let raw = (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 100) }
        var packed = [UInt8](repeating: 0, count: LZ4.bound(raw.count))
        let count = try #require(
            raw.withUnsafeBytes { from in packed.withUnsafeMutableBytes { LZ4.compress(from, into: $0) } }
        )
        packed.removeSubrange(count...)
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.blocks = [ServiceHarness.block(raw, at: 65536)]
        request.blocks[0].codec = .lz4
        request.blocks[0].source = .payloadLength(UInt32(packed.count))
        _ = try harness.upload(request, payload: packed)
        var download = Wire.DownloadBlockRequest()
        download.target = Wire.Target(target: .volumeID(volume))
        download.ranges = [Wire.ByteRange(offset: 65536, length: 65536)]
        download.acceptedCodecs = [.lz4]
        let answer = try harness.call(harness.service.downloadBlock, download)
        #expect(answer.message.blocks.first?.codec == .lz4 && answer.payload.first.map { Array($0.bytes) } == packed)
        #expect(try harness.read(.volumeID(volume), 65536, 65536, acceptLZ4: false) == raw)
        #expect(try harness.read(.volumeID(volume), 66048, 1024) == Array(raw[512..<1536]))

        request.blocks[0].offset = 0
        var short = request
        short.blocks[0].source = .payloadLength(UInt32(packed.count - 1))
        // Whole LZ4, of fewer bytes than it is said to be.
        var half = [UInt8](repeating: 0, count: LZ4.bound(raw.count / 2))
        let halfCount = try #require(
            raw[..<(raw.count / 2)].withUnsafeBytes { from in
                half.withUnsafeMutableBytes { LZ4.compress(from, into: $0) }
            }
        )
        half.removeSubrange(halfCount...)
        var less = request
        less.blocks[0].source = .payloadLength(UInt32(half.count))
        let wrong = [(request, noise(packed.count, seed: 6)), (short, Array(packed.dropLast())), (less, half)]
        for (bad, payload) in wrong {
            let error = #expect(throws: ServiceError.self) { try harness.upload(bad, payload: payload) }
            #expect(error?.code == .invalidArgument && error?.blockIndex == 0)
        }
        request.blocks[0].length = 512
        let error = #expect(throws: ServiceError.self) { try harness.upload(request, payload: packed) }
        #expect(error?.code == .invalidArgument)
    }

    @Test("U1, A1, C3: a token stands for a chunk that this account has, and for no other's")
    func tokens() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let bytes = noise(65536, seed: 7)
        let token = try #require(try harness.write(bytes, at: 0, to: volume).chunks.first).token
        func byToken(_ token: [UInt8], to volume: [UInt8], as context: CallContext) throws -> Wire.UploadBlockResponse {
            var request = Wire.UploadBlockRequest()
            request.target = Wire.Target(target: .volumeID(volume))
            request.blocks = [Wire.UploadBlock(offset: 131072, length: 65536, source: .token(token))]
            return try harness.upload(request, as: context)
        }
        _ = try byToken(token, to: volume, as: ServiceHarness.alice)
        #expect(try harness.read(.volumeID(volume), 131072, 65536) == bytes)
        let foreign = try harness.createVolume(as: ServiceHarness.bob).volumeID
        let error = #expect(throws: ServiceError.self) { try byToken(token, to: foreign, as: ServiceHarness.bob) }
        #expect(error?.code == .invalidChunkToken && error?.blockIndex == 0)
        let zero = ZeroChunk.fingerprint(ChunkSize(bytes: 65536)!).bytes
        let query = Wire.QueryChunksRequest(tokens: [noise(32, seed: 8), token, zero])
        #expect(try harness.call(harness.service.queryChunks, query).present == [0b110])
        #expect(try harness.call(harness.service.queryChunks, query, as: ServiceHarness.bob).present == [0b100])
    }

    @Test("V7: holes, written zeros and data are told apart, and a discard hides what is below")
    func threeStates() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        try harness.write(noise(65536, seed: 9), at: 0, to: volume)
        try harness.write([UInt8](repeating: 0, count: 65536), at: 65536, to: volume)
        let snapshot = try harness.call(harness.service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: volume))
            .snapshotID
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.blocks = [Wire.UploadBlock(offset: 0, length: 65536, source: .hole(.init()))]
        _ = try harness.upload(request)
        func states(_ target: Wire.Target.Target) throws -> [Wire.BlockState] {
            try harness.call(harness.service.listBlocks, Wire.ListBlocksRequest(target: .init(target: target))).blocks
                .map(\.state)
        }
        #expect(try states(.snapshotID(snapshot)) == [.data, .zeros])
        #expect(try states(.volumeID(volume)) == [.zeros])
        #expect(try harness.read(.volumeID(volume), 0, 65536).allSatisfy { $0 == 0 })
        #expect(try harness.read(.snapshotID(snapshot), 0, 65536) == noise(65536, seed: 9))
    }

    @Test("V6: the last, shorter chunk is padded for its fingerprint, and grows with the volume")
    func lastChunk() throws {
        let harness = try ServiceHarness()
        let size: UInt64 = (1 << 20) + 512
        let volume = try harness.createVolume(Wire.CreateVolumeRequest(size: size)).volumeID
        let tail = noise(512, seed: 10)
        let answer = try harness.write(tail, at: 1 << 20, to: volume)
        #expect(answer.chunks.first?.token == tail.withUnsafeBytes { SHA256.hash($0, padding: 65024).bytes })
        _ = try harness.call(harness.service.resizeVolume, Wire.ResizeVolumeRequest(volumeID: volume, size: 2 << 20))
        #expect(try harness.read(.volumeID(volume), 1 << 20, 65536) == tail + [UInt8](repeating: 0, count: 65024))
    }

    @Test("A4: a chunk that the client names as known is not sent")
    func knownTokens() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let token = try #require(try harness.write(noise(65536, seed: 11), at: 0, to: volume).chunks.first).token
        var request = Wire.DownloadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.ranges = [Wire.ByteRange(offset: 0, length: 65536)]
        request.knownTokens = [token]
        let answer = try harness.call(harness.service.downloadBlock, request)
        #expect(answer.payload.isEmpty && answer.message.blocks.first?.content == .known(.init()))
    }

    @Test("D1: ranges that sum up to more than the caller takes name the first that is too much, whatever is there")
    func longestPayload() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let bytes = noise(65536, seed: 17)
        try harness.write(bytes, at: 0, to: volume)
        // On a worker, and on the thread that the call came on.
        for mayReadHere in [false, true] {
            let caller = CallContext(
                account: ServiceHarness.alice.account,
                mayReadHere: mayReadHere,
                payloadLimit: 4096
            )
            func read(_ ranges: [Range<UInt64>]) throws -> [UInt8] {
                var request = Wire.DownloadBlockRequest(target: .init(target: .volumeID(volume)))
                request.ranges = ranges.map { Wire.ByteRange(offset: $0.lowerBound, length: UInt64($0.count)) }
                let answer = try harness.call(harness.service.downloadBlock, request, as: caller)
                return try ServiceHarness.bytes(of: answer)
            }
            #expect(try read([512..<4608]) == Array(bytes[512..<4608]))
            #expect(try read([0..<512, 1024..<4608]) == Array(bytes[0..<512]) + Array(bytes[1024..<4608]))
            // Data, data in two ranges, and a hole, which would have no payload.
            for (ranges, index) in [([0..<4608], 0), ([0..<512, 1024..<5120], 1), ([0..<4096, 131_072..<131_584], 1)]
                as [([Range<UInt64>], Int)]
            {
                let error = #expect(throws: ServiceError.self) { try read(ranges) }
                #expect(error?.code == .invalidArgument && error?.blockIndex == index, "\(ranges)")
            }
        }
    }

    @Test("U5: what a higher version wrote is left alone and reported")
    func superseded() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let old = try harness.write(noise(65536, seed: 12), at: 0, to: volume).dataVersion
        _ = try harness.call(harness.service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: volume))
        try harness.write(noise(65536, seed: 13), at: 0, to: volume)
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.dataVersion = old
        let late = noise(65536, seed: 14)
        request.blocks = [ServiceHarness.block(late, at: 0), ServiceHarness.block(late, at: 65536)]
        let answer = try harness.upload(request, payload: late + late)
        #expect(answer.superseded == [0] && answer.chunks.map(\.offset) == [65536])
        #expect(try harness.read(.volumeID(volume), 0, 131072) == noise(65536, seed: 13) + late)
    }

    @Test("U5: two parts of one chunk in one call do not supersede each other")
    func partsOfOneCall() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let old = try harness.write(noise(65536, seed: 15), at: 0, to: volume).dataVersion
        _ = try harness.call(harness.service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: volume))
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.dataVersion = old
        let part = noise(512, seed: 16)
        request.blocks = [ServiceHarness.block(part, at: 0), ServiceHarness.block(part, at: 1024)]
        #expect(try harness.upload(request, payload: part + part).superseded.isEmpty)
        #expect(try harness.read(.volumeID(volume), 1024, 512) == part)
    }
}
