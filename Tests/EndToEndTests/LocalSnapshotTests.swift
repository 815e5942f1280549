import CairnCore
import CairnWire
import Testing

/// SPEC V3, S3 and S9: volumes that live on the client's side, and their snapshots in progress.
@Suite(.serialized, .server())
struct LocalSnapshotTests {
    private let server = ServerProcess.shared
    private let whole: Range<UInt64> = 0..<1 << 20

    private func caller() async throws -> Caller { try await server.connect(freshAccount()) }

    @Test("V3, S3: a LOCAL volume's snapshot takes the data, and the next one starts from it: only changes are sent")
    func incremental() async throws {
        let caller = try await caller()
        let created = try await caller.createLocal()
        #expect(try await caller.describeVolume(created.volumeID).kind == .local)
        #expect(try await caller.describeSnapshot(created.initialSnapshotID).state == .complete)
        let first = try await caller.createSnapshot(created.volumeID)
        #expect(first.state == .inProgress)
        #expect(first.dataVersion == 2)
        #expect(try await caller.describeVolume(created.volumeID).dataVersion == 3)
        let described = try await caller.describeSnapshot(first.snapshotID)
        #expect(described.state == .inProgress)
        #expect(described.seal == nil)
        #expect(described.completedAtMs == 0)
        let bytes = Content.noise(1, 1 << 20)
        let answer = try await caller.upload(snapshot: first.snapshotID, .plain(0, bytes))
        #expect(answer.dataVersion == 2)
        #expect(answer.chunks.count == 16)
        #expect(try await caller.progress(first.snapshotID, 100).state == .complete)
        #expect(try await caller.seal(first.snapshotID) == Content.seal(bytes, chunkSize: 65536))
        #expect(try await caller.describeSnapshot(first.snapshotID).completedAtMs > 0)

        let second = try await caller.createSnapshot(created.volumeID)
        #expect(second.dataVersion == 3)
        #expect(try await caller.download(snapshot: second.snapshotID, whole) == bytes)
        let chunk = Content.noise(2, 65536)
        let part = Content.noise(3, 1536)
        try await caller.upload(
            snapshot: second.snapshotID,
            .plain(5 * 65536, chunk),
            .plain(9 * 65536 + 512, part),
            .zeros(11 * 65536, 65536),
            .hole(12 * 65536, 65536)
        )
        try await caller.progress(second.snapshotID, 100)
        let changed = bytes.replacing(5 * 65536, chunk).replacing(9 * 65536 + 512, part)
            .replacing(11 * 65536, [UInt8](repeating: 0, count: 131072))
        #expect(try await caller.download(snapshot: second.snapshotID, whole) == changed)
        #expect(try await caller.seal(second.snapshotID) == Content.seal(changed, chunkSize: 65536))
        #expect(try await caller.download(snapshot: first.snapshotID, whole) == bytes)
    }

    @Test("V3: block calls on a LOCAL volume itself are WRONG_VOLUME_KIND")
    func wrongKind() async throws {
        let caller = try await caller()
        let volume = try await caller.createLocal().volumeID
        let target = Wire.Target.Target.volumeID(volume)
        let ranges = [Wire.ByteRange(offset: 0, length: 65536)]
        let bytes = Content.noise(4, 65536)
        for upload in [Upload.plain(0, bytes), .lz4(0, Content.text(5, 65536)), .zeros(0, 512), .hole(0, 65536)] {
            try await expectFailure(.wrongVolumeKind) { try await caller.upload(to: target, [upload]) }
        }
        try await expectFailure(.wrongVolumeKind) { try await caller.download(volume, 0..<512) }
        try await expectFailure(.wrongVolumeKind) { try await caller.blocks(target) }
        try await expectFailure(.wrongVolumeKind) {
            try await caller.call(Wire.WriteZeroesRequest(target: target.wire, ranges: ranges))
        }
        try await expectFailure(.wrongVolumeKind) {
            try await caller.call(Wire.DiscardRequest(target: target.wire, ranges: ranges))
        }
        try await expectFailure(.wrongVolumeKind) { try await caller.call(Wire.FlushRequest(volumeID: volume)) }
        try await expectFailure(.wrongVolumeKind) { try await caller.call(Wire.AttachVolumeRequest(volumeID: volume)) }
        let remote = try await caller.createVolume()
        for (older, newer) in [
            (.snapshotID(remote.initialSnapshotID), target), (target, .snapshotID(remote.initialSnapshotID)),
        ] as [(Wire.Target.Target, Wire.Target.Target)] {
            try await expectFailure(.wrongVolumeKind) { try await caller.changed(older, newer) }
        }
        try await expectFailure(.wrongVolumeKind, block: 1) {
            try await caller.call(Wire.CreateSnapshotsRequest(volumeIDs: [remote.volumeID, volume]))
        }
        #expect(try await caller.describeVolume(remote.volumeID).dataVersion == 2)
    }

