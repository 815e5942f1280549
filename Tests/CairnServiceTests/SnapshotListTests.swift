import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Testing

@testable import CairnService

/// The lists that CreateSnapshot takes (SPEC S5): chunks that are here already, inline or by pointer, and chunks that are to come.
@Suite struct SnapshotListTests {
    private func stage(_ harness: ServiceHarness, _ chunks: [[UInt8]], chunkSize: UInt32 = 65536) throws -> [[UInt8]] {
        var request = Wire.UploadBlockRequest()
        request.chunkSize = chunkSize
        request.blocks = chunks.map { ServiceHarness.block($0, at: 0) }
        return try harness.upload(request, payload: Array(chunks.joined())).chunks.map(\.token)
    }

    private func items(_ tokens: [[UInt8]], _ offset: (Int) -> UInt64 = { UInt64($0) * 65536 }) -> [Wire.ChunkPlacement]
    {
        tokens.enumerated().map { .init(offset: offset($0), token: $1) }
    }

    /// A list as it is uploaded: padded to sectors, in blocks of at most a chunk.
    private func pointers(_ harness: ServiceHarness, _ list: [Wire.ChunkPlacement], chunkSize: Int) throws -> [[UInt8]]
    {
        var bytes = Wire.ChunkList(chunks: list).encode()
        bytes += [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512)
        return try stage(harness, [bytes], chunkSize: UInt32(chunkSize))
    }

    @Test("S5, V10: a snapshot holds the chunks of its list from the start, from whichever shard; zeros too")
    func inline() throws {
        let harness = try ServiceHarness(shards: 4)
        let chunks = (0..<6).map { noise(65536, seed: 1 + UInt64($0)) }
        let tokens = try stage(harness, chunks)
        let zero = ZeroChunk.fingerprint(ChunkSize(bytes: 65536)!).bytes
        for _ in 0..<4 {
            let volume = try harness.localVolume()
            let snapshot = try harness.begin(volume) { $0.chunks = items(tokens + [zero, tokens[0]]) }.snapshotID
            let content = Array(chunks.joined()) + [UInt8](repeating: 0, count: 65536) + chunks[0]
            #expect(try harness.read(.snapshotID(snapshot), 0, 8 * 65536) == content)
            // Leases and origins may go: the snapshot keeps what it names.
            let part = noise(512, seed: 90)
            try harness.upload(part, at: 65536, to: snapshot) { $0.progress = .init(percent: 100) }
            var expected = content + [UInt8](repeating: 0, count: 8 * 65536)
            expected.replaceSubrange(65536..<66048, with: part)
            #expect(try harness.sealed(snapshot) == ServiceHarness.seal(expected))
        }
        try harness.audit()
    }

