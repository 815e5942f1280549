import CairnCore
import CairnWire
import Testing

@Suite(.serialized, .server(shards: 4, "default-volume-size=4MiB", "default-chunk-size=64KiB"))
struct VolumeTests {
    private let server = ServerProcess.shared

    private func caller() async throws -> Caller { try await server.connect(freshAccount()) }

    @Test("V1: a new volume has a complete, empty initial snapshot of version 1, deleted with it")
    func initialSnapshot() async throws {
        let caller = try await caller()
        let created = try await caller.createVolume()
        #expect(created.dataVersion == 2)
        #expect(created.size == 1 << 20)
        let volume = try await caller.describeVolume(created.volumeID)
        #expect(volume.initialSnapshotID == created.initialSnapshotID)
        #expect(volume.state == .available)
        #expect(volume.kind == .remote)
        let initial = try await caller.describeSnapshot(created.initialSnapshotID)
        #expect(initial.state == .complete)
        #expect(initial.dataVersion == 1)
        #expect(initial.volumeID == created.volumeID)
        #expect(
            try await caller.download(snapshot: created.initialSnapshotID, 0..<4096)
                == [UInt8](repeating: 0, count: 4096)
        )
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: created.volumeID))
        let error = try await failure { try await caller.describeSnapshot(created.initialSnapshotID) }
        #expect(error.reason == .invalidSnapshotID)
    }

    @Test("V1: an initial snapshot that something was cloned from outlives its volume")
    func clonedInitialSnapshot() async throws {
        let caller = try await caller()
        let first = try await caller.createVolume()
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: first.initialSnapshotID)
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: first.volumeID))
        #expect(try await caller.describeSnapshot(first.initialSnapshotID).state == .complete)
        #expect(try await caller.download(clone.volumeID, 0..<512) == [UInt8](repeating: 0, count: 512))
    }

    @Test(
        "V2: sizes outside the rules are INVALID_VOLUME_SIZE",
        arguments: [512, (1 << 20) - 512, (1 << 20) + 1, (64 << 40) + 512, .max] as [UInt64]
    )
    func sizes(_ size: UInt64) async throws {
        let caller = try await caller()
        let error = try await failure { try await caller.createVolume(size: size) }
        #expect(error.reason == .invalidVolumeSize)
        #expect(error.status == .invalidArgument)
        #expect(try await caller.call(Wire.ListVolumesRequest()).message.volumes.isEmpty)
    }

    @Test("V2: without a size the snapshot's, else the configured default; never below the snapshot's")
    func defaultSizes() async throws {
        let caller = try await caller()
        #expect(try await caller.createVolume(size: 0).size == 4 << 20)
        let largest = try await caller.createVolume(size: 64 << 40, chunkSize: 4 << 20)
        #expect(largest.size == 64 << 40)
        let source = try await caller.createVolume(size: 2 << 20)
        let snapshot = try await caller.createSnapshot(source.volumeID)
        #expect(try await caller.createVolume(size: 0, chunkSize: 0, from: snapshot.snapshotID).size == 2 << 20)
        #expect(try await caller.createVolume(size: 3 << 20, chunkSize: 0, from: snapshot.snapshotID).size == 3 << 20)
        let error = try await failure {
            try await caller.createVolume(size: 1 << 20, chunkSize: 0, from: snapshot.snapshotID)
        }
        #expect(error.reason == .invalidVolumeSize)
    }

    @Test("V4: a clone leaves its snapshot as it was, works at once, and reads what it was made from")
    func clone() async throws {
        let caller = try await caller()
        let source = try await caller.createVolume()
        let old = Content.noise(1, 1 << 20)
        try await caller.upload(source.volumeID, .plain(0, old))
        let snapshot = try await caller.createSnapshot(source.volumeID)
        let clone = try await caller.createVolume(size: 2 << 20, chunkSize: 0, from: snapshot.snapshotID)
        let range: Range<UInt64> = 0..<1 << 20
        #expect(try await caller.download(clone.volumeID, range) == old)
        #expect(try await caller.download(clone.volumeID, 1 << 20..<2 << 20) == [UInt8](repeating: 0, count: 1 << 20))
        let new = Content.noise(2, 1024)
        try await caller.upload(clone.volumeID, .plain(65536 + 512, new))
        var expected = old
        expected.replaceSubrange(65536 + 512..<65536 + 1536, with: new)
        #expect(try await caller.download(clone.volumeID, range) == expected)
        #expect(try await caller.download(snapshot: snapshot.snapshotID, range) == old)
        #expect(try await caller.download(source.volumeID, range) == old)
        let second = try await caller.createSnapshot(clone.volumeID)
        #expect(try await caller.download(snapshot: second.snapshotID, range) == expected)
        #expect(try await caller.describeVolume(clone.volumeID).sourceSnapshotID == snapshot.snapshotID)
    }

    @Test("V6: chunk sizes are powers of two from 4 KiB to 4 MiB", arguments: [2048, 6000, 12288, 8 << 20] as [UInt32])
    func badChunkSizes(_ size: UInt32) async throws {
        let caller = try await caller()
        #expect(try await failure { try await caller.createVolume(chunkSize: size) }.reason == .invalidArgument)
    }

    @Test("V6: a last, shorter chunk is zero-padded for its fingerprint", arguments: [4096, 65536, 4 << 20])
    func lastChunk(_ chunkSize: Int) async throws {
        let caller = try await caller()
        let size = (1 << 20) + 1536
        let created = try await caller.createVolume(size: UInt64(size), chunkSize: UInt32(chunkSize))
        let bytes = Content.noise(3, size)
        let lastStart = (size - 1) / chunkSize * chunkSize
        let answer = try await caller.upload(created.volumeID, .plain(0, bytes))
        let last = try #require(answer.chunks.last)
        #expect(last.offset == UInt64(lastStart))
        #expect(last.token == Content.token(Array(bytes[lastStart...]), chunkSize: chunkSize))
        #expect(try await caller.download(created.volumeID, 0..<UInt64(size)) == bytes)
        let snapshot = try await caller.createSnapshot(created.volumeID)
        #expect(try await caller.seal(snapshot.snapshotID) == Content.seal(bytes, chunkSize: chunkSize))
    }

    @Test("V7: holes, written zeros and data are told apart; a discard hides what the parent holds")
    func states() async throws {
        let caller = try await caller()
        let parent = try await caller.createVolume()
        try await caller.upload(parent.volumeID, .plain(0, Content.noise(4, 4 * 65536)))
        let snapshot = try await caller.createSnapshot(parent.volumeID)
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: snapshot.snapshotID)
        try await caller.upload(clone.volumeID, .zeros(65536, 65536), .hole(2 * 65536, 65536))
        let read = try await caller.download(.volumeID(clone.volumeID), [0..<5 * 65536])
        let kinds = read.blocks.map { block -> String in
            switch block.content {
            case .payloadLength: "data"
            case .zeros: "zeros"
            case .hole: "hole"
            default: "?"
            }
        }
        #expect(kinds == ["data", "zeros", "hole", "data", "hole"])
        #expect(
            read.bytes == Content.noise(4, 4 * 65536).enumerated().map { (65536..<3 * 65536).contains($0) ? 0 : $1 }
                + [UInt8](repeating: 0, count: 65536)
        )
        let listed = try await caller.blocks(.volumeID(clone.volumeID)).filter { $0.state != .hole }
        #expect(listed.map(\.offset) == [0, 65536, 3 * 65536])
        #expect(listed.map(\.state) == [.data, .zeros, .data])
    }

    @Test("V8: a volume's facts and each chunk's fingerprint and owner are kept")
    func facts() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let tags = [Wire.Tag(key: "name", value: "boot"), Wire.Tag(key: "ünï", value: "çödé")]
        let created = try await caller.createVolume(affinity: Array("group".utf8), tags: tags)
        let bytes = Content.noise(5, 65536)
        try await caller.upload(created.volumeID, .plain(65536, bytes))
        let volume = try await caller.describeVolume(created.volumeID)
        #expect(volume.account == account)
        #expect(Set(volume.tags) == Set(tags))
        #expect(volume.affinity == Array("group".utf8))
        #expect(volume.createdAtMs > 1_600_000_000_000)
        let listed = try await caller.blocks(.volumeID(created.volumeID)).filter { $0.state != .hole }
        #expect(listed.map(\.offset) == [65536])
        #expect(listed.map(\.token) == [Content.token(bytes)])
        #expect(listed.map(\.owner) == [account])
    }

    @Test("V9: a deleted volume's snapshots stay; a second delete is INVALID_VOLUME_ID")
    func delete() async throws {
        let caller = try await caller()
        let created = try await caller.createVolume()
        let bytes = Content.noise(6, 1 << 20)
        try await caller.upload(created.volumeID, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(created.volumeID)
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: created.volumeID))
        #expect(try await caller.download(snapshot: snapshot.snapshotID, 0..<1 << 20) == bytes)
        let again = try await failure { try await caller.call(Wire.DeleteVolumeRequest(volumeID: created.volumeID)) }
        #expect(again.reason == .invalidVolumeID)
        #expect(try await failure { try await caller.download(created.volumeID, 0..<512) }.reason == .invalidVolumeID)
        let listed = try await caller.call(Wire.ListSnapshotsRequest(volumeID: created.volumeID)).message.snapshots
        #expect(listed.map(\.snapshotID) == [snapshot.snapshotID])
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: snapshot.snapshotID)
        #expect(try await caller.download(clone.volumeID, 0..<1 << 20) == bytes)
    }

    @Test(
        "V10: one affinity key, one shard; clones and snapshots stay on their origin's; without a key all shards are used"
    )
    func affinity() async throws {
        let caller = try await caller()
        let shard = { (id: [UInt8]) in UUID128(bytes: id)!.shard }
        let key = Array("rack-7".utf8)
        var together: Set<ShardIndex> = []
        for _ in 0..<6 { together.insert(shard(try await caller.createVolume(affinity: key).volumeID)) }
        #expect(together.count == 1)
        var apart: Set<ShardIndex> = []
        for _ in 0..<40 {
            let created = try await caller.createVolume()
            apart.insert(shard(created.volumeID))
            #expect(shard(created.initialSnapshotID) == shard(created.volumeID))
        }
        #expect(apart.count == 4)
        let origin = try await caller.createVolume()
        let snapshot = try await caller.createSnapshot(origin.volumeID)
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: snapshot.snapshotID)
        #expect(shard(snapshot.snapshotID) == shard(origin.volumeID))
        #expect(shard(clone.volumeID) == shard(origin.volumeID))
    }

    @Test("R1: a volume grows, and never shrinks")
    func resize() async throws {
        let caller = try await caller()
        let size = (1 << 20) + 512
        let created = try await caller.createVolume(size: UInt64(size))
        let bytes = Content.noise(7, size)
        try await caller.upload(created.volumeID, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(created.volumeID)
        let grown = try await caller.call(Wire.ResizeVolumeRequest(volumeID: created.volumeID, size: 3 << 20)).message
        #expect(grown.size == 3 << 20)
        let read = try await caller.download(created.volumeID, 0..<3 << 20)
        #expect(read == bytes + [UInt8](repeating: 0, count: 3 << 20 - size))
        try await caller.upload(created.volumeID, .plain((3 << 20) - 512, Content.noise(8, 512)))
        for size in [1 << 20, (3 << 20) + 1] as [UInt64] {
            let error = try await failure {
                try await caller.call(Wire.ResizeVolumeRequest(volumeID: created.volumeID, size: size))
            }
            #expect(error.reason == .invalidVolumeSize)
        }
        #expect(try await caller.describeSnapshot(snapshot.snapshotID).size == UInt64(size))
        #expect(try await caller.download(snapshot: snapshot.snapshotID, 0..<UInt64(size)) == bytes)
    }

    @Test("R1: listings come in pages, oldest first, with every item once, filtered by tag; a foreign token is refused")
    func pages() async throws {
        let caller = try await caller()
        var ids: [[UInt8]] = []
        for index in 0..<23 {
            ids.append(
                try await caller.createVolume(tags: [Wire.Tag(key: "even", value: "\(index % 2 == 0)")]).volumeID
            )
        }
        var found: [[UInt8]] = []
        var token: [UInt8] = []
        var pages = 0
        repeat {
            let page = try await caller.call(Wire.ListVolumesRequest(page: .init(limit: 5, pageToken: token))).message
            #expect(page.volumes.count <= 5)
            found += page.volumes.map(\.volumeID)
            token = page.nextPageToken
            pages += 1
        } while !token.isEmpty && pages < 50
        #expect(found.count == 23)
        #expect(Set(found) == Set(ids))
        var even: [[UInt8]] = []
        token = []
        repeat {
            let page = try await caller.call(
                Wire.ListVolumesRequest(
                    page: .init(limit: 4, pageToken: token),
                    tags: [.init(key: "even", value: "true")]
                )
            ).message
            even += page.volumes.map(\.volumeID)
            token = page.nextPageToken
        } while !token.isEmpty
        #expect(Set(even) == Set(stride(from: 0, to: 23, by: 2).map { ids[$0] }))
        try await expectFailure(.invalidArgument) {
            try await caller.call(Wire.ListVolumesRequest(page: .init(limit: 1001)))
        }
        // Of nobody, of another account, and of other filters.
        token = try await caller.call(Wire.ListVolumesRequest(page: .init(limit: 5))).message.nextPageToken
        let page = Wire.PageRequest(limit: 5, pageToken: token)
        let stranger = try await self.caller()
        for error in [
            try await failure { try await caller.call(Wire.ListVolumesRequest(page: .init(pageToken: [1, 2, 3]))) },
            try await failure { try await stranger.call(Wire.ListVolumesRequest(page: page)) },
            try await failure {
                try await caller.call(Wire.ListVolumesRequest(page: page, tags: [.init(key: "even", value: "true")]))
            },
        ] { #expect(error.reason == .invalidArgument && error.text.contains("page_token"), "\(error)") }
    }

    @Test("R1, C4: blocks come in pages; IDs are 16 bytes")
    func blockPages() async throws {
        let caller = try await caller()
        let created = try await caller.createVolume(chunkSize: 4096)
        #expect(created.volumeID.count == 16)
        #expect(created.initialSnapshotID.count == 16)
        let bytes = Content.noise(9, 1 << 20)
        try await caller.upload(created.volumeID, .plain(0, bytes))
        let listed = try await caller.blocks(.volumeID(created.volumeID), pages: 10)
        #expect(listed.map(\.offset) == (0..<256).map { $0 * 4096 })
        #expect(
            listed.map(\.token)
                == (0..<256).map { Content.token(Array(bytes[$0 * 4096..<($0 + 1) * 4096]), chunkSize: 4096) }
        )
    }
}
