import CairnClient
import CairnCore
import Testing

/// Snapshots that begin with chunks that are here already, through the library.
@Suite(.serialized, .server())
struct ChunkPointerTests {
    private let server = ServerProcess.shared

    @Test("S5, U7: a list too long for a message goes by pointer to staged chunks, and nothing of it stays leased")
    func pointer() async throws {
        let client = try server.client(freshAccount())
        let chunkSize = ChunkSize(bytes: 4096)!
        var new = NewVolume()
        (new.kind, new.size, new.chunkSize) = (.local, 256 << 20, chunkSize)
        let volume = try await client.createVolume(new).id
        let contents = (0..<3).map { Content.noise(600 + UInt64($0), 4096) }
        let staged = try await client.stage(
            contents.map { Buffer(copying: $0).slice },
            chunkSize: chunkSize,
            near: volume
        )
        #expect(staged.tokens.map(\.bytes) == contents.map { Content.token($0, chunkSize: 4096) })
        var snapshot = NewSnapshot()
        let count = 30_000
        snapshot.chunks = (0..<count).map { index in
            ChunkPlacement(offset: UInt64(index) * 4096, token: staged.tokens[index % 3])
        }
        let last = ChunkPlacement(offset: (256 << 20) - 4096, token: staged.tokens[1])
        snapshot.expected = [last]
        let made = try await client.createSnapshot(of: volume, snapshot)
        #expect(try await client.missingBlocks(of: made.id).all() == [last])
        _ = try await client.upload(
            [.init(offset: last.offset, length: 4096, content: .token(last.token))],
            to: .snapshot(made.id)
        )
        #expect(try await client.reportProgress(100, of: made.id).state == .complete)
        let tokens = (contents + [[UInt8](repeating: 0, count: 4096)]).map { Content.token($0, chunkSize: 4096) }
        var all = (0..<(256 << 20) / 4096).map { $0 < count ? tokens[$0 % 3] : tokens[3] }
        all[all.count - 1] = tokens[1]
        #expect(try await client.seal(of: made.id).bytes == Content.seal(of: all, size: 256 << 20, chunkSize: 4096))
        // A token that the account does not have: its place is told, and nothing is made.
        let before = try await client.snapshots(of: volume).all().count
        snapshot.chunks[29_000].token = Fingerprint(bytes: [UInt8](repeating: 9, count: 32))!
        let error = await #expect(throws: ClientError.self) { try await client.createSnapshot(of: volume, snapshot) }
        #expect(error?.answer?.reason == .invalidChunkToken && error?.answer?.blockIndex == 29_000)
        #expect(try await client.snapshots(of: volume).all().count == before)
    }
}
