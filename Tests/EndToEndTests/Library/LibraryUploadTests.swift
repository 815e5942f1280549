import CairnClient
import CairnCore
import CairnWire
import Testing

/// SPEC section 4 through the library.
@Suite(.serialized, .server(shards: 3, "lease-seconds=1"))
struct LibraryUploadTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536
    private let chunkSize = ChunkSize(bytes: 65536)!

    /// A volume of 1 MiB full of noise, and its bytes.
    private func filled(_ seed: UInt64) async throws -> (Client, BlockTarget, [UInt8]) {
        let client = try server.client(freshAccount(), .once)
        let target = BlockTarget.volume(try await client.volume().id)
        let bytes = Content.noise(seed, 1 << 20)
        try await client.write(bytes, to: target)
        return (client, target, bytes)
    }

    @Test("U1, U6: blocks of every kind in one call; the answer's tokens are the whole chunks' fingerprints")
    func everyKind() async throws {
        let (client, target, bytes) = try await filled(1)
        let (known, plain, packed) = (Array(bytes[0..<65536]), Content.noise(2, 150_016), Content.text(3, 65536))
        let answer = try await client.upload(
            [
                .plain(chunk + 512, plain), .lz4(4 * chunk, packed), .token(5 * chunk, known.token),
                .zeros(6 * chunk, 65536), .hole(7 * chunk, 65536), .zeros(9 * chunk + 512, 512),
            ],
            to: target
        )
        let expected = bytes.replacing(65536 + 512, plain).replacing(4 * 65536, packed).replacing(5 * 65536, known)
            .replacing(6 * 65536, [UInt8](repeating: 0, count: 2 * 65536))
            .replacing(9 * 65536 + 512, [UInt8](repeating: 0, count: 512))
        #expect(try await client.read(target) == expected)
        let covered = Array(expected[2 * 65536..<3 * 65536])
        #expect(answer.tokens == [2 * chunk: covered.token, 4 * chunk: packed.token, 5 * chunk: known.token])
        #expect(answer.dataVersion == DataVersion(2) && answer.writeVerifier.count == 8 && answer.superseded.isEmpty)
        let fresh = Content.noise(4, 65536)
        try await expectFailure(.invalidChunkToken, block: 1) {
            try await client.upload([.plain(0, fresh), .token(chunk, fresh.token)], to: target)
        }
    }

    @Test("U2, U3, U4, U9: one bad block is named, and nothing of the call is written")
    func allOrNothing() async throws {
        let (client, target, bytes) = try await filled(5)
        let good = BlockUpload.plain(0, Content.noise(6, 512))
        var spoiled = BlockUpload.plain(chunk, Content.noise(7, 65536))
        spoiled.checksum = Checksum(.crc32c, value: [1, 0, 0, 0])
        var unchecked = BlockUpload.lz4(chunk, Content.text(8, 65536))
        unchecked.checksum = nil
        let text = Content.text(9, 65536)
        let bad: [(BlockUpload, Wire.Reason)] = [
            (.plain(513, Content.noise(10, 512)), .invalidArgument),
            (.plain(512, Content.noise(10, 513)), .invalidArgument),
            (.zeros((1 << 20) - 512, 1024), .invalidArgument), (.hole(.max - 511, 512), .invalidArgument),
            (spoiled, .checksumError), (unchecked, .invalidArgument),
            (.lz4(chunk, text, packed: Content.lz4(text + [1, 2, 3])), .invalidArgument),
            (.lz4(chunk, text, packed: Content.lz4(Array(text.dropLast(512)))), .invalidArgument),
            (.lz4(chunk, text, packed: Content.noise(11, 2000)), .invalidArgument),
            // Of LZ4, whole chunks alone.
            (.lz4(chunk, Array(text.prefix(32768))), .invalidArgument), (.lz4(chunk + 512, text), .invalidArgument),
            (.lz4(chunk, text + text), .invalidArgument),
        ]
        for (block, reason) in bad {
            try await expectFailure(reason, block: 1) { try await client.upload([good, block], to: target) }
        }
        #expect(try await client.read(target) == bytes)
    }

    @Test(
        "U4: any algorithm, of plain, LZ4 and staged data, and of what comes back; one that does not fit writes nothing",
        arguments: ChecksumAlgorithm.allCases
    )
    func checksums(_ algorithm: ChecksumAlgorithm) async throws {
        var options = ClientOptions.once
        options.checksum = algorithm
        let client = try server.client(freshAccount(), options)
        let target = BlockTarget.volume(try await client.volume().id)
        let (noise, text, third) = (Content.noise(30, 150_016), Content.text(31, 65536), Content.noise(32, 65536))
        let staged = try await client.stage([third.slice], chunkSize: chunkSize).tokens
        _ = try await client.upload(
            [.plain(512, noise), .lz4(4 * chunk, text, checkedBy: algorithm), .token(5 * chunk, staged[0])],
            to: target
        )
        let expected = [UInt8](repeating: 0, count: 1 << 20).replacing(512, noise).replacing(4 * 65536, text)
            .replacing(5 * 65536, third)
        #expect(try await client.read(target) == expected)
        // A part of what is stored as LZ4.
        #expect(try await client.read(target, 4 * chunk + 512..<4 * chunk + 1536) == Array(text[512..<1536]))
        let other = Content.text(33, 65536)
        var (wrong, short) = (other.checksum(algorithm), other.checksum(algorithm))
        wrong.value[0] ^= 1
        short.value.removeLast()
        for (checksum, reason) in [(wrong, .checksumError), (short, .invalidArgument)] as [(Checksum, Wire.Reason)] {
            for block in [BlockUpload.plain(4 * chunk, other), .lz4(4 * chunk, other)] {
                var blocks = [BlockUpload.zeros(4 * chunk, 512), block]
                blocks[1].checksum = checksum
                let bad = blocks
                try await expectFailure(reason, block: 1) { try await client.upload(bad, to: target) }
            }
        }
        #expect(try await client.read(target) == expected)
    }

    @Test("U3: any range of sectors is written over what was there, in small calls beside one another")
    func parts() async throws {
        let (client, target, bytes) = try await filled(12)
        let parts = (0..<64).map { ($0 * 16384 + $0 % 20 * 512, Content.noise(UInt64(100 + $0), 512 * (1 + $0 % 12))) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (offset, part) in parts {
                group.addTask { try await client.write(part, at: UInt64(offset), to: target) }
            }
            try await group.waitForAll()
        }
        #expect(try await client.read(target) == parts.reduce(bytes) { $0.replacing($1.0, $1.1) })
        // A part costs its own bytes.
        let usage = try await client.usage().total
        #expect(usage.unique == 1 << 20)
        #expect(usage.stored <= (1 << 20) + UInt64(parts.reduce(0) { $0 + $1.1.count + 512 }))
    }

    @Test("U5: newer chunks are left alone and reported, the others commit; a version that does not exist is refused")
    func superseded() async throws {
        let (client, target, bytes) = try await filled(13)
        guard case .volume(let volume) = target else { return }
        let version = try await client.createSnapshot(of: volume).dataVersion
        let (new, late) = (Content.noise(14, 65536), Content.noise(15, 3 * 65536))
        try await client.write(new, at: chunk, to: target)
        let answer = try await client.upload([.plain(0, late)], to: target, dataVersion: version)
        #expect(answer.superseded == [chunk])
        #expect(Set(answer.tokens.keys) == [0, 2 * chunk])
        #expect(try await client.read(target) == bytes.replacing(0, late).replacing(65536, new))
        // A discard and a part of a chunk are as new as a whole one.
        let (range, part) = ([(4 * chunk..<5 * chunk).block], Content.noise(42, 512))
        try await client.discard(range, of: target)
        try await client.write(part, at: 5 * chunk + 512, to: target)
        let again = try await client.upload([.plain(3 * chunk, late)], to: target, dataVersion: version)
        #expect(again.superseded == [4 * chunk, 5 * chunk] && Set(again.tokens.keys) == [3 * chunk])
        let expected = bytes.replacing(0, late).replacing(65536, new).replacing(3 * 65536, Array(late[0..<65536]))
            .replacing(4 * 65536, [UInt8](repeating: 0, count: 65536)).replacing(5 * 65536 + 512, part)
        #expect(try await client.read(target) == expected)
        // Parts of chunks, too, come too late, whole calls of them.
        let parts = try await client.upload(
            [.plain(chunk + 512, part), .zeros(4 * chunk, 512), .plain(6 * chunk + 512, part)],
            to: target,
            dataVersion: version
        )
        #expect(parts.superseded == [chunk, 4 * chunk] && parts.tokens.isEmpty)
        #expect(try await client.read(target) == expected.replacing(6 * 65536 + 512, part))
        try await expectFailure(.invalidDataVersion) {
            try await client.upload([.zeros(0, 512)], to: target, dataVersion: DataVersion(9))
        }
    }

    @Test("U7: staged chunks are the account's for their lease, and named by token; a lease is renewed and released")
    func staging() async throws {
        let (client, other) = (try server.client(freshAccount()), try server.client(freshAccount()))
        let chunks = [Content.noise(16, 65536), Content.text(17, 65536), Content.noise(18, 65536)]
        let before = UnixTime.milliseconds
        let staged = try await client.stage(chunks.map(\.slice), chunkSize: chunkSize)
        #expect(staged.tokens == chunks.map(\.token))
        let day: UInt64 = 86_400_000
        #expect((before + day...UnixTime.milliseconds + day).contains(staged.leaseExpiresAt.milliseconds))
        let renewed = try await client.renewLease(of: [staged.tokens[0]], for: .seconds(7200)).milliseconds
        #expect((before + 7_200_000...UnixTime.milliseconds + 7_200_000).contains(renewed))
        #expect(try await client.queryChunks(staged.tokens).isPresent == [true, true, true])
        #expect(try await other.queryChunks(staged.tokens).isPresent == [false, false, false])
        #expect(try await client.usage().total.unique == 3 * chunk)
        let target = BlockTarget.volume(try await client.volume().id)
        let sent = try await client.upload([.token(chunk, staged.tokens[1])], to: target)
        #expect(sent.tokens == [chunk: staged.tokens[1]])
        #expect(try await client.read(target, chunk..<2 * chunk) == chunks[1])
        let unknown = Content.noise(19, 65536).token
        try await expectFailure(.invalidChunkToken, block: 1) {
            try await client.renewLease(of: [staged.tokens[0], unknown])
        }
        try await expectFailure(.invalidArgument) {
            try await client.renewLease(of: [staged.tokens[0]], for: .seconds(30 * 86400 + 1))
        }
        try await client.releaseLease(of: staged.tokens + [unknown])
        // What the volume holds stays, the rest is let go, and is gone when nobody was promised it any more.
        try await eventually("only the volume's chunk is left") { try await client.usage().total.unique == chunk }
        try await Task.sleep(for: .milliseconds(1500))
        try await eventually("the others are gone", within: .seconds(60)) {
            let found = try await client.queryChunks(staged.tokens).isPresent
            guard found != [false, true, false] else { return true }
            try await Task.sleep(for: .milliseconds(1500))
            return false
        }
        try await expectFailure(.invalidChunkToken, block: 0) {
            try await client.upload([.token(0, staged.tokens[0])], to: target)
        }
        do throws(ClientError) {
            _ = try await client.stage([Content.noise(20, 512).slice], chunkSize: chunkSize)
            Issue.record("a part of a chunk was staged")
        } catch { #expect(error.code == .invalidRequest) }
    }

    @Test("U7: at the end of its lease a staged chunk is gone")
    func leaseEnd() async throws {
        let client = try server.client(freshAccount(), .once)
        let target = BlockTarget.volume(try await client.volume().id)
        let bytes = Content.noise(46, 65536)
        let staged = try await client.stage([bytes.slice], chunkSize: chunkSize, lease: .seconds(2))
        try await eventually("the lease ends") { try await client.usage().total.unique == 0 }
        #expect(UnixTime.milliseconds >= staged.leaseExpiresAt.milliseconds)
        try await expectFailure(.invalidChunkToken, block: 0) {
            try await client.upload([.token(0, staged.tokens[0])], to: target)
        }
        try await expectFailure(.invalidChunkToken, block: 0) { try await client.renewLease(of: staged.tokens) }
    }

    @Test("U8: what is answered is there after kill -9; ON_FLUSH and Flush carry one verifier, which recovery changes")
    func durable() async throws {
        let server = try await ServerProcess.started()
        let client = try server.client("writer")
        let volume = try await client.volume().id
        let (kept, flushed) = (Content.noise(21, 65536), Content.noise(22, 4096))
        try await client.write(kept, to: .volume(volume))
        let early = try await client.upload([.plain(chunk, flushed)], to: .volume(volume), durability: .onFlush)
        #expect(try await client.read(.volume(volume), chunk..<chunk + 4096) == flushed)
        #expect(try await client.flush(volume) == early.writeVerifier)
        try await server.crash()
        try await server.start(sameAddress: true)
        #expect(try await client.read(.volume(volume), 0..<chunk + 4096) == kept + flushed)
        #expect(try await client.flush(volume) != early.writeVerifier)
    }

    @Test(
        "U8, R4: where a disk takes no writes, nothing is acknowledged, and health says so; then the verifier is another, and nothing is lost"
    )
    func fenced() async throws {
        nonisolated(unsafe) var made: FaultPlan?
        let server = try await ServerProcess(shards: 1) { folder in
            let plan = try FaultPlan(folder: folder.file("store"), in: folder)
            made = plan
            return plan.environment
        }
        let plan = try #require(made)
        try await server.start()
        let (client, once) = (try server.client("writer"), try server.client("writer", .once))
        let volume = try await client.volume().id
        let kept = Content.noise(43, 65536)
        let verifier = try await client.write(kept, to: .volume(volume)).writeVerifier
        #expect(try await client.healthProblems() == [])
        plan.arm([.write, .fsync, .fdatasync], at: 1, .eio, .on, in: ".seg")
        for _ in 0..<2 {
            let error = try await failure { try await once.write(Content.noise(44, 65536), to: .volume(volume)) }
            #expect(error.reason == .unavailable && error.isRetryable, "\(error)")
        }
        let problems = try await client.healthProblems()
        #expect(problems.count == 1 && problems[0].contains("shard 0"), "\(problems)")
        // The library comes again until the disk does what it is told.
        let last = Content.noise(45, 65536)
        async let sent = client.write(last, at: chunk, to: .volume(volume))
        try await Task.sleep(for: .milliseconds(500))
        plan.disarm()
        let answer = try await sent
        #expect(answer.writeVerifier != verifier)
        #expect(try await client.flush(volume) == answer.writeVerifier)
        #expect(try await client.healthProblems() == [])
        #expect(try await client.read(.volume(volume), 0..<2 * chunk) == kept + last)
    }
}
