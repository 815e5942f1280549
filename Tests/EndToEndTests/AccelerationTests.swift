import CairnCore
import CairnWire
import Foundation
import Testing

/// SPEC section 6: only what is new travels, packed, and side by side.
@Suite(.serialized, .server())
struct AccelerationTests {
    private let server = ServerProcess.shared
    private let chunk = 65536

    @Test("A2, D3: what LZ4 makes smaller travels and rests small, both ways; incompressible data goes as it is")
    func compression() async throws {
        let server = try await ServerProcess.started(shards: 1)
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let text = (0..<16).map { Content.text(UInt64(1 + $0), chunk) }
        let before = try server.writtenBytes
        // Sent plain: the server packs it.
        for (index, bytes) in text.enumerated() where index < 8 {
            try await caller.upload(volume, .plain(UInt64(index * chunk), bytes))
        }
        for (index, bytes) in text.enumerated() where index >= 8 {
            try await caller.upload(volume, .lz4(UInt64(index * chunk), bytes))
        }
        #expect(try server.writtenBytes - before < 4 * chunk)
        let ranges = [0..<UInt64(16 * chunk)]
        let reply = try await caller.call(
            Wire.DownloadBlockRequest(
                target: .init(target: .volumeID(volume)),
                ranges: [.init(offset: 0, length: UInt64(16 * chunk))],
                acceptedCodecs: [.lz4]
            )
        )
        #expect(reply.message.blocks.map(\.codec) == Array(repeating: .lz4, count: 16))
        #expect(reply.payload.count < 2 * chunk)
        #expect(try Downloaded(reply, ranges).bytes == text.flatMap { $0 })
        // A client that does not take LZ4 gets the bytes.
        #expect(try await caller.download(.volumeID(volume), ranges, codecs: []).bytes == text.flatMap { $0 })

        let noise = Content.noise(30, chunk)
        let middle = try server.writtenBytes
        try await caller.upload(volume, .plain(0, noise))
        #expect(try server.writtenBytes - middle >= chunk)
        let plain = try await caller.download(.volumeID(volume), [0..<65536])
        #expect(plain.blocks.map(\.codec) == [.plain])
        #expect(plain.bytes == noise)
        // "Packed" noise is longer than the chunk; it is taken, and right.
        try await caller.upload(volume, .lz4(65536, Content.noise(31, chunk)))
        #expect(try await caller.download(volume, 65536..<131072) == Content.noise(31, chunk))
    }

