import CairnClient
import CairnCore
import CairnWire
import Testing

/// SPEC section 2 through the library.
@Suite(.serialized, .server(shards: 3, "default-volume-size=4MiB", "default-chunk-size=64KiB"))
struct LibraryVolumeTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536
    private let empty = [UInt8](repeating: 0, count: 1 << 20)

    @Test("V1: a new volume comes with its initial snapshot: complete, version 1, empty or equal to its source")
    func initialSnapshot() async throws {
        let client = try server.client(freshAccount())
        let made = try await client.volume()
        #expect(made.dataVersion == DataVersion(2) && made.size == 1 << 20)
        let initial = try await client.describeSnapshot(made.initialSnapshot)
        #expect(initial.state == .complete && initial.dataVersion == .initial && initial.volume == made.id)
        #expect(try await client.read(.snapshot(made.initialSnapshot)) == empty)
        let bytes = Content.noise(1, 1 << 20)
        try await client.write(bytes, to: .volume(made.id))
        let clone = try await client.clone(try await client.createSnapshot(of: made.id).id)
        #expect(try await client.read(.snapshot(clone.initialSnapshot)) == bytes)
        let child = try await client.clone(clone.initialSnapshot)
        for volume in [made, clone] { try await client.deleteVolume(volume.id) }
        try await expectFailure(.invalidSnapshotID) { try await client.describeSnapshot(made.initialSnapshot) }
        // Something was cloned from it: it stays.
        #expect(try await client.read(.snapshot(clone.initialSnapshot)) == bytes)
        #expect(try await client.read(.volume(child.id)) == bytes)
    }

    @Test("R1: a listing keeps the client that it was asked of")
    func listingOfAClientThatNobodyHolds() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let made = try await client.volume()
        #expect(try await server.client(account).volumes().all().map(\.id) == [made.id])
        let blocks = try server.client(account).blocks(of: .volume(made.id))
        #expect(try await blocks.all().isEmpty)
    }

    @Test("V2: sizes: the default, the snapshot's, and INVALID_VOLUME_SIZE for all that is none")
    func sizes() async throws {
        let client = try server.client(freshAccount())
        #expect(try await client.createVolume(NewVolume()).size == 4 << 20)
        for size in [512, (1 << 20) - 512, (1 << 20) + 1, (64 << 40) + 512] as [UInt64] {
            try await expectFailure(.invalidVolumeSize) { try await client.volume(size: size) }
        }
        let made = try await client.volume(size: 2 << 20)
        let snapshot = try await client.createSnapshot(of: made.id).id
        #expect(try await client.clone(snapshot).size == 2 << 20)
        #expect(try await client.clone(snapshot, size: 3 << 20).size == 3 << 20)
        try await expectFailure(.invalidVolumeSize) { try await client.clone(snapshot, size: 1 << 20) }
    }

    @Test("V3: block calls on a LOCAL volume are WRONG_VOLUME_KIND; one from a snapshot goes on from it")
    func local() async throws {
        let client = try server.client(freshAccount())
        let made = try await client.volume(.local)
        #expect(try await client.describeVolume(made.id).kind == .local)
        let (target, first) = (BlockTarget.volume(made.id), [BlockRange(offset: 0, length: 512)])
        try await expectFailure(.wrongVolumeKind) { try await client.upload([.zeros(0, 512)], to: target) }
        try await expectFailure(.wrongVolumeKind) { try await client.download(first, from: target) }
        try await expectFailure(.wrongVolumeKind) { try await client.writeZeroes(first, of: target) }
        try await expectFailure(.wrongVolumeKind) { try await client.discard(first, of: target) }
        try await expectFailure(.wrongVolumeKind) { try await client.blocks(of: target).all() }
        try await expectFailure(.wrongVolumeKind) { try await client.flush(made.id) }
        try await expectFailure(.wrongVolumeKind) { try await client.attachVolume(made.id) }
        let (source, bytes) = (try await client.volume(), Content.noise(2, 1 << 20))
        try await client.write(bytes, to: .volume(source.id))
        let snapshot = try await client.createSnapshot(of: source.id).id
        let restored = try await client.clone(snapshot, .local)
        #expect(try await client.describeVolume(restored.id).sourceSnapshot == snapshot)
        let next = try await client.createSnapshot(of: restored.id).id
        #expect(try await client.changedBlocks(from: .snapshot(snapshot), to: .snapshot(next)).all().isEmpty)
        let part = Content.noise(3, 512)
        _ = try await client.upload([.plain(chunk + 512, part)], to: .snapshot(next), progress: 100)
        #expect(try await client.seal(of: next) == bytes.replacing(65536 + 512, part).seal)
        let changed = try await client.changedBlocks(from: .snapshot(snapshot), to: .snapshot(next)).all()
        #expect(changed.map(\.offset) == [chunk])
    }

    @Test("V4: a clone works at once, copies nothing, and leaves its snapshot as it was")
    func clone() async throws {
        let client = try server.client(freshAccount())
        let (made, bytes) = (try await client.volume(), Content.noise(4, 1 << 20))
        try await client.write(bytes, to: .volume(made.id))
        let snapshot = try await client.createSnapshot(of: made.id).id
        let clone = try await client.clone(snapshot, size: 2 << 20)
        #expect(try await client.read(.volume(clone.id), 0..<2 << 20) == bytes + empty)
        #expect(try await client.usage().total.unique == 1 << 20)
        let part = Content.noise(5, 1024)
        try await client.write(part, at: chunk + 512, to: .volume(clone.id))
        let second = try await client.createSnapshot(of: clone.id).id
        let expected = bytes.replacing(65536 + 512, part) + empty
        #expect(try await client.read(.snapshot(second), 0..<2 << 20) == expected)
        #expect(try await client.read(.snapshot(snapshot)) == bytes)
        #expect(try await client.read(.volume(made.id)) == bytes)
    }

    @Test("V5: later data of the incomplete snapshot shows through, never over the volume's own, to the sector")
    func incomplete() async throws {
        let client = try server.client(freshAccount())
        let disk = try await client.volume(.local).id
        var content = Content.noise(6, 1 << 20)
        _ = try await client.backUp(content, of: disk)
        let open = try await client.createSnapshot(of: disk).id
        let clone = try await client.clone(open).id
        let own = Content.noise(7, 512)
        try await client.write(own, at: chunk + 1024, to: .volume(clone))
        let waiting = try await client.createSnapshot(of: clone)
        #expect(waiting.state == .inProgress)
        let late = Content.noise(8, 2 * 65536)
        try await client.write(late, at: chunk, to: .snapshot(open))
        content = content.replacing(65536, late)
        let expected = content.replacing(65536 + 1024, own)
        #expect(try await client.read(.volume(clone)) == expected)
        #expect(try await client.read(.snapshot(waiting.id)) == expected)
        try await expectFailure(.snapshotAlreadyComplete) {
            try await client.upload([.zeros(0, 512)], to: .snapshot(waiting.id))
        }
        #expect(try await client.describeSnapshot(waiting.id).state == .inProgress)
        try await client.reportProgress(100, of: open)
        #expect(try await client.seal(of: open) == content.seal)
        // It completes by itself.
        #expect(try await client.seal(of: waiting.id) == expected.seal)
        #expect(try await client.describeSnapshot(waiting.id).state == .complete)
    }

    @Test("V5: cancelling the incomplete snapshot freezes what depends on it at what was uploaded")
    func frozen() async throws {
        let client = try server.client(freshAccount())
        let disk = try await client.volume(.local).id
        let (base, sent) = (Content.noise(9, 1 << 20), Content.noise(10, 1024))
        _ = try await client.backUp(base, of: disk)
        let open = try await client.createSnapshot(of: disk).id
        let clone = try await client.clone(open).id
        try await client.write(sent, at: 512, to: .snapshot(open))
        let waiting = try await client.createSnapshot(of: clone).id
        try await client.deleteSnapshot(open)
        #expect(try await client.seal(of: waiting) == base.replacing(512, sent).seal)
        #expect(try await client.read(.volume(clone)) == base.replacing(512, sent))
        #expect(try await client.createSnapshot(of: clone).state == .complete)
    }

    @Test("V6: a chunk size stays for life, and clones keep it; the last, shorter chunk is padded for its fingerprint")
    func chunkSizes() async throws {
        let client = try server.client(freshAccount())
        let size = (1 << 20) + 1536
        for chunkSize in [4096, 4 << 20] {
            let made = try await client.volume(size: UInt64(size), chunkSize: chunkSize)
            let bytes = Content.noise(11, size)
            let tokens = try await client.write(bytes, to: .volume(made.id)).tokens
            let last = (size - 1) / chunkSize * chunkSize
            #expect(tokens[UInt64(last)]?.bytes == Content.token(Array(bytes[last...]), chunkSize: chunkSize))
            let snapshot = try await client.createSnapshot(of: made.id).id
            #expect(try await client.seal(of: snapshot).bytes == Content.seal(bytes, chunkSize: chunkSize))
            #expect(try await client.clone(snapshot).chunkSize.bytes == chunkSize)
            var other = NewVolume()
            (other.snapshot, other.chunkSize) = (snapshot, ChunkSize(bytes: 65536))
            try await expectFailure(.invalidArgument) { try await client.createVolume(other) }
        }
        #expect(ChunkSize(bytes: 6000) == nil && ChunkSize(bytes: 2048) == nil && ChunkSize(bytes: 8 << 20) == nil)
    }

    @Test(
        "V7: holes, written zeros and data are three states; a discard hides what the parent holds, and costs nothing"
    )
    func states() async throws {
        let client = try server.client(freshAccount())
        let (parent, bytes) = (try await client.volume(), Content.noise(12, 4 * 65536))
        try await client.write(bytes, to: .volume(parent.id))
        let clone = try await client.clone(try await client.createSnapshot(of: parent.id).id).id
        _ = try await client.upload([.zeros(chunk, 65536), .hole(2 * chunk, 65536)], to: .volume(clone))
        let kinds = try await client.download([(0..<5 * chunk).block], from: .volume(clone)).map { block in
            switch block.content {
            case .data: "data"
            case .zeros: "zeros"
            case .hole: "hole"
            case .known: "known"
            }
        }
        #expect(kinds == ["data", "zeros", "hole", "data", "hole"])
        let listed = try await client.blocks(of: .volume(clone)).all().filter { $0.state != .hole }
        #expect(listed.map(\.offset) == [0, chunk, 3 * chunk] && listed.map(\.state) == [.data, .zeros, .data])
        #expect(try await client.read(.volume(clone), chunk..<3 * chunk).allSatisfy { $0 == 0 })
        #expect(try await client.read(.volume(parent.id), 0..<4 * chunk) == bytes)
        #expect(try await client.usage(of: [.volume(clone)]).total.unique == 2 * chunk)
    }

    @Test("V8: a volume's facts, and each chunk's fingerprint and owner, also of what was merged over another's")
    func facts() async throws {
        let (alice, bob) = (freshAccount("alice"), freshAccount("bob"))
        let (owner, user) = (try server.client(alice), try server.client(bob))
        let made = try await owner.volume(affinity: Array("rack".utf8), tags: ["name": "boot", "ünï": "çödé"])
        let described = try await owner.describeVolume(made.id)
        #expect(described.account == alice && described.tags == ["name": "boot", "ünï": "çödé"])
        #expect(described.affinity == Array("rack".utf8) && described.initialSnapshot == made.initialSnapshot)
        #expect(described.kind == .remote && described.state == .available && described.chunkSize.bytes == 65536)
        let bytes = Content.noise(13, 2 * 65536)
        try await owner.write(bytes, to: .volume(made.id))
        let snapshot = try await owner.createSnapshot(of: made.id).id
        try await owner.createGrant(.export, on: .snapshot(snapshot), to: bob)
        let clone = try await user.clone(snapshot).id
        // Sectors over the other's chunk, which a snapshot's seal merges with it, and a chunk of its own.
        var merged = Array(bytes[0..<65536])
        for part in 0..<4 {
            let sector = Content.noise(UInt64(30 + part), 512)
            try await user.write(sector, at: UInt64(part) * 2048, to: .volume(clone))
            merged = merged.replacing(part * 2048, sector)
        }
        try await user.write(Content.noise(15, 65536), at: 2 * chunk, to: .volume(clone))
        func listed() async throws -> [BlockDescription] {
            try await user.blocks(of: .volume(clone)).all().filter { $0.state == .data }
        }
        let parts = try await listed()
        #expect(parts[0].token == nil && parts.map(\.owner) == [alice, alice, bob])
        let copy = try await user.createSnapshot(of: clone).id
        let content = empty.replacing(0, merged + bytes[65536...] + Content.noise(15, 65536))
        #expect(try await user.seal(of: copy) == content.seal)
        try await eventually("the parts are merged") { try await listed()[0].token == merged.token }
        let blocks = try await listed()
        #expect(blocks.map(\.owner) == [alice, alice, bob])
        #expect(blocks[1].token == Array(bytes[65536...]).token && blocks[2].token == Content.noise(15, 65536).token)
    }

    @Test("V9: complete snapshots outlive their volume; those in progress refuse its deletion unless it cancels them")
    func deletion() async throws {
        let client = try server.client(freshAccount())
        let disk = try await client.volume(.local).id
        let bytes = Content.noise(16, 1 << 20)
        let complete = try await client.backUp(bytes, of: disk)
        let open = [try await client.createSnapshot(of: disk).id, try await client.createSnapshot(of: disk).id]
        // Of a REMOTE volume, one that waits for what it stands on is in progress as well.
        let clone = try await client.clone(open[0]).id
        let waiting = try await client.createSnapshot(of: clone).id
        try await expectFailure(.failedPrecondition) { try await client.deleteVolume(clone) }
        #expect(try await client.describeSnapshot(waiting).state == .inProgress)
        try await client.deleteVolume(clone, cancellingSnapshots: true)
        try await expectFailure(.invalidVolumeID) { try await client.describeVolume(clone) }
        try await expectFailure(.invalidSnapshotID) { try await client.describeSnapshot(waiting) }
        try await expectFailure(.failedPrecondition) { try await client.deleteVolume(disk) }
        #expect(try await client.describeVolume(disk).state == .available)
        #expect(try await client.describeSnapshot(open[1]).state == .inProgress)
        try await client.deleteVolume(disk, cancellingSnapshots: true)
        try await expectFailure(.invalidVolumeID) { try await client.describeVolume(disk) }
        try await expectFailure(.invalidVolumeID) { try await client.deleteVolume(disk, cancellingSnapshots: true) }
        for id in open { try await expectFailure(.invalidSnapshotID) { try await client.describeSnapshot(id) } }
        #expect(try await client.snapshots(of: disk).all().map(\.id) == [complete])
        #expect(try await client.read(.snapshot(complete)) == bytes)
        #expect(try await client.read(.volume(client.clone(complete).id)) == bytes)
    }

    @Test("V10: one key, one shard, one copy of a common chunk; without a key, a chunk is not sent again either")
    func affinity() async throws {
        let client = try server.client(freshAccount())
        let bytes = Content.noise(17, 65536)
        var shards: Set<ShardIndex> = []
        for _ in 0..<5 {
            let made = try await client.volume(affinity: [7])
            try await client.write(bytes, to: .volume(made.id))
            let snapshot = try await client.createSnapshot(of: made.id).id
            let clone = try await client.clone(snapshot)
            for id in [made.id.uuid, made.initialSnapshot.uuid, snapshot.uuid, clone.id.uuid] {
                shards.insert(id.shard)
            }
        }
        #expect(shards.count == 1)
        #expect(try await client.usage().total.unique == 65536)
        var all: Set<ShardIndex> = []
        for _ in 0..<40 where all.count < 3 {
            let made = try await client.volume()
            all.insert(made.id.uuid.shard)
            #expect(try await client.queryChunks([bytes.token], for: made.id).isPresent == [true])
            let sent = try await client.upload([.token(0, bytes.token)], to: .volume(made.id))
            #expect(sent.tokens == [0: bytes.token])
        }
        #expect(all.count == 3)
    }
}
