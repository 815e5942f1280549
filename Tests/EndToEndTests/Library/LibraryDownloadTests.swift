import CairnClient
import CairnCore
import CairnWire
import Foundation
import Synchronization
import Testing

/// SPEC sections 5 and 6 through the library. (D4: `DamageTests`.)
@Suite(.serialized, .server(shards: 3))
struct LibraryDownloadTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536
    private var folder: WorkFolder { server.folder }

    @Test("D1, A4: ranges in their order, with holes, zeros and what the client has; a bad range is named")
    func ranges() async throws {
        let client = try server.client(freshAccount())
        let target = BlockTarget.volume(try await client.volume(size: 64 << 20).id)
        let bytes = Content.noise(1, 4 * 65536)
        _ = try await client.upload([.plain(0, bytes), .zeros(8 * chunk, 65536)], to: target)
        let ranges: [Range<UInt64>] = [
            512..<1024, chunk..<2 * chunk, 8 * chunk..<9 * chunk, 10 * chunk..<10 * chunk + 512, 0..<512,
        ]
        let token = Array(bytes[65536..<131072]).token
        let read = try await client.download(ranges.map(\.block), from: target, known: [token])
        #expect(read.map(\.offset) == ranges.map(\.lowerBound) && read.map { Int($0.length) } == ranges.map(\.count))
        let found = read.map { block -> [UInt8]? in
            if case .data(let data) = block.content { return Array(data.bytes) }
            return nil
        }
        #expect(found == [Array(bytes[512..<1024]), nil, nil, nil, Array(bytes[0..<512])])
        guard case .known = read[1].content, case .zeros = read[2].content, case .hole = read[3].content else {
            Issue.record("\(read)")
            return
        }
        #expect(read[1].token == token)
        for bad in [
            BlockRange(offset: 1, length: 512), BlockRange(offset: 0, length: 0),
            BlockRange(offset: 64 << 20, length: 512),
        ] {
            try await expectFailure(.invalidArgument, block: 1) {
                try await client.download([(0..<512 as Range<UInt64>).block, bad], from: target)
            }
        }
        try await expectFailure(.invalidArgument, block: 0) { try await client.read(target, 0..<17 << 20) }
    }

    @Test("D2: the latest acknowledged data of a volume, the manifest's of a snapshot, each at its own version only")
    func versions() async throws {
        let client = try server.client(freshAccount())
        let volume = try await client.volume().id
        let (old, new) = (Content.noise(2, 65536), Content.noise(3, 65536))
        try await client.write(old, to: .volume(volume))
        let snapshot = try await client.createSnapshot(of: volume)
        try await client.write(new, to: .volume(volume))
        let range = [(0..<chunk).block]
        for (target, version, bytes) in [
            (.volume(volume), snapshot.dataVersion.next, new), (.snapshot(snapshot.id), snapshot.dataVersion, old),
            (.snapshotToken(snapshot.token), snapshot.dataVersion, old),
        ] as [(BlockTarget, DataVersion, [UInt8])] {
            let read = try await client.download(range, from: target, dataVersion: version)
            #expect(read.map(\.token) == [bytes.token])
            try await expectFailure(.invalidDataVersion) {
                try await client.download(range, from: target, dataVersion: DataVersion(7))
            }
        }
    }

    /// Imports a file into a new volume; gives it, and what was sent.
    private func imported(_ client: Client, _ path: String) async throws -> (VolumeID, ImportSummary) {
        let source = try ImportSource.open(path)
        let volume = try await client.volume(size: try #require(source.volumeSize)).id
        return (volume, try await Importer(client: client, source: source, volume: volume).run())
    }

    private func exported(_ client: Client, _ volume: VolumeID, onto path: String? = nil) async throws
        -> (String, ExportSummary)
    {
        let snapshot = try await client.createSnapshot(of: volume).id
        var options = ExportOptions()
        (options.isOnto, options.sealLimit) = (path != nil, .seconds(60))
        let target = path ?? folder.fresh("back")
        let exporter = Exporter(client: client, from: .snapshot(snapshot), to: .path(target), options: options)
        return (target, try await exporter.run())
    }

    @Test("A2, D3: text travels and rests as LZ4, and comes back as it is stored; noise goes as it is, both ways")
    func compression() async throws {
        let client = try server.client(freshAccount())
        let (text, noise) = ((0..<16).flatMap { Content.text(UInt64(10 + $0), 65536) }, Content.noise(4, 1 << 20))
        for (bytes, payload) in [(text, 1...UInt64(1 << 17)), (noise, UInt64(1 << 20)...UInt64(1 << 20))] {
            let file = try folder.write(bytes, to: "image-\(payload.upperBound)")
            let (volume, sent) = try await imported(client, file)
            #expect(sent.progress.transferred == 1 << 20 && payload.contains(sent.progress.payload))
            #expect(sent.seal == bytes.seal)
            let stored = try await client.usage(of: [.volume(volume)]).total.stored
            #expect(stored == sent.progress.payload)
            let (back, received) = try await exported(client, volume)
            // As stored: byte for byte as many as were sent.
            #expect(received.progress.payload == sent.progress.payload && received.sealCheck == .matched)
            #expect(try Image.bytes(back) == bytes)
        }
        // Another's LZ4 stays what it is: the server neither unpacks nor packs it.
        let (chunk, packed) = (Content.text(9, 65536), Content.handmadeLZ4(Content.text(9, 65536)))
        #expect(packed.count != Content.lz4(chunk).count)
        let volume = try await client.volume().id
        _ = try await client.upload([.lz4(0, chunk, packed: packed)], to: .volume(volume))
        #expect(try await client.usage(of: [.volume(volume)]).total.stored == UInt64(packed.count))
        let (back, received) = try await exported(client, volume)
        #expect(received.progress.payload == UInt64(packed.count))
        #expect(try Image.bytes(back).prefix(65536) == chunk[...])
    }

    @Test(
        "U4: imports and exports by any algorithm, of LZ4, of noise, and of a volume's last, shorter chunk",
        arguments: ChecksumAlgorithm.allCases
    )
    func checksums(_ algorithm: ChecksumAlgorithm) async throws {
        var options = ClientOptions()
        options.checksum = algorithm
        let client = try server.client(freshAccount(), options)
        let bytes = Content.noise(7, 8 * 65536) + Content.text(8, 8 * 65536 + 1536)
        let (volume, sent) = try await imported(client, try folder.write(bytes, to: "image-\(algorithm)"))
        #expect(sent.seal == bytes.seal)
        let (back, received) = try await exported(client, volume)
        #expect(received.sealCheck == .matched)
        #expect(try Image.bytes(back) == bytes)
    }

    @Test("A1, A4: what the account has is not sent, to any volume, and what a file has is not fetched")
    func differences() async throws {
        let client = try server.client(freshAccount())
        let bytes = Content.noise(5, 4 << 20)
        let source = try folder.write(bytes, to: "first")
        let (volume, first) = try await imported(client, source)
        #expect(first.progress.transferred == 4 << 20 && first.progress.deduplicated == 0)
        let tokens = (0..<64).map { Array(bytes[$0 * 65536..<($0 + 1) * 65536]).token }
        let unknown = Content.noise(6, 65536).token
        for place in [volume, nil] {
            let asked = UnixTime.milliseconds
            let found = try await client.queryChunks([unknown] + tokens + [unknown], for: place)
            #expect(found.isPresent == [false] + [Bool](repeating: true, count: 64) + [false])
            // What is there is promised for a quarter of an hour.
            #expect((asked + 900_000...UnixTime.milliseconds + 900_000).contains(found.leaseExpiresAt.milliseconds))
        }
        let (copy, second) = try await imported(client, source)
        #expect(second.progress.transferred == 0 && second.progress.deduplicated == 4 << 20)
        #expect(try await client.read(.volume(copy), 0..<4 << 20) == bytes)
        // What was promised stays, though everything that held it is deleted.
        for volume in [volume, copy] { try await client.deleteVolume(volume) }
        let (third, again) = try await imported(client, source)
        #expect(again.progress.transferred == 0)
        try Image.overwrite(source, at: 70_000, [1, 2, 3])
        let (_, export) = try await exported(client, third, onto: source)
        #expect(export.progress.transferred == 65536 && export.progress.inPlace == (4 << 20) - 65536)
        #expect(try Image.bytes(source) == bytes)
        try await expectFailure(.invalidVolumeID) { try await client.queryChunks(tokens, for: volume) }
    }

    @Test("A3: hundreds of calls in flight, over several connections, each with its own answer")
    func inFlight() async throws {
        var options = ClientOptions()
        options.connections = 8
        let client = try server.client(freshAccount(), options)
        let target = BlockTarget.volume(try await client.volume(size: 2 << 20, chunkSize: 4096).id)
        let contents = (0..<512).map { Content.noise(UInt64(100 + $0), 4096) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, bytes) in contents.enumerated() {
                group.addTask { try await client.write(bytes, at: UInt64(index) * 4096, to: target) }
            }
            try await group.waitForAll()
            for (index, bytes) in contents.enumerated() {
                group.addTask {
                    let start = UInt64(index) * 4096
                    let read = try await client.read(target, start..<start + 4096)
                    #expect(read == bytes)
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("A3: on one connection, a quick call is answered before a slow one that came first")
    func overtaking() async throws {
        let relay = try Relay(to: server.endpoint)
        defer { relay.stop() }
        var options = ClientOptions()
        options.connections = 1
        let client = try Client(
            server: relay.endpoint,
            credentials: try server.credentials(freshAccount()),
            options: options
        )
        let volume = try await client.volume(size: 8 << 20).id
        let line = try #require(relay.lines.first)
        var overtaken = false
        // What is slow on an idle machine may be quick once.
        for round in 0..<50 where !overtaken {
            let (before, bytes) = (line.passedBytes, Content.noise(UInt64(700 + round), 8 << 20))
            let isAnswered = Atomic(false)
            async let slow: Void = {
                try await client.write(bytes, to: .volume(volume))
                isAnswered.store(true, ordering: .sequentiallyConsistent)
            }()
            try await eventually("the upload has begun") { line.passedBytes > before + 65536 }
            _ = try await client.describeVolume(volume)
            overtaken = !isAnswered.load(ordering: .sequentiallyConsistent)
            try await slow
        }
        #expect(overtaken && relay.lines.count == 1)
    }
}
