import CairnClient
import CairnCore
import CairnWire
import Synchronization
import Testing

/// SPEC S10: the server asks how far a snapshot is.
@Suite(.serialized, .server("prompt-seconds=1"))
struct PromptCallbackTests {
    private let server = ServerProcess.shared

    /// A LOCAL volume's snapshot in progress, to which `client` has uploaded.
    private func uploaded(_ client: Client) async throws -> SnapshotID {
        var new = NewVolume()
        (new.size, new.chunkSize, new.kind) = (1 << 20, ChunkSize(bytes: 65536), .local)
        let snapshot = try await client.createSnapshot(of: try await client.createVolume(new).id).id
        let bytes = Buffer(copying: Content.noise(1, 65536)).slice
        _ = try await client.upload(
            [BlockUpload(offset: 0, length: 65536, content: .plain(bytes))],
            to: .snapshot(snapshot)
        )
        return snapshot
    }

    @Test("S10: no answer, a late one, and a client that knows no prompts do no harm")
    func unanswered() async throws {
        let wasAsked = Mutex(false)
        var silent = ClientOptions()
        silent.onProgressPrompt = { _ in
            wasAsked.withLock { $0 = true }
            try? await Task.sleep(for: .seconds(600))
            return 99
        }
        let account = freshAccount()
        let mute = try server.client(account, silent)
        let first = try await uploaded(mute)
        let second = try await uploaded(try server.client(account))
        // The contract's caller takes no calls at all.
        let caller = try await server.connect(account)
        let volume = try await caller.createLocal().volumeID
        let third = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(snapshot: third, .plain(0, Content.noise(2, 65536)))
        try await eventually("the silent client was asked") { wasAsked.withLock { $0 } }
        try await Task.sleep(for: .seconds(2))
        for id in [first.bytes, second.bytes, third] {
            let snapshot = try await caller.describeSnapshot(id)
            #expect(snapshot.state == .inProgress)
            #expect(snapshot.promptedProgress == nil)
            #expect(try await caller.progress(id, 10).percent == 10)
        }
        try await eventually("it is recorded that the silent client does not answer") {
            try await mute.describeSnapshot(first).isPromptUnanswered
        }
        let shown = try await server.cairn(account, ["snapshot", "show", "\(first)"]).output
        #expect(shown.contains("got no answer"))
        // A client that cannot be asked is not one that does not answer.
        for id in [second.bytes, third] { #expect(try await !caller.describeSnapshot(id).promptUnanswered) }
        for id in [first.bytes, second.bytes, third] {
            #expect(try await caller.progress(id, 100).state == .complete)
        }
    }
}

/// SPEC S11: snapshots in progress that nobody does anything for.
@Suite(.serialized, .server("snapshot-idle-seconds=16", "prompt-seconds=0"))
struct IdleTests {
    private let server = ServerProcess.shared

    @Test("S11, S4: an idle snapshot becomes ERROR, stays visible, and is no longer in the way of the next")
    func idle() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createLocal().volumeID
        let first = try await caller.createSnapshot(volume).snapshotID
        let second = try await caller.createSnapshot(volume).snapshotID
        let third = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(to: .snapshotID(first), [.plain(0, Content.noise(10, 131072))], progress: 40)
        // It is touched: it stays.
        for step in 0..<19 {
            try await caller.upload(snapshot: first, .plain(UInt64(step) * 512, Content.noise(UInt64(11 + step), 512)))
            #expect(try await caller.describeSnapshot(first).state == .inProgress)
            try await Task.sleep(for: .seconds(1))
        }
        try await eventually("the idle snapshot is cancelled", within: .seconds(60)) {
            try await caller.describeSnapshot(first).state == .error
        }
        let listed = try await caller.call(Wire.ListSnapshotsRequest(volumeID: volume, state: .error)).message.snapshots
        #expect(listed.map(\.snapshotID).first == first)
        // Nobody waits in vain for its seal.
        let cancelled = try #require(SnapshotID(bytes: first))
        #expect(try await server.client(account).describeSealed(cancelled, within: .seconds(600)).state == .error)
        try await expectFailure(.failedPrecondition) { try await caller.download(snapshot: first, 0..<512) }
        try await expectFailure(.failedPrecondition) {
            try await caller.upload(snapshot: first, .plain(0, Content.noise(12, 512)))
        }
        try await expectFailure(.failedPrecondition) { try await caller.progress(first, 100) }
        try await expectFailure(.failedPrecondition) {
            try await caller.createVolume(size: 0, chunkSize: 0, from: first)
        }
        // The next takes data. Its own time began when it became the earliest.
        let bytes = Content.noise(13, 65536)
        try await caller.upload(to: .snapshotID(second), [.plain(65536, bytes)], rebased: true)
        try await caller.progress(second, 100)
        try await caller.progress(third, 100, rebased: true)
        let expected = [UInt8](repeating: 0, count: 1 << 20).replacing(65536, bytes)
        #expect(try await caller.seal(third) == Content.seal(expected, chunkSize: 65536))
        // Complete ones and REMOTE ones are never idle.
        try await Task.sleep(for: .seconds(18))
        #expect(try await caller.describeSnapshot(second).state == .complete)
        // S8: it can be deleted.
        try await caller.deleteSnapshot(first)
        try await expectFailure(.invalidSnapshotID) { try await caller.describeSnapshot(first) }
    }
}
