import CairnClient
import CairnCore
import CairnWire
import Testing

/// SPEC section 3 through the library: what holds for every snapshot.
@Suite(.serialized, .server())
struct LibrarySnapshotTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536

    @Test("S1: each snapshot raises the data version by one, atomically; description and tags are kept")
    func versions() async throws {
        let client = try server.client(freshAccount())
        let volume = try await client.volume().id
        let versions = try await withThrowingTaskGroup(of: DataVersion.self) { group in
            for index in 0..<12 {
                group.addTask { try await client.createSnapshot(of: volume, note: "number \(index)").dataVersion }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(versions.sorted() == (2..<14).map { DataVersion($0) })
        #expect(try await client.describeVolume(volume).dataVersion == DataVersion(14))
        let made = try await client.createSnapshot(of: volume, note: "a note", tags: ["a": "1"])
        let described = try await client.describeSnapshot(made.id)
        #expect(described.note == "a note" && described.tags == ["a": "1"] && described.token == made.token)
        try await expectFailure(.invalidArgument) {
            try await client.createSnapshot(of: volume, note: String(repeating: "x", count: 1025))
        }
        #expect(try await client.describeVolume(volume).dataVersion == DataVersion(15))
    }

    @Test("S2: of a REMOTE volume it is complete at once, and holds what was answered before it and nothing later")
    func pointInTime() async throws {
        let client = try server.client(freshAccount())
        let volume = try await client.volume().id
        var content = [UInt8](repeating: 0, count: 1 << 20)
        var history: [(SnapshotID, [UInt8])] = []
        for round in 0..<5 {
            let (offset, bytes) = (round * 150 * 1024, Content.noise(UInt64(round), 100 * 1024))
            try await client.write(bytes, at: UInt64(offset), to: .volume(volume))
            content = content.replacing(offset, bytes)
            let made = try await client.createSnapshot(of: volume)
            #expect(made.state == .complete)
            history.append((made.id, content))
        }
        for (snapshot, bytes) in history { #expect(try await client.read(.snapshot(snapshot)) == bytes) }
    }

    @Test("S6: the seal is that of the local data, however zeros are stored; a complete snapshot takes nothing more")
    func seals() async throws {
        let client = try server.client(freshAccount())
        let (local, remote) = (try await client.volume(.local).id, try await client.volume().id)
        let bytes = Content.noise(10, 1 << 20).replacing(65536, [UInt8](repeating: 0, count: 3 * 65536))
        let backup = try await client.backUp(bytes, of: local)
        _ = try await client.upload(
            [
                .plain(0, Array(bytes[0..<65536])), .zeros(chunk, 65536), .plain(2 * chunk, Content.noise(11, 65536)),
                .plain(4 * chunk, Array(bytes[(4 * 65536)...])),
            ],
            to: .volume(remote)
        )
        try await client.discard([(2 * chunk..<3 * chunk).block], of: .volume(remote))
        let snapshot = try await client.createSnapshot(of: remote).id
        for id in [backup, snapshot] {
            #expect(try await client.seal(of: id) == bytes.seal)
            try await expectFailure(.snapshotAlreadyComplete) {
                try await client.upload([.zeros(0, 512)], to: .snapshot(id))
            }
            let range = [BlockRange(offset: 0, length: 512)]
            try await expectFailure(.snapshotAlreadyComplete) { try await client.discard(range, of: .snapshot(id)) }
            try await expectFailure(.snapshotAlreadyComplete) { try await client.writeZeroes(range, of: .snapshot(id)) }
        }
        try await client.write(Content.noise(12, 1 << 20), to: .volume(remote))
        #expect(try await client.seal(of: snapshot) == bytes.seal)
        #expect(try await client.read(.snapshot(snapshot)) == bytes)
    }

    @Test("S7: the token names the snapshot on any connection of its account, over a restart; to others it is no right")
    func tokens() async throws {
        let server = try await ServerProcess.started()
        let volume = try await server.client("owner").volume(.local).id
        let made = try await server.client("owner").createSnapshot(of: volume)
        let (target, bytes) = (BlockTarget.snapshotToken(made.token), Content.noise(13, 65536))
        try await server.client("owner").write(bytes, to: target)
        try await server.stop()
        try await server.start()
        let (client, stranger) = (try server.client("owner"), try server.client("stranger"))
        #expect(try await client.describeSnapshot(token: made.token).id == made.id)
        #expect(try await client.read(target, 0..<65536) == bytes)
        let listed = try await client.blocks(of: target).all().filter { $0.state == .data }
        #expect(listed.map(\.token) == [bytes.token])
        #expect(try await client.missingBlocks(ofToken: made.token).all().isEmpty)
        try await expectFailure(.invalidSnapshotID) { try await stranger.read(target, 0..<65536) }
        try await expectFailure(.invalidSnapshotID) { try await stranger.describeSnapshot(token: made.token) }
        try await expectFailure(.invalidSnapshotID) { try await stranger.reportProgress(100, ofToken: made.token) }
        try await expectFailure(.invalidSnapshotID) {
            try await client.describeSnapshot(token: made.token.replacing(3, [made.token[3] ^ 1]))
        }
        #expect(try await client.reportProgress(100, ofToken: made.token).state == .complete)
    }

    @Test("S8: deleted, in progress or complete, it is gone; what it shares stays, what it alone held becomes free")
    func deletion() async throws {
        let client = try server.client(freshAccount())
        let (volume, disk) = (
            try await client.volume(affinity: [1]).id, try await client.volume(.local, affinity: [1]).id
        )
        let bytes = Content.noise(14, 4 * 65536)
        try await client.write(bytes, to: .volume(volume))
        let first = try await client.createSnapshot(of: volume).id
        let new = Content.noise(15, 65536)
        try await client.write(new, to: .volume(volume))
        let second = try await client.createSnapshot(of: volume).id
        let open = try await client.createSnapshot(of: disk).id
        try await client.write(Content.noise(16, 2 * 65536), to: .snapshot(open))
        #expect(try await client.usage().total.unique == 7 * chunk)
        for (id, left) in [(first, 6), (open, 4)] as [(SnapshotID, UInt64)] {
            try await client.deleteSnapshot(id)
            try await expectFailure(.invalidSnapshotID) { try await client.describeSnapshot(id) }
            try await expectFailure(.invalidSnapshotID) { try await client.deleteSnapshot(id) }
            try await eventually("\(left) chunks are left") { try await client.usage().total.unique == left * chunk }
        }
        for target in [BlockTarget.volume(volume), .snapshot(second)] {
            #expect(try await client.read(target, 0..<4 * chunk) == bytes.replacing(0, new))
        }
    }

    @Test("R6: snapshots of several volumes are of one moment; one bad volume is named, and none is made")
    func several() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let local = try await client.volume(.local).id
        let foreign = try await server.client(freshAccount()).volume().id
        var volumes: [VolumeID] = []
        for _ in 0..<4 { volumes.append(try await client.volume().id) }
        let order = volumes
        // Each stamp goes to all volumes in turn: at any moment, the stamps fall by at most one along the way.
        let writing = Task {
            let writer = try server.client(account)
            var stamp: UInt64 = 0
            while !Task.isCancelled {
                stamp += 1
                let sector = Content.littleEndian(stamp) + [UInt8](repeating: 0, count: 504)
                for volume in order { try await writer.write(sector, to: .volume(volume)) }
            }
        }
        for _ in 0..<6 {
            var stamps: [Int] = []
            for made in try await client.createSnapshots(of: volumes, note: "together") {
                #expect(made.state == .complete)
                let sector = try await client.read(.snapshot(made.id), 0..<512)
                stamps.append(sector.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) })
            }
            #expect(stamps.count == 4 && stamps == stamps.sorted(by: >) && stamps[0] - stamps[3] <= 1, "\(stamps)")
        }
        writing.cancel()
        _ = await writing.result
        for (bad, reason) in [
            (foreign, Wire.Reason.invalidVolumeID), (local, .wrongVolumeKind), (volumes[0], .invalidArgument),
        ] {
            try await expectFailure(reason, block: 4) { try await client.createSnapshots(of: volumes + [bad]) }
        }
        for volume in volumes { #expect(try await client.describeVolume(volume).dataVersion == DataVersion(8)) }
    }
}
