import CairnCore
import CairnWire
import Foundation
import Testing

/// SPEC U7 and R1: chunks without a place, and their leases.
@Suite(.serialized, .server(shards: 3, "lease-seconds=1"))
struct LeaseTests {
    private let server = ServerProcess.shared
    private let chunk = 65536
    private static let day: UInt64 = 24 * 3600 * 1000

    @Test(
        "U7, A1: staged chunks are the account's for the stated lease, 24 hours unless told otherwise, and used by token"
    )
    func staged() async throws {
        let (caller, other) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let chunks = [Content.noise(1, chunk), Content.text(2, chunk), Content.noise(3, 512)]
        let before = UnixTime.milliseconds
        let answer = try await caller.stage(chunks)
        #expect(answer.chunks.map(\.offset) == [0, 65536, 131072])
        let tokens = chunks.map { Content.token($0) }
        #expect(answer.chunks.map(\.token) == tokens)
        #expect((before + Self.day...UnixTime.milliseconds + Self.day).contains(answer.leaseExpiresAtMs))
        #expect(answer.writeVerifier.count == 8)
        let brief = try await caller.stage([Content.noise(4, chunk)], leaseSeconds: 60).leaseExpiresAtMs
        #expect((before + 60_000...UnixTime.milliseconds + 60_000).contains(brief))
        #expect(try await caller.present(tokens) == [true, true, true])
        #expect(try await other.present(tokens) == [false, false, false])
        // On whatever shard the volume is.
        for _ in 0..<8 {
            let volume = try await caller.createVolume().volumeID
            let uploads = tokens.enumerated().map { Upload.token(UInt64($0 * chunk), $1) }
            #expect(try await caller.upload(volume, uploads).chunks.map(\.token) == tokens)
            let expected = chunks[0] + chunks[1] + chunks[2] + [UInt8](repeating: 0, count: chunk - 512)
            #expect(try await caller.download(volume, 0..<UInt64(3 * chunk)) == expected)
        }
        let foreign = try await other.createVolume().volumeID
        try await expectFailure(.invalidChunkToken, block: 1) {
            try await other.upload(foreign, .zeros(0, 512), .token(65536, tokens[0]))
        }
    }

    @Test("U7, R1: a lease is renewed and released; what nobody holds is gone when it ends, what a volume holds stays")
    func leases() async throws {
        let caller = try await server.connect(freshAccount())
        let chunks = (0..<4).map { Content.noise(UInt64(10 + $0), chunk) }
        let tokens = chunks.map { Content.token($0) }
        try await caller.stage(Array(chunks[0..<3]), leaseSeconds: 10)
        let volume = try await caller.createVolume().volumeID
        try await caller.upload(volume, .token(0, tokens[2]), .plain(65536, chunks[3]))
        let before = UnixTime.milliseconds
        let renewed = try await caller.call(
            Wire.RenewLeaseRequest(tokens: [tokens[0], tokens[3]], leaseSeconds: 3600)
        ).message.leaseExpiresAtMs
        #expect((before + 3_600_000...UnixTime.milliseconds + 3_600_000).contains(renewed))
        try await expectGone(caller, tokens[1])
        #expect(try await caller.present(tokens) == [true, false, true, true])
        // Of a chunk in a volume, too: it outlives the volume.
        try await caller.deleteVolume(volume)
        try await expectGone(caller, tokens[2])
        #expect(try await caller.present([tokens[0], tokens[3]]) == [true, true])
        _ = try await caller.call(
            Wire.ReleaseLeaseRequest(tokens: [Content.token(Content.noise(19, chunk)), tokens[0], tokens[3]])
        )
        try await expectGone(caller, tokens[0])
        try await expectGone(caller, tokens[3])
    }

    /// QueryChunks itself pins what it finds, so it is asked at longer intervals than its lease.
    private func expectGone(_ caller: Caller, _ token: [UInt8]) async throws {
        let volume = try await caller.createVolume().volumeID
        try await eventually("the chunk's lease has ended", within: .seconds(60)) {
            try await Task.sleep(for: .milliseconds(200))
            guard let error = await attempt({ try await caller.upload(volume, .token(0, token)) }) else {
                try await caller.upload(volume, .hole(0, 65536))
                try await Task.sleep(for: .seconds(1))
                return false
            }
            return error.reason == .invalidChunkToken
        }
        try await caller.deleteVolume(volume)
    }

    private func attempt<Value>(_ body: () async throws -> Value) async -> CallError? {
        do { _ = try await body() } catch { return error as? CallError }
        return nil
    }

    @Test(
        "U7, R1, C3: renewing what the account has not is INVALID_CHUNK_TOKEN naming it, whoever else has it; nothing changes"
    )
    func unknown() async throws {
        let (caller, other) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        let (mine, foreign, none) = (Content.noise(20, chunk), Content.noise(21, chunk), Content.noise(22, chunk))
        try await caller.stage([mine], leaseSeconds: 3600)
        try await other.stage([foreign])
        var texts: Set<String> = []
        for bad in [foreign, none] {
            let request = Wire.RenewLeaseRequest(tokens: [Content.token(mine), Content.token(bad)])
            let error = try await failure { try await caller.call(request) }
            #expect(error.reason == .invalidChunkToken)
            #expect(error.blockIndex == 1)
            texts.insert(error.text.replacingOccurrences(of: Hex.encode(Content.token(bad)), with: "TOKEN"))
            let release = Wire.ReleaseLeaseRequest(tokens: [Content.token(bad)])
            #expect(try await caller.raw(release).status == 0)
        }
        #expect(texts.count == 1)
        #expect(try await other.present([Content.token(foreign)]) == [true])
        for seconds in [30 * 86400 + 1, .max] as [UInt32] {
            try await expectFailure(.invalidArgument) {
                try await caller.call(Wire.RenewLeaseRequest(tokens: [Content.token(mine)], leaseSeconds: seconds))
            }
            try await expectFailure(.invalidArgument) { try await caller.stage([mine], leaseSeconds: seconds) }
        }
    }

    @Test("U7, U2, U4: what is staged is checked as every upload is, all or nothing, and the block is named")
    func refusals() async throws {
        let caller = try await server.connect(freshAccount())
        let good = Upload.plain(0, Content.noise(30, chunk))
        var damaged = Upload.plain(65536, Content.noise(31, chunk))
        damaged.block.checksum = Content.crc32c([1])
        let bad: [(Upload, Wire.Reason)] = [
            (damaged, .checksumError), (.plain(512, Content.noise(32, chunk)), .invalidArgument),
            (.zeros(65536, 65536), .invalidArgument), (.hole(65536, 65536), .invalidArgument),
            (.token(65536, Content.token(good.bytes)), .invalidArgument),
            (.lz4(65536, Content.text(33, chunk), packed: Content.noise(34, 3000)), .invalidArgument),
        ]
        for (upload, reason) in bad {
            try await expectFailure(reason, block: 1) {
                try await caller.call(
                    Wire.UploadBlockRequest(blocks: [good.block, upload.block], chunkSize: UInt32(chunk)),
                    payload: good.bytes + upload.bytes
                )
            }
        }
        #expect(try await caller.present([Content.token(good.bytes)]) == [false])
    }

    @Test("U7: staged chunks and their leases are there after kill -9")
    func durable() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        let bytes = Content.noise(40, chunk)
        try await server.connect(account).stage([bytes])
        try await server.crash()
        try await server.start()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        try await caller.upload(volume, .token(65536, Content.token(bytes)))
        #expect(try await caller.download(volume, 65536..<131072) == bytes)
    }
}
