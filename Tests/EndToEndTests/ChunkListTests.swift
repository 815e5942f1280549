import CairnClient
import CairnCore
import CairnWire
import Foundation
import Testing

/// SPEC S5: snapshots that begin with chunks that are here already, and snapshots that expect some.
@Suite(.serialized, .server(shards: 3))
struct ChunkListTests {
    private let server = ServerProcess.shared
    private let chunk = 65536
    private let zeros = [UInt8](repeating: 0, count: 65536)

    private func caller() async throws -> Caller { try await server.connect(freshAccount()) }

    /// Whether the volume has neither a new snapshot nor a new version.
    private func expectNothingCreated(
        _ caller: Caller,
        _ volume: [UInt8],
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let listed = try await caller.call(Wire.ListSnapshotsRequest(volumeID: volume)).message.snapshots
        #expect(listed.map(\.dataVersion) == [1], sourceLocation: sourceLocation)
        #expect(try await caller.describeVolume(volume).dataVersion == 2, sourceLocation: sourceLocation)
    }

    @Test("S5, U7: a list of staged chunks, of chunks of other volumes on any shard, and of zeros, inline")
    func inline() async throws {
        let caller = try await caller()
        let staged = (0..<3).map { Content.noise(UInt64(1 + $0), chunk) }
        try await caller.stage(staged)
        var elsewhere: [[UInt8]] = []
        for seed in 0..<4 {
            let bytes = seed % 2 == 0 ? Content.noise(UInt64(20 + seed), chunk) : Content.text(UInt64(20 + seed), chunk)
            try await caller.upload(try await caller.createVolume().volumeID, .plain(0, bytes))
            elsewhere.append(bytes)
        }
        let volume = try await caller.createLocal().volumeID
        let contents = staged + elsewhere + [zeros]
        // In any order, and one of them twice.
        let places = contents.indices.map { ($0 * 5 + 2) % 16 }
        let list = zip(places, contents).map { Wire.ChunkPlacement.of($0, $1) } + [.of(15, staged[0])]
        let snapshot = try await caller.createSnapshot(volume, chunks: list)
        var expected = [UInt8](repeating: 0, count: 1 << 20).replacing(15 * chunk, staged[0])
        for (place, bytes) in zip(places, contents) { expected = expected.replacing(place * chunk, bytes) }
        #expect(try await caller.download(snapshot: snapshot.snapshotID, 0..<1 << 20) == expected)
        // Released, and their volumes deleted: the snapshot holds them.
        let tokens = contents.map { Content.token($0) }
        _ = try await caller.call(Wire.ReleaseLeaseRequest(tokens: tokens))
        for found in try await caller.call(Wire.ListVolumesRequest()).message.volumes where found.volumeID != volume {
            try await caller.deleteVolume(found.volumeID)
        }
        let part = Content.noise(30, 512)
        try await caller.upload(snapshot: snapshot.snapshotID, .plain(UInt64(15 * chunk), part))
        try await caller.progress(snapshot.snapshotID, 100)
        expected = expected.replacing(15 * chunk, part)
        #expect(try await caller.seal(snapshot.snapshotID) == Content.seal(expected, chunkSize: chunk))
        #expect(try await caller.download(snapshot: snapshot.snapshotID, 0..<1 << 20) == expected)
    }

    @Test("S5: a list by pointer: staged chunks, one or more, hold the encoded list")
    func pointer() async throws {
        let caller = try await caller()
        let size = 400 * 4096
        let volume = try await caller.createLocal(size: UInt64(size), chunkSize: 4096).volumeID
        let contents = (0..<400).map { Content.noise(UInt64(100 + $0), 4096) }
        for start in stride(from: 0, to: 400, by: 100) {
            try await caller.stage(Array(contents[start..<start + 100]), chunkSize: 4096)
        }
        let list = contents.enumerated().map { Wire.ChunkPlacement.of($0, $1, chunkSize: 4096) }
        // 400 placements of about 40 bytes each: several chunks of 4 KiB.
        let encoded = Wire.ChunkList(chunks: list).encode().filled(to: 4096)
        let pieces = stride(from: 0, to: encoded.count, by: 4096).map { Array(encoded[$0..<$0 + 4096]) }
        #expect(pieces.count > 3)
        let pointers = try await caller.stage(pieces, chunkSize: 4096).chunks.map(\.token)
        let snapshot = try await caller.createSnapshot(volume, lists: pointers)
        try await caller.progress(snapshot.snapshotID, 100)
        let expected = contents.flatMap { $0 }
        #expect(try await caller.seal(snapshot.snapshotID) == Content.seal(expected, chunkSize: 4096))
        #expect(try await caller.download(snapshot: snapshot.snapshotID, 0..<UInt64(size)) == expected)
    }