    @Test("A3: hundreds of calls in flight on one connection are answered in any order, each with its own answer")
    func inFlight() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume(size: 4 << 20, chunkSize: 4096).volumeID
        let contents = (0..<512).map { Content.noise(UInt64(100 + $0), 4096) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, bytes) in contents.enumerated() {
                group.addTask { try await caller.upload(volume, .plain(UInt64(index) * 4096, bytes)) }
            }
            try await group.waitForAll()
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, bytes) in contents.enumerated() {
                group.addTask {
                    let start = UInt64(index) * 4096
                    let read = try await caller.download(volume, start..<start + 4096)
                    #expect(read == bytes)
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("A3: sixty connections of one account work side by side on one volume")
    func connections() async throws {
        let account = freshAccount()
        let first = try await server.connect(account)
        let volume = try await first.createVolume(size: 4 << 20, chunkSize: 4096).volumeID
        let server = server
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<60 {
                group.addTask {
                    let caller = try await server.connect(account)
                    let start = UInt64(index) * 65536
                    for round in 0..<3 {
                        let bytes = Content.noise(UInt64(1000 + index * 10 + round), 65536)
                        try await caller.upload(volume, .plain(start, bytes))
                        #expect(try await caller.download(volume, start..<start + 65536) == bytes)
                    }
                }
            }
            try await group.waitForAll()
        }
        let all = try await first.download(volume, 0..<60 * 65536)
        for index in 0..<60 {
            #expect(Array(all[index * 65536..<(index + 1) * 65536]) == Content.noise(UInt64(1002 + index * 10), 65536))
        }
    }

    @Test("A4: a download names the tokens that the client holds, and only the rest is sent")
    func knownTokens() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let old = Content.noise(50, 1 << 20)
        try await caller.upload(volume, .plain(0, old))
        let held = (0..<16).map { Content.token(Array(old[$0 * chunk..<($0 + 1) * chunk])) }
        let new = Content.noise(51, chunk)
        let unchanged = Array(0..<3) + Array(4..<7) + Array(8..<16)
        try await caller.upload(
            volume,
            .plain(UInt64(3 * chunk), new),
            .plain(UInt64(7 * chunk) + 512, [1] + Array(new[1..<512]))
        )
        let snapshot = try await caller.createSnapshot(volume)
        let expected = old.replacing(3 * chunk, new).replacing(7 * chunk + 512, [1] + Array(new[1..<512]))
        for target in [
            Wire.Target.Target.volumeID(volume), .snapshotID(snapshot.snapshotID),
            .snapshotToken(snapshot.snapshotToken),
        ] {
            let read = try await caller.download(
                target,
                [0..<1 << 20],
                known: held + [Content.token(Content.noise(52, chunk))]
            )
            let known = read.blocks.filter { $0.content == .known(Wire.Empty()) }
            #expect(known.map(\.offset) == unchanged.map { UInt64($0 * chunk) })
            #expect(known.map(\.token) == unchanged.map { held[$0] })
            // The client puts in what it holds.
            var content = read.bytes
            for block in known {
                content = content.replacing(
                    Int(block.offset),
                    Array(old[Int(block.offset)..<Int(block.offset) + chunk])
                )
            }
            #expect(content == expected)
        }
        // Part of a chunk is sent, whatever the client holds.
        let part = try await caller.download(.volumeID(volume), [512..<1024], known: held)
        #expect(part.bytes == Array(old[512..<1024]))
    }
}

/// SPEC R4.
@Suite(.serialized, .server("default-chunk-size=8KiB", "default-volume-size=3MiB", "checksum-optional=true"))
struct ServerFactsTests {
    private let server = ServerProcess.shared

    @Test("R4, U4: version, limits and features are told by call and in the handshake, and are what the server does")
    func facts() async throws {
        let caller = try await server.connect(freshAccount("facts"))
        let answer = try await caller.call(Wire.GetServerFactsRequest()).message
        let facts = try #require(answer.facts)
        #expect(answer.identity.hasPrefix("facts-"))
        #expect(answer.startedAtMs > 1_600_000_000_000)
        #expect(!facts.version.isEmpty)
        #expect(facts.storeID.count == 16)
        #expect(facts.shardCount == 2)
        #expect(facts.volumeSizeMinimum == 1 << 20)
        #expect(facts.volumeSizeMaximum == 64 << 40)
        #expect(facts.volumeSizeDefault == 3 << 20)
        #expect(facts.chunkSizeDefault == 8192)
        #expect(facts.checksumOptional)
        let created = try await caller.createVolume(size: 0, chunkSize: 0)
        #expect(created.size == 3 << 20)
        #expect(created.chunkSize == 8192)
        // A checksum may be omitted here, and only here (U4).
        var upload = Upload.plain(0, Content.noise(60, 8192))
        upload.block.checksum = nil
        try await caller.upload(created.volumeID, upload)
        let stream = try TLSStream(server.endpoint, try server.credentials(freshAccount()), in: server.folder)
        try await stream.greet()
        #expect(try Wire.Hello.decode(try stream.frames[0].message).server == facts)
        stream.child.send(SIGKILL)
    }

    @Test("R4: the server is healthy, and says so to accounts and the operator")
    func health() async throws {
        for caller in [
            try await server.connect(freshAccount()),
            try await server.connect(try server.issue("operator", [.uri("cairn://admin")])),
        ] {
            let answer = try await caller.call(Wire.GetHealthRequest()).message
            #expect(answer.healthy)
            #expect(answer.problems.isEmpty)
        }
    }
}
