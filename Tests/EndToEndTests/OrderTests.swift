import CairnCore
import CairnWire
import Testing

/// SPEC S4: several snapshots in progress of one volume.
@Suite(.serialized, .server())
struct OrderTests {
    private let server = ServerProcess.shared
    private let whole: Range<UInt64> = 0..<1 << 20

    /// A LOCAL volume whose first snapshot is complete and holds noise, and `count` more in progress.
    private func volume(_ seed: UInt64, _ count: Int) async throws -> (
        caller: Caller, volume: [UInt8], base: [UInt8], open: [Wire.CreateSnapshotResponse]
    ) {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createLocal().volumeID
        let base = Content.noise(seed, 1 << 20)
        let first = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(to: .snapshotID(first), [.plain(0, base)], progress: 100)
        var open: [Wire.CreateSnapshotResponse] = []
        for _ in 0..<count { open.append(try await caller.createSnapshot(volume)) }
        return (caller, volume, base, open)
    }

    @Test("S4, S9, U5: only the earliest outstanding one takes data and progress; they complete in creation order")
    func order() async throws {
        let (caller, _, base, open) = try await volume(1, 3)
        #expect(open.map(\.dataVersion) == [3, 4, 5])
        #expect(open.allSatisfy { $0.state == .inProgress })
        var content = base
        for (index, snapshot) in open.enumerated() {
            for later in open[(index + 1)...] {
                try await expectFailure(.invalidDataVersion) {
                    try await caller.upload(snapshot: later.snapshotID, .zeros(0, 512))
                }
                let error = try await failure { try await caller.progress(later.snapshotID, 100) }
                #expect(error.reason == .invalidSnapshotID)
                #expect(error.text.contains("\(SnapshotID(bytes: snapshot.snapshotID)!)"), "\(error)")
            }
            for version in [snapshot.dataVersion + 1, snapshot.dataVersion - 1, 77] {
                try await expectFailure(.invalidDataVersion) {
                    try await caller.upload(
                        to: .snapshotID(snapshot.snapshotID),
                        [.zeros(0, 512)],
                        dataVersion: version
                    )
                }
            }
            let bytes = Content.noise(UInt64(10 + index), 65536 + 1024)
            try await caller.upload(
                to: .snapshotID(snapshot.snapshotID),
                [.plain(UInt64(index) * 131072, bytes)],
                dataVersion: snapshot.dataVersion
            )
            content = content.replacing(index * 131072, bytes)
            // What the earliest gets, the later ones start from.
            for later in open[index...] {
                #expect(try await caller.download(snapshot: later.snapshotID, whole) == content)
            }
            try await caller.progress(snapshot.snapshotID, 100)
            #expect(try await caller.seal(snapshot.snapshotID) == Content.seal(content, chunkSize: 65536))
        }
    }

    @Test("S4: the earliest is deleted: the next takes data, without the deleted one's; the later ones NEED_REBASE")
    func rebase() async throws {
        let (caller, _, base, open) = try await volume(2, 3)
        let ids = open.map(\.snapshotID)
        try await caller.upload(
            snapshot: ids[0],
            .plain(0, Content.noise(20, 131072)),
            .plain(512 << 10, [1, 2] * 256)
        )
        #expect(try await caller.describeSnapshot(ids[1]).needsRebase == false)
        try await caller.deleteSnapshot(ids[0])
        try await expectFailure(.invalidSnapshotID) { try await caller.describeSnapshot(ids[0]) }
        for id in ids[1...] {
            #expect(try await caller.describeSnapshot(id).needsRebase)
            #expect(try await caller.describeSnapshot(id).state == .inProgress)
            #expect(try await caller.download(snapshot: id, whole) == base)
        }
        // It takes data, and progress but 100.
        let first = Content.noise(21, 65536)
        try await caller.upload(to: .snapshotID(ids[1]), [.plain(65536, first)], progress: 50)
        try await expectFailure(.needsRebase) { try await caller.progress(ids[1], 100) }
        try await expectFailure(.needsRebase) {
            try await caller.upload(to: .snapshotID(ids[1]), [.zeros(0, 512)], progress: 100)
        }
        var content = base.replacing(65536, first)
        #expect(try await caller.download(snapshot: ids[1], whole) == content)
        // Declared with an upload, ...
        let second = Content.noise(22, 4096)
        try await caller.upload(to: .snapshotID(ids[1]), [.plain(4096, second)], rebased: true)
        #expect(try await caller.describeSnapshot(ids[1]).needsRebase == false)
        content = content.replacing(4096, second)
        try await caller.progress(ids[1], 100)
        #expect(try await caller.seal(ids[1]) == Content.seal(content, chunkSize: 65536))
        // ... and with the progress call.
        try await expectFailure(.needsRebase) { try await caller.progress(ids[2], 100) }
        #expect(try await caller.progress(ids[2], 100, rebased: true).state == .complete)
        #expect(try await caller.seal(ids[2]) == Content.seal(content, chunkSize: 65536))
    }