    @Test("V3, V4: a LOCAL volume from a snapshot is a restore: its next snapshot is incremental to that one")
    func restore() async throws {
        let caller = try await caller()
        let source = try await caller.createVolume()
        let bytes = Content.noise(6, 1 << 20)
        try await caller.upload(source.volumeID, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(source.volumeID)
        let restored = try await caller.createLocal(size: 2 << 20, chunkSize: 0, from: snapshot.snapshotID)
        #expect(try await caller.describeVolume(restored.volumeID).sourceSnapshotID == snapshot.snapshotID)
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        #expect(try await caller.download(snapshot: restored.initialSnapshotID, 0..<2 << 20) == bytes + zeros)
        let next = try await caller.createSnapshot(restored.volumeID).snapshotID
        let (part, tail) = (Content.noise(7, 512), Content.noise(8, 65536))
        try await caller.upload(snapshot: next, .plain(1024, part), .plain((2 << 20) - 65536, tail))
        try await caller.progress(next, 100)
        let expected = (bytes + zeros).replacing(1024, part).replacing((2 << 20) - 65536, tail)
        #expect(try await caller.download(snapshot: next, 0..<2 << 20) == expected)
        #expect(try await caller.seal(next) == Content.seal(expected, chunkSize: 65536))
        #expect(try await caller.download(snapshot: snapshot.snapshotID, whole) == bytes)
        // And back: a REMOTE volume of a LOCAL one's snapshot.
        let remote = try await caller.createVolume(size: 0, chunkSize: 0, from: next)
        #expect(try await caller.download(remote.volumeID, 0..<2 << 20) == expected)
    }

    @Test("S9: progress rises, by call and with an upload; backwards and beyond 100 are INVALID_PROGRESS")
    func progress() async throws {
        let caller = try await caller()
        let volume = try await caller.createLocal().volumeID
        let snapshot = try await caller.createSnapshot(volume)
        let id = snapshot.snapshotID
        let answer = try await caller.progress(id, 10)
        #expect(answer.state == .inProgress)
        #expect(answer.percent == 10)
        #expect(answer.seal == nil)
        #expect(try await caller.progress(id, 10).percent == 10)
        let bytes = Content.noise(9, 65536)
        try await caller.upload(to: .snapshotID(id), [.plain(0, bytes)], progress: 30)
        #expect(try await caller.describeSnapshot(id).progress == 30)
        for percent in [29, 0, 101, .max] as [UInt32] {
            try await expectFailure(.invalidProgress) { try await caller.progress(id, percent) }
            // With an upload: nothing of it is written (U2).
            try await expectFailure(.invalidProgress) {
                try await caller.upload(
                    to: .snapshotID(id),
                    [.plain(0, Content.noise(10, 65536)), .plain(65536, bytes)],
                    progress: percent
                )
            }
        }
        #expect(try await caller.describeSnapshot(id).progress == 30)
        #expect(
            try await caller.download(snapshot: id, 0..<131072) == bytes + [UInt8](repeating: 0, count: 65536)
        )
        // By the token, too (S7).
        _ = try await caller.call(
            Wire.SnapshotProgressRequest(target: .snapshotToken(snapshot.snapshotToken), percent: 40)
        )
        try await caller.upload(to: .snapshotToken(snapshot.snapshotToken), [.plain(65536, bytes)], progress: 100)
        #expect(try await caller.describeSnapshot(id).state == .complete)
        #expect(try await caller.describeSnapshot(id).progress == 100)
        let expected = bytes + bytes + [UInt8](repeating: 0, count: 14 * 65536)
        #expect(try await caller.seal(id) == Content.seal(expected, chunkSize: 65536))
    }

