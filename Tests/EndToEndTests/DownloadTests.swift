import CairnCore
import CairnWire
import Foundation
import Testing

@Suite(.serialized, .server())
struct DownloadTests {
    private let server = ServerProcess.shared

    @Test("D1: many ranges in one call come in order, with holes, zeros and known chunks told")
    func ranges() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(61, 4 * 65536)
        try await caller.upload(volume, .plain(0, bytes), .zeros(8 * 65536, 65536))
        let ranges: [Range<UInt64>] = [
            512..<1024, 65536..<131072, 8 * 65536..<9 * 65536, 10 * 65536..<10 * 65536 + 512, 0..<512,
        ]
        let token = Content.token(Array(bytes[65536..<131072]))
        let read = try await caller.download(.volumeID(volume), ranges, known: [token])
        #expect(read.bytes[0..<512] == bytes[512..<1024])
        #expect(read.bytes.suffix(512) == bytes[0..<512])
        #expect(read.blocks.count == 5)
        #expect(read.blocks[1].content == .known(Wire.Empty()))
        #expect(read.blocks[1].token == token)
        #expect(read.blocks[2].content == .zeros(Wire.Empty()))
        #expect(read.blocks[3].content == .hole(Wire.Empty()))
        // Without "I have it": the bytes.
        #expect(try await caller.download(volume, 65536..<131072) == Array(bytes[65536..<131072]))
    }

    @Test("D1: bad ranges are INVALID_ARGUMENT naming the range; more than the payload's limit is refused")
    func badRanges() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume(size: 64 << 20).volumeID
        let target = Wire.Target(target: .volumeID(volume))
        for (offset, length) in [(1, 512), (0, 100), (64 << 20, 512), (0, 0), (UInt64.max - 511, 1024)]
            as [(UInt64, UInt64)]
        {
            let request = Wire.DownloadBlockRequest(
                target: target,
                ranges: [.init(offset: 0, length: 512), .init(offset: offset, length: length)]
            )
            let error = try await failure { try await caller.call(request) }
            #expect(error.reason == .invalidArgument)
            #expect(error.blockIndex == 1)
        }
        for ranges in [[], [Wire.ByteRange(offset: 0, length: 17 << 20)]] {
            let request = Wire.DownloadBlockRequest(target: target, ranges: ranges)
            #expect(try await failure { try await caller.call(request) }.reason == .invalidArgument)
        }
    }

    @Test("D2: data_version must be the one that is read")
    func versions() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let snapshot = try await caller.createSnapshot(volume)
        for (target, version, good) in [
            (.volumeID(volume), 3, true), (.volumeID(volume), 2, false), (.snapshotID(snapshot.snapshotID), 2, true),
            (.snapshotID(snapshot.snapshotID), 3, false), (.snapshotToken(snapshot.snapshotToken), 2, true),
        ] as [(Wire.Target.Target, UInt64, Bool)] {
            let request = Wire.DownloadBlockRequest(
                target: .init(target: target),
                dataVersion: version,
                ranges: [.init(offset: 0, length: 512)]
            )
            if good {
                #expect(try await caller.call(request).message.dataVersion == version)
            } else {
                #expect(try await failure { try await caller.call(request) }.reason == .invalidDataVersion)
            }
        }
    }

    @Test(
        "D3: a chunk that came as LZ4 goes out as it came when the client takes LZ4, else plain; noise is always plain"
    )
    func codecs() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let text = Content.text(62, 65536)
        let noise = Content.noise(63, 65536)
        // Not what the server would make of it.
        let sent = Content.handmadeLZ4(text)
        #expect(sent.count < text.count / 2 && sent != Content.lz4(text))
        try await caller.upload(volume, .lz4(0, text, packed: sent), .plain(65536, noise))
        let packed = try await caller.call(
            Wire.DownloadBlockRequest(
                target: .init(target: .volumeID(volume)),
                ranges: [.init(offset: 0, length: 131072)],
                acceptedCodecs: [.lz4]
            )
        )
        #expect(packed.message.blocks.map(\.codec) == [.lz4, .plain])
        #expect(packed.payload == sent + noise)
        let plain = try await caller.download(.volumeID(volume), [0..<131072], codecs: [])
        #expect(plain.blocks.allSatisfy { $0.codec == .plain })
        #expect(plain.bytes == text + noise)
        // Part of an LZ4 chunk is always plain.
        #expect(try await caller.download(volume, 512..<1536) == Array(text[512..<1536]))
    }

    @Test(
        "A slow reader is bounded by its own answers: 60 downloads of 8 MiB that nobody reads cost no more than the budget"
    )
    func slowReader() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 8 << 20, chunkSize: 1 << 20).volumeID
        try await caller.upload(volume, .plain(0, Content.noise(64, 8 << 20)))
        let folder = server.folder
        let files = try server.credentials(account)
        let stream = try TLSStream(server.endpoint, files, in: folder)
        try await stream.greet()
        // `openssl s_client` is stopped: it reads nothing from now on.
        let request = Wire.DownloadBlockRequest(
            target: .init(target: .volumeID(volume)),
            ranges: [.init(offset: 0, length: 8 << 20)]
        ).encode()
        let before = server.anonymousMemory
        var frames: [UInt8] = []
        for id in 1...60 as ClosedRange<UInt64> {
            frames += TLSStream.frame(
                .request,
                method: UInt32(Wire.Method.downloadBlock.rawValue),
                callID: id,
                message: request
            )
        }
        stream.child.write(frames)
        try await eventually("the requests have arrived", within: .seconds(5)) {
            stream.child.outputBytes.count > 1 << 20
        }
        stream.child.send(SIGSTOP)
        defer { stream.child.send(SIGCONT) }
        // Others are served meanwhile.
        for _ in 0..<20 { #expect(try await caller.download(volume, 0..<4096) == Content.noise(64, 4096)) }
        #expect(server.anonymousMemory - before < 128 << 20)
    }

    @Test("A1: QueryChunks knows what this account has, and only that")
    func queryChunks() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(65, 1 << 20)
        try await caller.upload(volume, .plain(0, bytes))
        let tokens = (0..<16).map { Content.token(Array(bytes[$0 * 65536..<($0 + 1) * 65536])) }
        let unknown = (0..<5).map { Content.token(Content.noise(UInt64(900 + $0), 65536)) }
        let asked = unknown[0..<2] + tokens + unknown[2...]
        for affinity in [volume, []] {
            let answer = try await caller.call(Wire.QueryChunksRequest(tokens: Array(asked), volumeID: affinity))
                .message
            let present = asked.indices.map { answer.present[$0 / 8] >> ($0 % 8) & 1 == 1 }
            #expect(present == [false, false] + Array(repeating: true, count: 16) + [false, false, false])
            #expect(answer.leaseExpiresAtMs > UnixTime.milliseconds + 890_000)
        }
        try await expectFailure(.invalidChunkToken, block: 1) {
            try await caller.call(Wire.QueryChunksRequest(tokens: [unknown[0], [1, 2, 3]]))
        }
        try await expectFailure(.invalidArgument) {
            try await caller.call(Wire.QueryChunksRequest(tokens: Array(repeating: unknown[0], count: 16385)))
        }
    }

    @Test("A1: what a query promised stays, though everything that held it is deleted")
    func lease() async throws {
        let caller = try await server.connect(freshAccount())
        let first = try await caller.createVolume().volumeID
        let bytes = Content.noise(66, 65536)
        try await caller.upload(first, .plain(0, bytes))
        let answer = try await caller.call(Wire.QueryChunksRequest(tokens: [Content.token(bytes)])).message
        #expect(answer.present == [1])
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: first))
        try await Task.sleep(for: .seconds(1))
        let second = try await caller.createVolume().volumeID
        try await caller.upload(second, .token(65536, Content.token(bytes)))
        #expect(try await caller.download(second, 65536..<131072) == bytes)
    }
}