    @Test("S4: one in the middle is deleted: the earliest goes on as it was, only the later ones NEED_REBASE")
    func middle() async throws {
        let (caller, volume, base, open) = try await volume(3, 4)
        let ids = open.map(\.snapshotID)
        try await caller.deleteSnapshot(ids[2])
        var needs: [Bool] = []
        for id in [ids[0], ids[1], ids[3]] { needs.append(try await caller.describeSnapshot(id).needsRebase) }
        #expect(needs == [false, false, true])
        try await caller.progress(ids[0], 100)
        try await caller.progress(ids[1], 100)
        try await expectFailure(.needsRebase) { try await caller.progress(ids[3], 100) }
        // One that is made now does not count on what was cancelled before.
        let late = try await caller.createSnapshot(volume).snapshotID
        try await caller.progress(ids[3], 100, rebased: true)
        #expect(try await caller.describeSnapshot(late).needsRebase == false)
        try await caller.progress(late, 100)
        #expect(try await caller.seal(late) == Content.seal(base, chunkSize: 65536))
    }

    @Test("S4, S8: a complete snapshot is deleted while others are in progress: they keep what it held")
    func deleteBase() async throws {
        let (caller, volume, base, open) = try await volume(4, 2)
        let complete = try await caller.call(
            Wire.ListSnapshotsRequest(volumeID: volume, state: .complete)
        ).message.snapshots.filter { $0.dataVersion == 2 }
        try await caller.deleteSnapshot(try #require(complete.first).snapshotID)
        let part = Content.noise(40, 512)
        try await caller.upload(snapshot: open[0].snapshotID, .plain(512, part))
        #expect(try await caller.describeSnapshot(open[1].snapshotID).needsRebase == false)
        for snapshot in open {
            try await caller.progress(snapshot.snapshotID, 100)
            let expected = base.replacing(512, part)
            #expect(try await caller.download(snapshot: snapshot.snapshotID, whole) == expected)
            #expect(try await caller.seal(snapshot.snapshotID) == Content.seal(expected, chunkSize: 65536))
        }
    }

    @Test("S1, S4, R1: they are listed by their state, in order; all of it is there after kill -9")
    func restart() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        var caller = try await server.connect(account)
        let volume = try await caller.createLocal().volumeID
        var open: [[UInt8]] = []
        for _ in 0..<4 { open.append(try await caller.createSnapshot(volume).snapshotID) }
        let bytes = Content.noise(50, 131072)
        try await caller.upload(to: .snapshotID(open[0]), [.plain(0, bytes)], progress: 60)
        try await caller.deleteSnapshot(open[1])
        try await server.crash()
        try await server.start()
        caller = try await server.connect(account)
        let listed = try await caller.call(Wire.ListSnapshotsRequest(volumeID: volume, state: .inProgress)).message
            .snapshots
        #expect(listed.map(\.snapshotID) == [open[0], open[2], open[3]])
        #expect(listed.map(\.needsRebase) == [false, true, true])
        #expect(listed.map(\.progress) == [60, 0, 0])
        #expect(listed.map(\.dataVersion) == [2, 4, 5])
        try await expectFailure(.invalidProgress) { try await caller.progress(open[0], 59) }
        try await caller.progress(open[0], 100)
        for id in [open[2], open[3]] {
            try await expectFailure(.needsRebase) { try await caller.progress(id, 100) }
            try await caller.progress(id, 100, rebased: true)
        }
        let expected = [UInt8](repeating: 0, count: 1 << 20).replacing(0, bytes)
        #expect(try await caller.seal(open[3]) == Content.seal(expected, chunkSize: 65536))
        #expect(try await caller.describeVolume(volume).dataVersion == 6)
    }
}

private func * (pattern: [UInt8], count: Int) -> [UInt8] { [[UInt8]](repeating: pattern, count: count).flatMap { $0 } }
