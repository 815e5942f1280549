import CairnCore
import CairnWire
import Testing

/// SPEC R1 and R5: tags and attachments.
@Suite(.serialized, .server(shards: 4))
struct LabelTests {
    private let server = ServerProcess.shared

    @Test("R1: UpdateTags sets and removes tags of volumes and snapshots; listings filter by them at once")
    func tags() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume(tags: [.init(key: "a", value: "1"), .init(key: "b", value: "2")])
            .volumeID
        let snapshot = try await caller.createSnapshot(volume, tags: [.init(key: "a", value: "1")])
        for target in [Wire.Target.Target.volumeID(volume), .snapshotID(snapshot.snapshotID)] {
            let answer = try await caller.call(
                Wire.UpdateTagsRequest(
                    target: target.wire,
                    set: [.init(key: "c", value: "ü"), .init(key: "a", value: "9")],
                    remove: ["b", "never there"]
                )
            ).message
            #expect(Set(answer.tags) == [.init(key: "a", value: "9"), .init(key: "c", value: "ü")])
        }
        #expect(
            try await Set(caller.describeVolume(volume).tags) == [
                .init(key: "a", value: "9"), .init(key: "c", value: "ü"),
            ]
        )
        let filter = [Wire.Tag(key: "a", value: "9")]
        #expect(try await caller.call(Wire.ListVolumesRequest(tags: filter)).message.volumes.count == 1)
        let listed = try await caller.call(Wire.ListSnapshotsRequest(tags: filter)).message.snapshots
        #expect(listed.map(\.snapshotID) == [snapshot.snapshotID])
        // By its token, too.
        _ = try await caller.call(
            Wire.UpdateTagsRequest(
                target: .init(target: .snapshotToken(snapshot.snapshotToken)),
                remove: ["a", "c"]
            )
        )
        #expect(try await caller.describeSnapshot(snapshot.snapshotID).tags.isEmpty)
    }

    @Test("R1: tags beyond the limits are INVALID_ARGUMENT, and none of the call is set")
    func badTags() async throws {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume(tags: [.init(key: "a", value: "1")]).volumeID
        let bad: [[Wire.Tag]] = [
            [.init(key: "", value: "x")], [.init(key: String(repeating: "k", count: 257), value: "")],
            [.init(key: "k", value: String(repeating: "v", count: 257))],
            (0..<64).map { .init(key: "key \($0)", value: "") },
            [.init(key: "twice", value: "1"), .init(key: "twice", value: "2")],
        ]
        for tags in bad {
            let request = Wire.UpdateTagsRequest(target: .init(target: .volumeID(volume)), set: tags)
            #expect(try await failure { try await caller.call(request) }.reason == .invalidArgument)
        }
        #expect(try await caller.describeVolume(volume).tags == [.init(key: "a", value: "1")])
    }

    @Test(
        "R5: who attaches later fences the earlier one out: its writes are STALE_ATTACHMENT, of every kind, also after kill -9"
    )
    func attach() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        var caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        func attach() async throws -> UInt64 {
            try await caller.call(Wire.AttachVolumeRequest(volumeID: volume)).message.generation
        }
        let target = Wire.Target.Target.volumeID(volume)
        let ranges = [Wire.ByteRange(offset: 0, length: 512)]
        func write(_ attachment: UInt64, _ reason: Wire.Reason?) async throws {
            let bodies: [() async throws -> Void] = [
                {
                    try await caller.upload(
                        to: target,
                        [.plain(0, Content.noise(attachment, 512))],
                        attachment: attachment
                    )
                },
                { try await caller.upload(to: target, [.zeros(512, 512)], attachment: attachment) },
                {
                    _ = try await caller.call(
                        Wire.WriteZeroesRequest(target: target.wire, ranges: ranges, attachment: attachment)
                    )
                },
                {
                    _ = try await caller.call(
                        Wire.DiscardRequest(target: target.wire, ranges: ranges, attachment: attachment)
                    )
                },
            ]
            for body in bodies {
                if let reason { try await expectFailure(reason) { try await body() } } else { try await body() }
            }
        }
        let first = try await attach()
        #expect(first > 0)
        try await write(first, nil)
        let second = try await attach()
        #expect(second > first)
        #expect(try await caller.describeVolume(volume).attachmentGeneration == second)
        try await caller.upload(volume, .plain(0, Content.noise(50, 1024)))
        try await write(first, .staleAttachment)
        #expect(try await caller.download(volume, 0..<1024) == Content.noise(50, 1024))
        try await write(second + 1, .invalidArgument)
        try await server.crash()
        try await server.start()
        caller = try await server.connect(account)
        try await write(first, .staleAttachment)
        try await write(second, nil)
        #expect(try await attach() > second)
        try await write(second, .staleAttachment)
        // Reads, and writes that name no generation, are not fenced.
        try await write(0, nil)
    }

    @Test("R5: a writer in flight while another attaches either comes before, or is refused: never after")
    func attachRace() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        for round in 0..<10 {
            let older = try await caller.call(Wire.AttachVolumeRequest(volumeID: volume)).message.generation
            let writer = try await server.connect(account)
            let writing = Task {
                for stamp in 1...40 {
                    do {
                        try await writer.upload(
                            to: .volumeID(volume),
                            [.plain(0, [UInt8](repeating: UInt8(stamp), count: 512))],
                            attachment: older
                        )
                    } catch let error as CallError where error.reason == .staleAttachment { return true }
                }
                return false
            }
            try await Task.sleep(for: .milliseconds(round))
            let newer = try await caller.call(Wire.AttachVolumeRequest(volumeID: volume)).message.generation
            let mine = [UInt8](repeating: 200, count: 512)
            try await caller.upload(to: .volumeID(volume), [.plain(0, mine)], attachment: newer)
            _ = try await writing.value
            #expect(try await caller.download(volume, 0..<512) == mine)
        }
    }
}