    @Test("S9, S6, U5, C5: a complete snapshot takes no data; 100 again returns the seal again")
    func complete() async throws {
        let caller = try await caller()
        let local = try await caller.createLocal().volumeID
        let snapshot = try await caller.createSnapshot(local).snapshotID
        let bytes = Content.noise(11, 1 << 20)
        try await caller.upload(snapshot: snapshot, .plain(0, bytes))
        try await caller.progress(snapshot, 100)
        let remote = try await caller.createVolume().volumeID
        try await caller.upload(remote, .plain(0, bytes))
        let other = try await caller.createSnapshot(remote).snapshotID
        let seal = Content.seal(bytes, chunkSize: 65536)
        for id in [snapshot, other] {
            #expect(try await caller.seal(id) == seal)
            for _ in 0..<2 {
                let again = try await caller.progress(id, 100)
                #expect(again.state == .complete)
                #expect(again.percent == 100)
                #expect(again.seal?.value == seal)
            }
            for uploads in [[.plain(0, Content.noise(12, 512))], [.zeros(0, 65536)], [.hole(0, 512)]] as [[Upload]] {
                try await expectFailure(.snapshotAlreadyComplete) {
                    try await caller.upload(to: .snapshotID(id), uploads)
                }
            }
            let ranges = [Wire.ByteRange(offset: 0, length: 512)]
            try await expectFailure(.snapshotAlreadyComplete) {
                try await caller.call(
                    Wire.WriteZeroesRequest(target: .init(target: .snapshotID(id)), ranges: ranges)
                )
            }
            try await expectFailure(.snapshotAlreadyComplete) {
                try await caller.call(Wire.DiscardRequest(target: .init(target: .snapshotID(id)), ranges: ranges))
            }
            #expect(try await caller.download(snapshot: id, whole) == bytes)
        }
    }

    @Test("S9, C2: progress of a snapshot that is not there, or another account's, is INVALID_SNAPSHOT_ID")
    func noSuchSnapshot() async throws {
        let (caller, stranger) = (try await caller(), try await caller())
        let snapshot = try await caller.createSnapshot(try await caller.createLocal().volumeID)
        for percent in [0, 100] as [UInt32] {
            try await expectFailure(.invalidSnapshotID) {
                try await stranger.progress(snapshot.snapshotID, percent)
            }
            try await expectFailure(.invalidSnapshotID) {
                try await stranger.progress(UUID128.random(shard: ShardIndex(0)).bytes, percent)
            }
        }
        #expect(try await caller.describeSnapshot(snapshot.snapshotID).progress == 0)
    }

    @Test("V9: a volume with snapshots in progress is not deleted, unless the call says to cancel them")
    func deleteVolume() async throws {
        let caller = try await caller()
        let volume = try await caller.createLocal().volumeID
        let bytes = Content.noise(13, 1 << 20)
        let complete = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(snapshot: complete, .plain(0, bytes))
        try await caller.progress(complete, 100)
        let open = [
            try await caller.createSnapshot(volume).snapshotID, try await caller.createSnapshot(volume).snapshotID,
        ]
        try await expectFailure(.failedPrecondition) { try await caller.deleteVolume(volume) }
        #expect(try await caller.describeVolume(volume).state == .available)
        try await caller.upload(snapshot: open[0], .plain(0, Content.noise(14, 65536)))
        try await caller.deleteVolume(volume, cancelling: true)
        try await expectFailure(.invalidVolumeID) { try await caller.describeVolume(volume) }
        try await expectFailure(.invalidVolumeID) { try await caller.deleteVolume(volume, cancelling: true) }
        for id in open {
            try await expectFailure(.invalidSnapshotID) { try await caller.describeSnapshot(id) }
            try await expectFailure(.invalidSnapshotID) {
                try await caller.upload(snapshot: id, .zeros(0, 512))
            }
        }
        #expect(try await caller.download(snapshot: complete, whole) == bytes)
    }

    @Test("D2, S3: a snapshot in progress is readable, at its version, as far as it has come")
    func readWhileInProgress() async throws {
        let caller = try await caller()
        let volume = try await caller.createLocal().volumeID
        let snapshot = try await caller.createSnapshot(volume)
        #expect(
            try await caller.download(snapshot: snapshot.snapshotID, whole) == [UInt8](repeating: 0, count: 1 << 20)
        )
        let bytes = Content.noise(15, 3 * 65536)
        try await caller.upload(snapshot: snapshot.snapshotID, .plain(65536, bytes))
        let other = try await server.connect(freshAccount())
        try await expectFailure(.invalidSnapshotID) {
            try await other.download(snapshot: snapshot.snapshotID, whole)
        }
        let request = Wire.DownloadBlockRequest(
            target: .init(target: .snapshotToken(snapshot.snapshotToken)),
            dataVersion: snapshot.dataVersion,
            ranges: [.init(offset: 65536, length: 512)]
        )
        let read = try await caller.call(request)
        #expect(read.message.dataVersion == snapshot.dataVersion)
        #expect(read.payload == Array(bytes[0..<512]))
        var wrong = request
        wrong.dataVersion += 1
        try await expectFailure(.invalidDataVersion) { try await caller.call(wrong) }
        let listed = try await caller.blocks(.snapshotID(snapshot.snapshotID)).filter { $0.state != .hole }
        #expect(listed.map(\.offset) == [65536, 131072, 196608])
    }
}