    /// A LOCAL volume of so many chunks of 4 KiB, and the tokens of two that are staged.
    private func longVolume(_ chunks: Int) async throws -> (Client, CreatedVolume, tokens: [Fingerprint]) {
        let client = try server.client(freshAccount())
        var new = NewVolume()
        (new.size, new.chunkSize, new.kind) = (UInt64(chunks * 4096), .minimum, .local)
        let volume = try await client.createVolume(new)
        let contents = (0..<2).map { Buffer(copying: Content.noise(UInt64(600 + $0), 4096)).slice }
        return (client, volume, try await client.stage(contents, chunkSize: .minimum).tokens)
    }

    @Test("S5: the client library sends a long list by pointer")
    func library() async throws {
        let count = 25_000
        let (client, volume, tokens) = try await longVolume(count)
        var list = NewSnapshot()
        list.chunks = (0..<count).map { ChunkPlacement(offset: UInt64($0 * 4096), token: tokens[$0 % 2]) }
        let made = try await client.createSnapshot(of: volume.id, list)
        let read = try await client.download(
            [BlockRange(offset: UInt64((count - 2) * 4096), length: 8192)],
            from: .snapshot(made.id)
        )
        #expect(read.count == 2)
        try await client.reportProgress(100, of: made.id)
        #expect(try await client.describeSnapshot(made.id).state == .complete)
    }

    @Test("S5: a list of 2^20 items, the most there can be; one more is refused, and nothing is created")
    func longest() async throws {
        let most = 1 << 20
        let (client, volume, tokens) = try await longVolume(most)
        var list = NewSnapshot()
        list.chunks = (0..<most).map { ChunkPlacement(offset: UInt64($0 * 4096), token: tokens[$0 % 7 == 0 ? 0 : 1]) }
        list.chunks.append(list.chunks[0])
        do {
            let made = try await client.createSnapshot(of: volume.id, list)
            Issue.record("\(made)")
        } catch {
            #expect(error.answer?.reason == .invalidArgument && error.answer?.blockIndex == most, "\(error)")
        }
        #expect(try await client.describeVolume(volume.id).dataVersion == DataVersion(2))
        list.chunks.removeLast()
        let made = try await client.createSnapshot(of: volume.id, list)
        for chunk in [0, 6, 7, 524_288, most - 1] {
            let range = BlockRange(offset: UInt64(chunk * 4096), length: 4096)
            let read = try await client.download([range], from: .snapshot(made.id))
            #expect(read.first?.token == tokens[chunk % 7 == 0 ? 0 : 1])
        }
        try await client.reportProgress(100, of: made.id)
        #expect(try await client.describeSnapshot(made.id).state == .complete)
        #expect(try await client.usage(of: [.snapshot(made.id)]).total.unique == 8192)
    }

    @Test("S5: a token unknown to the account is INVALID_CHUNK_TOKEN naming the item, and nothing is created")
    func unknownTokens() async throws {
        let (caller, other) = (try await caller(), try await caller())
        let volume = try await caller.createLocal().volumeID
        let (mine, foreign) = (Content.noise(40, chunk), Content.noise(41, chunk))
        try await caller.stage([mine])
        try await other.stage([foreign])
        try await other.upload(try await other.createVolume().volumeID, .plain(0, foreign))
        let random = Content.noise(42, chunk)
        var errors: [CallError] = []
        for bad in [foreign, random] {
            let list: [Wire.ChunkPlacement] = [.of(0, mine), .of(1, bad), .of(2, mine)]
            let error = try await failure { try await caller.createSnapshot(volume, chunks: list) }
            #expect(error.reason == .invalidChunkToken)
            #expect(error.status == .notFound)
            #expect(error.blockIndex == 1)
            errors.append(error)
            try await expectNothingCreated(caller, volume)
            // The same list by pointer; the chunk's padding is not read.
            let pointers = try await caller.stage([Wire.ChunkList(chunks: list).encode().filled(to: chunk)]).chunks
            try await expectFailure(.invalidChunkToken, block: 1) {
                try await caller.createSnapshot(volume, lists: pointers.map(\.token))
            }
            try await expectNothingCreated(caller, volume)
        }
        // C3: what another account has is no more than what nobody has.
        let texts = zip(errors, [foreign, random]).map {
            $0.text.replacingOccurrences(of: Hex.encode(Content.token($1)), with: "TOKEN")
        }
        #expect(Set(texts).count == 1, "\(texts)")
        let list = try await caller.stage([Wire.ChunkList(chunks: [.of(0, mine)]).encode().filled(to: chunk)]).chunks
        for unknown in [foreign, random].map({ Content.token($0) }) {
            for (place, pointers) in [[unknown], [list[0].token, unknown]].enumerated() {
                try await expectFailure(.invalidChunkToken, block: place) {
                    try await caller.createSnapshot(volume, lists: pointers)
                }
                try await expectNothingCreated(caller, volume)
            }
        }
        try await expectFailure(.invalidChunkToken, block: 0) {
            try await caller.createSnapshot(volume, chunks: [.init(offset: 0, token: [1, 2, 3])])
        }
        for offset in [512, 1 << 20, UInt64.max - 511] as [UInt64] {
            try await expectFailure(.invalidArgument, block: 1) {
                try await caller.createSnapshot(
                    volume,
                    chunks: [.of(0, mine), .init(offset: offset, token: Content.token(mine))]
                )
            }
        }
        try await expectNothingCreated(caller, volume)
        // A list that is none.
        let garbage = try await caller.stage([[UInt8](repeating: 0xff, count: chunk)]).chunks.map(\.token)
        try await expectFailure(.invalidArgument, block: 0) { try await caller.createSnapshot(volume, lists: garbage) }
        try await expectNothingCreated(caller, volume)
    }