    @Test("S5, S4: a later snapshot's list stands above what is uploaded to an earlier one afterwards")
    func laterList() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let (old, new) = (noise(65536, seed: 10), noise(65536, seed: 11))
        let token = try stage(harness, [new])[0]
        let first = try harness.begin(volume).snapshotID
        let second = try harness.begin(volume) { $0.chunks = items([token]) }.snapshotID
        try harness.upload(old + old, at: 0, to: first) { $0.progress = .init(percent: 100) }
        #expect(try harness.read(.snapshotID(first), 0, 2 * 65536) == old + old)
        #expect(try harness.read(.snapshotID(second), 0, 2 * 65536) == new + old)
        try harness.audit()
    }

    @Test("S5, U2: one wrong item, and nothing is created; the error names it")
    func refusals() throws {
        let harness = try ServiceHarness(shards: 4)
        let volume = try harness.localVolume(size: (1 << 20) + 512)
        let tokens = try stage(harness, [noise(65536, seed: 20)])
        let small = try stage(harness, [noise(4096, seed: 21)], chunkSize: 4096)
        let (good, count) = (tokens[0], try harness.snapshotCount(volume))
        let wrong: [(Wire.ChunkPlacement, ServiceError.Code)] = [
            (.init(offset: 65536, token: noise(32, seed: 22)), .invalidChunkToken),
            (.init(offset: 65536, token: [1]), .invalidChunkToken),
            (.init(offset: 65536, token: small[0]), .invalidChunkToken),
            // The last chunk has 512 bytes, and this one is longer.
            (.init(offset: 1 << 20, token: good), .invalidChunkToken),
            (.init(offset: 512, token: good), .invalidArgument),
            (.init(offset: 2 << 20, token: good), .invalidArgument),
            (.init(offset: .max - 65535, token: good), .invalidArgument),
        ]
        for (item, code) in wrong {
            let list = items(tokens) + [item]
            let inline = refusal { try harness.begin(volume) { $0.chunks = list } }
            #expect(inline?.code == code && inline?.blockIndex == 1, "\(item)")
            let pointer = try pointers(harness, list, chunkSize: 4096)
            let encoded = refusal { try harness.begin(volume) { $0.chunkListTokens = pointer } }
            #expect(encoded?.code == code && encoded?.blockIndex == 1, "\(item)")
        }
        let expected = refusal { try harness.begin(volume) { $0.expected = items([good, good]) { UInt64($0) * 512 } } }
        #expect(expected?.code == .invalidArgument && expected?.blockIndex == 1)
        let pointer = refusal { try harness.begin(volume) { $0.chunkListTokens = [good, noise(32, seed: 23)] } }
        #expect(pointer?.code == .invalidArgument || pointer?.code == .invalidChunkToken)
        let unknown = refusal { try harness.begin(volume) { $0.chunkListTokens = [noise(32, seed: 24)] } }
        #expect(unknown?.code == .invalidChunkToken && unknown?.blockIndex == 0)
        let both = refusal {
            try harness.begin(volume) {
                $0.chunks = items(tokens)
                $0.chunkListTokens = tokens
            }
        }
        #expect(both?.code == .invalidArgument)
        let foreign = try harness.createVolume(.init(kind: .local), as: ServiceHarness.bob).volumeID
        let bobs = refusal {
            try harness.call(
                harness.service.createSnapshot,
                .init(volumeID: foreign, chunks: items(tokens)),
                as: ServiceHarness.bob
            )
        }
        #expect(bobs?.code == .invalidChunkToken && bobs?.blockIndex == 0)
        #expect(try harness.snapshotCount(volume) == count)
        try harness.audit()
    }

    @Test("S5, V6: the volume's last, shorter chunk takes a chunk of which the rest is zeros")
    func lastChunk() throws {
        let harness = try ServiceHarness(shards: 4)
        let tail = noise(512, seed: 30)
        let padded = try stage(harness, [tail + [UInt8](repeating: 0, count: 65024)])
        let short = try stage(harness, [tail])
        #expect(padded == short)
        for _ in 0..<4 {
            let volume = try harness.localVolume(size: (1 << 20) + 512)
            let list = items(short) { _ in 1 << 20 }
            let snapshot = try harness.begin(volume) { $0.chunks = list }.snapshotID
            #expect(try harness.read(.snapshotID(snapshot), 1 << 20, 512) == tail)
        }
        try harness.audit()
    }

    @Test("S5: the encoded list may be cut anywhere, over chunks of any size", arguments: [4096, 65536])
    func pointer(listChunk: Int) throws {
        let harness = try ServiceHarness(chunkSize: 4096, shards: 4)
        let chunks = (0..<8).map { noise(4096, seed: 40 + UInt64($0)) }
        let tokens = try stage(harness, chunks, chunkSize: 4096)
        let volume = try harness.localVolume(chunkSize: 4096)
        // 256 items of 40 bytes and more: they straddle the chunks of 4 KiB.
        let list = (0..<256).map { Wire.ChunkPlacement(offset: UInt64($0) * 4096, token: tokens[$0 * 7 % 8]) }
        let pointer = try pointers(harness, list, chunkSize: listChunk)
        #expect(pointer.count == (listChunk == 4096 ? 3 : 1))
        let snapshot = try harness.begin(volume) { $0.chunkListTokens = pointer }.snapshotID
        let content = (0..<256).flatMap { chunks[$0 * 7 % 8] }
        #expect(try harness.read(.snapshotID(snapshot), 0, 1 << 20) == content)
        if listChunk == 4096 {
            let torn = refusal { try harness.begin(volume) { $0.chunkListTokens = Array(pointer.dropLast()) } }
            #expect(torn?.code == .invalidArgument)
        }
        try harness.audit()
    }

    @Test("S5, C5: a long list takes several commits, is there all at once, and is made once for each key")
    func longList() throws {
        let harness = try ServiceHarness(chunkSize: 4096, shards: 4)
        let chunks = (0..<40).map { noise(4096, seed: 50 + UInt64($0)) }
        let tokens = try stage(harness, chunks, chunkSize: 4096)
        let volume = try harness.localVolume(size: 64 << 20, chunkSize: 4096)
        let count = 10_000
        let list = (0..<count).map { Wire.ChunkPlacement(offset: UInt64($0) * 4096, token: tokens[$0 % 40]) }
        let expected = (0..<5000).map {
            Wire.ChunkPlacement(offset: UInt64(count + $0) * 4096, token: tokens[$0 % 40])
        }
        let pointer = try pointers(harness, list, chunkSize: 4 << 20)
        let request = Wire.CreateSnapshotRequest(
            volumeID: volume,
            chunkListTokens: pointer,
            expected: expected,
            idempotencyKey: [1, 2, 3]
        )
        let created = try harness.call(harness.service.createSnapshot, request)
        #expect(try harness.call(harness.service.createSnapshot, request) == created)
        #expect(try harness.snapshotCount(volume) == 2)
        #expect(try harness.describe(created.snapshotID).missing == 5000)
        for index in [0, 4095, 4096, 8191, 8192, 9999] {
            let read = try harness.read(.snapshotID(created.snapshotID), UInt64(index) * 4096, 4096)
            #expect(read == chunks[index % 40], "\(index)")
        }
        // One that fails at its end leaves nothing.
        var bad = request
        bad.idempotencyKey = []
        bad.chunkListTokens = []
        bad.chunks = Array(list[..<9000]) + [.init(offset: 0, token: noise(32, seed: 99))]
        #expect(refusal { try harness.call(harness.service.createSnapshot, bad) }?.blockIndex == 9000)
        #expect(try harness.snapshotCount(volume) == 2)
        try harness.audit()
    }

    @Test("S5, R1: what is expected is missing until it is there, by upload, by token or from below; 100 waits for it")
    func expected() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let chunks = (0..<6).map { noise(65536, seed: 60 + UInt64($0)) }
        let tokens = chunks.map(ServiceHarness.token)
        let first = try harness.begin(volume).snapshotID
        try harness.upload(chunks[0], at: 0, to: first) { $0.progress = .init(percent: 100) }
        let staged = try stage(harness, [chunks[1]])
        let snapshot = try harness.begin(volume) {
            $0.chunks = items(staged) { _ in 65536 }
            $0.expected = items(tokens)
        }.snapshotID
        #expect(try harness.describe(snapshot).missing == 5)
        func missing(_ limit: UInt32 = 0) throws -> [UInt64] {
            var (offsets, token): ([UInt64], [UInt8]) = ([], [])
            repeat {
                let page = try harness.call(
                    harness.service.missingBlocks,
                    .init(target: .snapshotID(snapshot), page: .init(limit: limit, pageToken: token))
                )
                offsets += page.missing.map(\.offset)
                for item in page.missing { #expect(item.token == tokens[Int(item.offset / 65536)]) }
                token = page.nextPageToken
            } while !token.isEmpty
            return offsets
        }
        // Chunk 0 is there from below, which counts at 100; chunk 1 by the list.
        #expect(try missing() == [2, 3, 4, 5].map { $0 * 65536 })
        #expect(try missing(1) == [2, 3, 4, 5].map { $0 * 65536 })
        let early = refusal { try harness.report(100, snapshot) }
        #expect(early?.code == .failedPrecondition && early?.text.contains("offset 131072") == true)
        try harness.upload(chunks[2] + chunks[3], at: 2 * 65536, to: snapshot)
        #expect(try missing() == [4, 5].map { $0 * 65536 })
        // Something else in its place: missing again.
        try harness.upload(noise(512, seed: 70), at: 2 * 65536, to: snapshot)
        #expect(try missing() == [2, 4, 5].map { $0 * 65536 })
        var request = Wire.UploadBlockRequest(target: .init(target: .snapshotID(snapshot)))
        request.blocks = [.init(offset: 4 * 65536, length: 65536, source: .token(tokens[0]))]
        _ = try harness.upload(request)
        #expect(try missing() == [2, 4, 5].map { $0 * 65536 })
        try harness.upload(chunks[2], at: 2 * 65536, to: snapshot)
        try harness.upload(chunks[4], at: 4 * 65536, to: snapshot) { $0.progress = .init(percent: 99) }
        let last = refusal { try harness.report(100, snapshot) }
        #expect(last?.code == .failedPrecondition && last?.text.contains("1 expected chunks are missing") == true)
        // The last one comes with the report.
        try harness.upload(chunks[5], at: 5 * 65536, to: snapshot) { $0.progress = .init(percent: 100) }
        #expect(try harness.describe(snapshot).state == .complete)
        #expect(try missing() == [])
        #expect(try harness.read(.snapshotID(snapshot), 0, 6 * 65536) == Array(chunks.joined()))
        #expect(refusal { try harness.call(harness.service.missingBlocks, .init()) }?.code == .invalidArgument)
        #expect(try harness.eventually { try harness.store.shards.allSatisfy { try $0.audit().problems.isEmpty } })
    }

    @Test("S5, V5: what showed through from a snapshot in progress is looked at again once that one changes no more")
    func expectedFromBelow() throws {
        let harness = try ServiceHarness()
        let (old, other, new) = (noise(65536, seed: 90), noise(65536, seed: 91), noise(65536, seed: 92))
        let source = try harness.begin(try harness.localVolume()).snapshotID
        try harness.upload(old, at: 0, to: source)
        let snapshot = try harness.begin(try harness.localVolume(from: source)) {
            $0.expected = items([old, other].map(ServiceHarness.token))
        }.snapshotID
        // Counted: the first one is there, for now.
        let early = refusal { try harness.report(100, snapshot) }
        #expect(early?.code == .failedPrecondition && early?.text.contains("1 expected chunks are missing") == true)
        try harness.upload(new, at: 0, to: source) { $0.progress = .init(percent: 100) }
        #expect(try harness.describe(source).state == .complete)
        try harness.upload(other, at: 65536, to: snapshot)
        let late = refusal { try harness.report(100, snapshot) }
        #expect(late?.code == .failedPrecondition && late?.text.contains("the first at offset 0") == true)
        let page = try harness.call(harness.service.missingBlocks, .init(target: .snapshotID(snapshot)))
        #expect(page.missing.map(\.offset) == [0])
        try harness.upload(old, at: 0, to: snapshot) { $0.progress = .init(percent: 100) }
        #expect(try harness.describe(snapshot).state == .complete)
    }

    @Test("S5: an expected chunk that came in parts counts once they are put together")
    func expectedInParts() throws {
        let harness = try ServiceHarness()
        let bytes = noise(65536, seed: 80)
        let snapshot = try harness.begin(try harness.localVolume()) {
            $0.expected = items([ServiceHarness.token(bytes)])
        }.snapshotID
        try harness.upload(Array(bytes[..<512]), at: 0, to: snapshot)
        let half = refusal { try harness.report(100, snapshot) }
        #expect(half?.code == .failedPrecondition || half?.code == .unavailable)
        try harness.upload(Array(bytes[512...]), at: 512, to: snapshot)
        let isComplete = harness.eventually { (try? harness.report(100, snapshot))?.state == .complete }
        #expect(isComplete)
        #expect(try harness.read(.snapshotID(snapshot), 0, 65536) == bytes)
    }

    @Test("S5: a list's items and bytes are bounded, however often its pointers repeat")
    func bounded() throws {
        let harness = try ServiceHarness()
        let token = try stage(harness, [noise(65536, seed: 95)])[0]
        let id = try #require(VolumeID(bytes: try harness.localVolume()))
        let shard = try #require(harness.service.shard(of: id.uuid))
        let volume = try #require(try shard.makeView().volume(id))
        let pointer = try pointers(harness, items([token, token, token]), chunkSize: 4096)
        func count(_ request: Wire.CreateSnapshotRequest) throws -> Int {
            var source = try PlacementSource(
                request,
                store: harness.store,
                home: shard,
                account: ServiceHarness.alice.account,
                volume: volume,
                limit: 10
            )
            var count = 0
            while true {
                let step = try source.next(4)
                if step.isEmpty { return count }
                #expect(step.count <= 4 && step.map(\.index) == Array(count..<count + step.count))
                count += step.count
            }
        }
        func repeated(_ times: Int) -> Wire.CreateSnapshotRequest {
            .init(chunkListTokens: (0..<times).flatMap { _ in pointer })
        }
        #expect(try count(repeated(3)) == 9)
        let many = refusal { try count(repeated(4)) }
        #expect(many?.code == .invalidArgument && many?.blockIndex == 10)
        #expect(refusal { try count(.init(chunks: items([[UInt8]](repeating: token, count: 11)))) }?.blockIndex == 10)
        // Padding alone: 4 MiB of it, and a chunk more.
        let skipped = [UInt8](repeating: 0, count: 65536 - 5)
        let blank = try stage(harness, [[0x7a, 0xfb, 0xff, 0x83, 0x00] + skipped])
        let long = refusal { try count(.init(chunkListTokens: (0..<65).flatMap { _ in blank })) }
        #expect(long?.code == .invalidArgument && long?.blockIndex == 64)
    }
}
