import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire
import Testing

@Suite(.serialized, .server())
struct UploadTests {
    private let server = ServerProcess.shared
    private let chunk = 65536

    /// A volume of 1 MiB full of noise.
    private func filled(_ seed: UInt64) async throws -> (caller: Caller, volume: [UInt8], bytes: [UInt8]) {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(seed, 1 << 20)
        try await caller.upload(volume, .plain(0, bytes))
        return (caller, volume, bytes)
    }

    /// The call must fail so, and leave the volume as it was.
    private func refuse(
        _ uploads: [Upload],
        _ reason: Wire.Reason,
        block: Int?,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let (caller, volume, bytes) = try await filled(21)
        let error = try await failure { try await caller.upload(volume, uploads) }
        #expect(error.reason == reason, "\(error)", sourceLocation: sourceLocation)
        #expect(error.status == reason.status, sourceLocation: sourceLocation)
        #expect(error.blockIndex == block, "\(error)", sourceLocation: sourceLocation)
        #expect(try await caller.download(volume, 0..<1 << 20) == bytes, sourceLocation: sourceLocation)
    }

    @Test("U1: blocks of every kind in one call: plain over many chunks, LZ4, token, zeros, hole, parts")
    func everyKind() async throws {
        var (caller, volume, expected) = try await filled(22)
        let known = Array(expected[0..<chunk])
        let plain = Content.noise(23, 150_016)
        let packed = Content.text(24, chunk)
        let part = Content.noise(25, 1024)
        let answer = try await caller.upload(
            volume,
            .plain(65536 + 512, plain),
            .lz4(4 * 65536, packed),
            .token(5 * 65536, Content.token(known)),
            .zeros(6 * 65536, 65536),
            .hole(7 * 65536, 65536),
            .plain(8 * 65536 + 2048, part),
            .zeros(9 * 65536 + 512, 512)
        )
        expected.replaceSubrange(chunk + 512..<chunk + 512 + plain.count, with: plain)
        expected.replaceSubrange(4 * chunk..<5 * chunk, with: packed)
        expected.replaceSubrange(5 * chunk..<6 * chunk, with: known)
        expected.replaceSubrange(6 * chunk..<8 * chunk, with: [UInt8](repeating: 0, count: 2 * chunk))
        expected.replaceSubrange(8 * chunk + 2048..<8 * chunk + 3072, with: part)
        expected.replaceSubrange(9 * chunk + 512..<9 * chunk + 1024, with: [UInt8](repeating: 0, count: 512))
        #expect(try await caller.download(volume, 0..<1 << 20) == expected)
        // U6: the tokens of whole chunks, computed here too; none for parts.
        let tokens = Dictionary(answer.chunks.map { ($0.offset, $0.token) }, uniquingKeysWith: { $1 })
        #expect(
            tokens == [
                131072: Content.token(Array(expected[2 * chunk..<3 * chunk])), 4 * 65536: Content.token(packed),
                5 * 65536: Content.token(known),
            ]
        )
        #expect(answer.dataVersion == 2)
        #expect(answer.writeVerifier.count == 8)
    }

    @Test("U2: one bad block, and nothing of the call is written", arguments: 0..<3)
    func allOrNothing(_ bad: Int) async throws {
        var uploads = (0..<3).map { Upload.plain(UInt64($0) * 65536, Content.noise(UInt64(30 + $0), 65536)) }
        uploads[bad].block.checksum = Content.crc32c([1])
        try await refuse(uploads, .checksumError, block: bad)
    }

    @Test(
        "U3: ranges that are no multiples of 512, empty, or not within the volume are INVALID_ARGUMENT naming the block",
        arguments: [
            (1, 512), (512, 513), (0, 0), ((1 << 20) - 512, 1024), (1 << 20, 512), (1 << 40, 512),
            (UInt64.max - 511, 512),
            (UInt64.max - 511, 1024),
        ] as [(UInt64, Int)]
    )
    func ranges(_ offset: UInt64, _ length: Int) async throws {
        let good = Upload.plain(0, Content.noise(31, 512))
        try await refuse([good, .plain(offset, Content.noise(32, length))], .invalidArgument, block: 1)
        try await refuse([good, .zeros(offset, UInt32(length))], .invalidArgument, block: 1)
    }

    @Test("U3: any range of sectors works, and reads back over the old bytes")
    func parts() async throws {
        var (caller, volume, expected) = try await filled(33)
        var generator = SeededRandom(seed: 34)
        for round in 0..<60 {
            let count = Int.random(in: 1...300, using: &generator)
            let first = Int.random(in: 0...(2048 - count), using: &generator)
            let bytes = Content.noise(UInt64(1000 + round), count * 512)
            try await caller.upload(volume, .plain(UInt64(first * 512), bytes))
            expected.replaceSubrange(first * 512..<(first + count) * 512, with: bytes)
            if round % 20 == 19 { #expect(try await caller.download(volume, 0..<1 << 20) == expected) }
        }
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        #expect(try await caller.seal(snapshot) == Content.seal(expected, chunkSize: chunk))
        #expect(try await caller.download(volume, 0..<1 << 20) == expected)
    }

    @Test("U4: each checksum algorithm is checked, over the uncompressed bytes, both ways")
    func checksums() async throws {
        let (caller, volume, _) = try await filled(35)
        let bytes = Content.text(36, chunk)
        let sums: [(Wire.ChecksumAlgorithm, [UInt8])] = [
            (.crc32c, bytes.withUnsafeBytes { Content.littleEndian(CRC32C.extend(0, $0)) }),
            (.crc32, bytes.withUnsafeBytes { Content.littleEndian(CRC32.extend(0, $0)) }),
            (.md5, bytes.withUnsafeBytes { MD5.hash($0) }), (.sha256, bytes.withUnsafeBytes { SHA256.hash($0).bytes }),
        ]
        for (algorithm, value) in sums {
            for make in [{ Upload.plain(0, $0) }, { Upload.lz4(0, $0) }] as [([UInt8]) -> Upload] {
                var upload = make(bytes)
                upload.block.checksum = Wire.Checksum(algorithm: algorithm, value: value)
                try await caller.upload(volume, upload)
                upload.block.checksum!.value[0] ^= 1
                let error = try await failure { try await caller.upload(volume, .zeros(0, 512), upload) }
                #expect(error.reason == .checksumError)
                #expect(error.blockIndex == 1)
                #expect(error.isRetryable)
            }
            for codecs in [[Wire.Codec.lz4], []] {
                let read = try await caller.download(
                    .volumeID(volume),
                    [0..<UInt64(chunk)],
                    codecs: codecs,
                    algorithm: algorithm
                )
                #expect(read.bytes == bytes)
                #expect(read.blocks.map(\.checksum) == [Wire.Checksum(algorithm: algorithm, value: value)])
            }
        }
    }

    @Test("U4: a missing checksum, an unknown algorithm and a wrong length are INVALID_ARGUMENT naming the block")
    func badChecksums() async throws {
        for checksum in [
            nil, Wire.Checksum(algorithm: .md5, value: [1, 2, 3, 4]), .init(algorithm: .init(rawValue: 9), value: [1]),
        ] {
            var upload = Upload.plain(512, Content.noise(37, 512))
            upload.block.checksum = checksum
            try await refuse([.plain(0, Content.noise(38, 512)), upload], .invalidArgument, block: 1)
        }
    }

    @Test("U6: the token is the chunk's SHA-256, also of zeros, and a chunk may be uploaded by it")
    func tokens() async throws {
        let (caller, volume, bytes) = try await filled(39)
        let zeros = [UInt8](repeating: 0, count: chunk)
        let answer = try await caller.upload(volume, .plain(0, zeros), .token(65536, Content.token(zeros)))
        #expect(answer.chunks.map(\.token) == [Content.token(zeros), Content.token(zeros)])
        let other = try await caller.createVolume().volumeID
        try await caller.upload(other, .token(3 * 65536, Content.token(Array(bytes[2 * chunk..<3 * chunk]))))
        #expect(try await caller.download(other, 3 * 65536..<4 * 65536) == Array(bytes[2 * chunk..<3 * chunk]))
    }

    @Test("V10, A1: a chunk that lies on another shard is uploaded by its token, as noise, text and a shorter last one")
    func tokensAcrossShards() async throws {
        let caller = try await server.connect(freshAccount())
        let size = (1 << 20) + 512
        let source = try await caller.createVolume(size: UInt64(size)).volumeID
        let bytes = Content.noise(53, 2 * chunk) + Content.text(54, size - 2 * chunk)
        let tokens = try await caller.upload(source, .plain(0, bytes)).chunks.map(\.token)
        var shards: Set<ShardIndex> = []
        // Shards are chosen by chance: until both had their turn.
        for round in 0..<64 where round < 4 || shards.count < 2 {
            let target = try await caller.createVolume(size: UInt64(size)).volumeID
            shards.insert(UUID128(bytes: target)!.shard)
            let uploads = tokens.enumerated().map { index, token in
                Upload.token(UInt64(index * chunk), token, length: UInt32(min(chunk, size - index * chunk)))
            }
            #expect(try await caller.upload(target, uploads).chunks.map(\.token) == tokens)
            #expect(try await caller.download(target, 0..<UInt64(size)) == bytes)
            let snapshot = try await caller.createSnapshot(target).snapshotID
            #expect(try await caller.seal(snapshot) == Content.seal(bytes, chunkSize: chunk))
        }
        #expect(shards.count == 2)
    }

    @Test("U1: a token of another chunk size, or of more data than the volume's last chunk has room for, is refused")
    func tokensThatDoNotFit() async throws {
        let caller = try await server.connect(freshAccount())
        let key = Array("together".utf8)
        for affinity in [key, []] {
            let small = try await caller.createVolume(chunkSize: 4096, affinity: affinity).volumeID
            let large = try await caller.createVolume(chunkSize: 65536, affinity: affinity).volumeID
            let short = try await caller.createVolume(size: (1 << 20) + 512, affinity: affinity).volumeID
            let (little, much) = (Content.noise(55, 4096), Content.noise(56, chunk))
            try await caller.upload(small, .plain(0, little))
            try await caller.upload(large, .plain(0, much))
            for (target, upload) in [
                (large, .token(65536, Content.token(little, chunkSize: 4096))),
                (small, .token(8192, Content.token(much), length: 4096)),
                (short, .token(1 << 20, Content.token(much), length: 512)),
            ] as [([UInt8], Upload)] {
                let error = try await failure { try await caller.upload(target, .zeros(0, 512), upload) }
                #expect(error.reason == .invalidChunkToken)
                #expect(error.blockIndex == 1)
            }
            // Zeros beyond the volume's end are no data: the same token.
            let padded = Content.noise(57, 512) + [UInt8](repeating: 0, count: chunk - 512)
            try await caller.upload(large, .plain(2 * 65536, padded))
            try await caller.upload(short, .token(1 << 20, Content.token(padded), length: 512))
            #expect(try await caller.download(short, 1 << 20..<(1 << 20) + 512) == Content.noise(57, 512))
            _ = try await caller.call(Wire.ResizeVolumeRequest(volumeID: short, size: 2 << 20))
            #expect(
                try await caller.download(short, 1 << 20..<2 << 20) == padded + [UInt8](repeating: 0, count: 15 * chunk)
            )
        }
    }

    @Test("U1: a token that the account does not have is INVALID_CHUNK_TOKEN, naming the block")
    func unknownTokens() async throws {
        let good = Upload.plain(0, Content.noise(40, 512))
        try await refuse([good, .token(65536, [UInt8](repeating: 7, count: 32))], .invalidChunkToken, block: 1)
        // Of bytes that come with the same call: nothing was here before it.
        let fresh = Content.noise(41, chunk)
        try await refuse([.plain(0, fresh), .token(65536, Content.token(fresh))], .invalidChunkToken, block: 1)
    }

    @Test("U1, U9: LZ4 that does not decode to exactly its length, or is no whole chunk, is INVALID_ARGUMENT")
    func badLZ4() async throws {
        let raw = Content.text(42, chunk)
        let good = Content.lz4(raw)
        let longer = Content.lz4(raw + [1, 2, 3])
        let shorter = Content.lz4(Array(raw.dropLast(512)))
        for packed in [longer, shorter, Array(good.dropLast(3)), [], Content.noise(43, 2000)] {
            try await refuse([.zeros(0, 512), .lz4(65536, raw, packed: packed)], .invalidArgument, block: 1)
        }
        try await refuse([.zeros(0, 512), .lz4(512, raw)], .invalidArgument, block: 1)
        try await refuse([.lz4(0, Content.text(44, 4096))], .invalidArgument, block: 0)
    }

    @Test("U1: a payload that the blocks do not own exactly is INVALID_ARGUMENT")
    func payload() async throws {
        let (caller, volume, _) = try await filled(45)
        let upload = Upload.plain(0, Content.noise(46, 1024))
        for bytes in [upload.bytes + [0], Array(upload.bytes.dropLast()), []] {
            let request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume)), blocks: [upload.block])
            #expect(try await failure { try await caller.call(request, payload: bytes) }.reason == .invalidArgument)
        }
        var odd = upload
        odd.block.source = nil
        odd.bytes = []
        #expect(try await failure { try await caller.upload(volume, odd) }.blockIndex == 0)
        #expect(try await failure { try await caller.upload(volume, []) }.reason == .invalidArgument)
        let many = (0..<4097).map { Upload.zeros(UInt64($0 % 2048) * 512, 512) }
        #expect(try await failure { try await caller.upload(volume, many) }.reason == .invalidArgument)
    }

    @Test(
        "U5: data_version on a volume is a precondition on what is replaced: newer chunks are left alone and reported"
    )
    func superseded() async throws {
        let (caller, volume, bytes) = try await filled(47)
        _ = try await caller.createSnapshot(volume)
        let new = Content.noise(48, chunk)
        try await caller.upload(volume, .plain(65536, new))
        let late = Content.noise(49, 3 * chunk)
        let answer = try await caller.upload(volume, [.plain(0, late)], dataVersion: 2)
        #expect(answer.superseded == [65536])
        var expected = bytes
        expected.replaceSubrange(0..<chunk, with: late[0..<chunk])
        expected.replaceSubrange(chunk..<2 * chunk, with: new)
        expected.replaceSubrange(2 * chunk..<3 * chunk, with: late[(2 * chunk)...])
        #expect(try await caller.download(volume, 0..<1 << 20) == expected)
        let future = try await failure { try await caller.upload(volume, [.zeros(0, 512)], dataVersion: 9) }
        #expect(future.reason == .invalidDataVersion)
    }

    @Test("U8: ON_FLUSH and Flush carry one write verifier, and the data is visible at once")
    func flush() async throws {
        let (caller, volume, _) = try await filled(50)
        let bytes = Content.noise(51, 4096)
        let early = try await caller.upload(volume, [.plain(4096, bytes)], durability: .onFlush)
        #expect(try await caller.download(volume, 4096..<8192) == bytes)
        let flushed = try await caller.call(Wire.FlushRequest(volumeID: volume)).message
        #expect(flushed.writeVerifier == early.writeVerifier)
        #expect(early.writeVerifier.count == 8)
    }

    @Test("U3: a part of a chunk costs no more than its own bytes, and a little, on disk")
    func smallWrites() async throws {
        let (caller, volume, _) = try await filled(52)
        let before = try server.writtenBytes
        for index in 0..<200 {
            try await caller.upload(
                volume,
                .plain(UInt64(index % 16) * 65536 + 1024, Content.noise(UInt64(index), 512))
            )
        }
        // The bytes, their record and commit, the answer; whole chunks would be 65,536 each.
        #expect(try server.writtenBytes - before < 200 * 16384)
    }

    @Test("Uploads of many connections at once, to the same volumes, end as the last of each chunk's writers left it")
    func parallel() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volumes = [try await caller.createVolume().volumeID, try await caller.createVolume().volumeID]
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<8 {
                group.addTask {
                    let own = try await server.connect(account)
                    for round in 0..<10 {
                        let bytes = Content.noise(UInt64(writer * 100 + round), 131072)
                        try await own.upload(volumes[writer % 2], .plain(UInt64(writer / 2) * 131072, bytes))
                    }
                }
            }
            try await group.waitForAll()
        }
        for writer in 0..<8 {
            let start = UInt64(writer / 2) * 131072
            #expect(
                try await caller.download(volumes[writer % 2], start..<start + 131072)
                    == Content.noise(UInt64(writer * 100 + 9), 131072)
            )
        }
    }
}