    @Test("S5, S9, R1: 100 is refused while an expected chunk is missing; MissingBlocks tells which, on any connection")
    func expected() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createLocal().volumeID
        let base = Content.noise(50, 1 << 20)
        let first = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(to: .snapshotID(first), [.plain(0, base)], progress: 100)
        // Four that will come, one of them zeros.
        let coming = (0..<4).map { $0 == 2 ? zeros : Content.noise(UInt64(51 + $0), chunk) }
        let list = coming.enumerated().map { Wire.ChunkPlacement.of($0 * 3, $1) }
        let snapshot = try await caller.createSnapshot(volume, expected: list)
        let id = snapshot.snapshotID
        #expect(try await caller.describeSnapshot(id).missing == 4)
        #expect(try await caller.missing(id, pages: 1) == list)
        let refused = try await failure { try await caller.progress(id, 100) }
        #expect(refused.reason == .failedPrecondition)
        #expect(refused.text.contains("4"), "\(refused)")
        // Something else in its place is not what is expected.
        try await caller.upload(snapshot: id, .plain(0, coming[1]), .plain(UInt64(3 * chunk), coming[1]))
        #expect(try await caller.missing(id) == [list[0], list[2], list[3]])
        // From another machine: what is missing is asked for, and sent.
        let resumed = try await server.connect(account)
        let asked = try await resumed.missing(id)
        #expect(asked == [list[0], list[2], list[3]])
        try await resumed.upload(snapshot: id, .plain(0, coming[0]))
        try await resumed.upload(snapshot: id, .zeros(UInt64(6 * chunk), UInt32(chunk)))
        // In two parts: whole only when both are there.
        try await resumed.upload(snapshot: id, .plain(UInt64(9 * chunk), Array(coming[3][0..<4096])))
        #expect(try await resumed.missing(id) == [list[3]])
        let refusal = try await failure {
            try await resumed.upload(to: .snapshotID(id), [.zeros(0, 512)], progress: 100)
        }
        #expect(refusal.reason == .failedPrecondition && !refusal.isRetryable, "\(refusal)")
        // Nothing of a refused call is written (U2).
        #expect(try await caller.download(snapshot: id, 0..<65536) == coming[0])
        try await resumed.upload(snapshot: id, .plain(UInt64(9 * chunk) + 4096, Array(coming[3][4096...])))
        #expect(try await caller.missing(id).isEmpty)
        // What was there may go away again.
        try await caller.upload(snapshot: id, .hole(UInt64(3 * chunk), 512))
        #expect(try await caller.missing(id) == [list[1]])
        try await caller.upload(snapshot: id, .token(UInt64(3 * chunk), Content.token(coming[1])))
        try await caller.progress(id, 100)
        var content = base
        for (index, bytes) in coming.enumerated() { content = content.replacing(index * 3 * chunk, bytes) }
        #expect(try await caller.seal(id) == Content.seal(content, chunkSize: chunk))
    }

    @Test("S5: what is expected and there by inheritance, or by the token list, is not missing at 100")
    func expectedAndThere() async throws {
        let caller = try await caller()
        let volume = try await caller.createLocal().volumeID
        let base = Content.noise(60, 1 << 20)
        let first = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(to: .snapshotID(first), [.plain(0, base)], progress: 100)
        let staged = Content.noise(61, chunk)
        try await caller.stage([staged])
        let id = try await caller.createSnapshot(
            volume,
            chunks: [.of(3, staged)],
            expected: [
                .of(3, staged), .of(5, Array(base[5 * chunk..<6 * chunk])), .of(15, Array(base[(15 * chunk)...])),
            ]
        ).snapshotID
        #expect(try await caller.progress(id, 100).state == .complete)
        let content = base.replacing(3 * chunk, staged)
        #expect(try await caller.seal(id) == Content.seal(content, chunkSize: chunk))
        let bad = Wire.ChunkPlacement(offset: 100, token: Content.token(staged))
        try await expectFailure(.invalidArgument, block: 1) {
            try await caller.createSnapshot(volume, expected: [.of(0, staged), bad])
        }
    }
}

extension [UInt8] {
    /// An encoded message, filled up to a multiple of `unit` by a field that its readers skip.
    fileprivate func filled(to unit: Int) -> [UInt8] {
        // A tag, a length of three bytes with seven bits each, and zeros.
        let room = 2 * unit - count % unit - 4
        let digits = [room & 0x7f | 0x80, room >> 7 & 0x7f | 0x80, room >> 14]
        var bytes = self + [15 << 3 | 2]
        bytes += digits.map { UInt8($0) }
        bytes += [UInt8](repeating: 0, count: room)
        return bytes
    }
}
