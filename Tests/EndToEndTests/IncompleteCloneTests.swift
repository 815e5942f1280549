import CairnCore
import CairnTesting
import CairnWire
import Testing

/// SPEC V5: volumes made from snapshots that are still in progress.
@Suite(.serialized, .server())
struct IncompleteCloneTests {
    private let server = ServerProcess.shared
    private let size = 1 << 20
    private var whole: Range<UInt64> { 0..<UInt64(size) }

    /// A LOCAL volume with a complete snapshot of noise, and one in progress.
    private func ancestor(_ seed: UInt64, chunkSize: UInt32 = 65536) async throws -> (
        caller: Caller, volume: [UInt8], base: [UInt8], open: [UInt8]
    ) {
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createLocal(chunkSize: chunkSize).volumeID
        let base = Content.noise(seed, size)
        let first = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(to: .snapshotID(first), [.plain(0, base)], progress: 100)
        return (caller, volume, base, try await caller.createSnapshot(volume).snapshotID)
    }

    private func state(_ caller: Caller, _ snapshot: [UInt8]) async throws -> Wire.SnapshotState {
        try await caller.describeSnapshot(snapshot).state
    }

    private func waitForCompletion(_ caller: Caller, _ snapshot: [UInt8]) async throws {
        try await eventually("the snapshot completes by itself") {
            try await state(caller, snapshot) == .complete
        }
    }

    @Test(
        "V5: what is uploaded to the incomplete snapshot later shows through, except over what the volume wrote, to the sector"
    )
    func showsThrough() async throws {
        let (caller, _, base, open) = try await ancestor(1)
        var snapshot = base
        func send(_ offset: Int, _ bytes: [UInt8]) async throws {
            try await caller.upload(snapshot: open, .plain(UInt64(offset), bytes))
            snapshot = snapshot.replacing(offset, bytes)
        }
        try await send(0, Content.noise(2, 65536))
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: open).volumeID
        #expect(try await caller.download(clone, whole) == snapshot)
        // Own writes: part of a chunk, a whole one, zeros, a hole.
        let (part, chunk) = (Content.noise(3, 1024), Content.noise(4, 65536))
        try await caller.upload(
            clone,
            .plain(65536 + 1536, part),
            .plain(3 * 65536, chunk),
            .zeros(4 * 65536 + 512, 512),
            .hole(5 * 65536, 65536)
        )
        // Later data of the ancestor over all of it.
        try await send(65536, Content.noise(5, 5 * 65536))
        try await send(8 * 65536 + 4096, Content.noise(6, 512))
        let expected = snapshot.replacing(65536 + 1536, part).replacing(3 * 65536, chunk)
            .replacing(4 * 65536 + 512, [UInt8](repeating: 0, count: 512))
            .replacing(5 * 65536, [UInt8](repeating: 0, count: 65536))
        #expect(try await caller.download(clone, whole) == expected)
        #expect(try await caller.download(snapshot: open, whole) == snapshot)

        // A snapshot of it waits for the ancestor, and then completes by itself.
        let waiting = try await caller.createSnapshot(clone)
        #expect(waiting.state == .inProgress)
        try await caller.upload(clone, .plain(10 * 65536, Content.noise(7, 512)))
        try await send(11 * 65536, Content.noise(8, 65536))
        try await send(10 * 65536, Content.noise(9, 1024))
        let frozen = expected.replacing(11 * 65536, Content.noise(8, 65536))
            .replacing(10 * 65536, Content.noise(9, 1024))
        #expect(try await caller.download(snapshot: waiting.snapshotID, whole) == frozen)
        #expect(
            try await caller.download(clone, whole) == frozen.replacing(10 * 65536, Content.noise(7, 512))
        )
        #expect(try await state(caller, waiting.snapshotID) == .inProgress)
        #expect(try await caller.describeSnapshot(waiting.snapshotID).seal == nil)
        try await caller.progress(open, 100)
        try await waitForCompletion(caller, waiting.snapshotID)
        #expect(try await caller.describeSnapshot(waiting.snapshotID).completedAtMs > 0)
        #expect(try await caller.seal(waiting.snapshotID) == Content.seal(frozen, chunkSize: 65536))
        #expect(try await caller.seal(open) == Content.seal(snapshot, chunkSize: 65536))
        #expect(try await caller.download(clone, whole) == frozen.replacing(10 * 65536, Content.noise(7, 512)))
    }

    @Test("V5, U5: a snapshot that waits for its ancestor takes no data of its own")
    func waitingTakesNothing() async throws {
        let (caller, _, _, open) = try await ancestor(20)
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: open).volumeID
        let waiting = try await caller.createSnapshot(clone).snapshotID
        try await expectFailure(.snapshotAlreadyComplete) {
            try await caller.upload(snapshot: waiting, .plain(0, Content.noise(21, 512)))
        }
        // Said to be complete again (C5): it is, but for its ancestor.
        #expect(try await caller.progress(waiting, 100).state == .inProgress)
        try await caller.progress(open, 100)
        try await waitForCompletion(caller, waiting)
    }

    @Test("V5: cancelling the incomplete snapshot freezes what depends on it at what was uploaded")
    func cancelled() async throws {
        let (caller, volume, base, open) = try await ancestor(30)
        let later = try await caller.createSnapshot(volume).snapshotID
        let (one, other) = (Content.noise(31, 65536), Content.noise(32, 1024))
        try await caller.upload(snapshot: open, .plain(65536, one))
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: open).volumeID
        let waiting = try await caller.createSnapshot(clone).snapshotID
        try await caller.upload(snapshot: open, .plain(3 * 65536 + 512, other))
        let own = Content.noise(33, 512)
        try await caller.upload(clone, .plain(65536, own))
        try await caller.deleteSnapshot(open)
        let frozen = base.replacing(65536, one).replacing(3 * 65536 + 512, other)
        #expect(try await caller.download(clone, whole) == frozen.replacing(65536, own))
        try await waitForCompletion(caller, waiting)
        #expect(try await caller.seal(waiting) == Content.seal(frozen, chunkSize: 65536))
        // The next of the LOCAL volume is without it, and what it gets does not show through.
        #expect(try await caller.download(snapshot: later, whole) == base)
        try await caller.upload(snapshot: later, .plain(5 * 65536, Content.noise(34, 65536)))
        try await caller.progress(later, 100, rebased: true)
        #expect(try await caller.download(clone, whole) == frozen.replacing(65536, own))
        #expect(try await caller.download(snapshot: waiting, whole) == frozen)
        // A snapshot of the frozen one is complete at once.
        #expect(try await caller.createSnapshot(clone).state == .complete)
    }

    @Test("V5, V3: clones of clones of an incomplete snapshot, REMOTE and LOCAL, wait and complete in turn")
    func chains() async throws {
        let (caller, _, base, open) = try await ancestor(40)
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: open).volumeID
        let (own, ownToo) = (Content.noise(41, 512), Content.noise(42, 65536))
        try await caller.upload(clone, .plain(512, own))
        let first = try await caller.createSnapshot(clone).snapshotID
        let second = try await caller.createVolume(size: 2 << 20, chunkSize: 0, from: first).volumeID
        try await caller.upload(second, .plain(2 * 65536, ownToo))
        let third = try await caller.createSnapshot(second).snapshotID
        let local = try await caller.createLocal(size: 0, chunkSize: 0, from: first).volumeID
        let backup = try await caller.createSnapshot(local).snapshotID
        let sent = Content.noise(43, 4096)
        try await caller.upload(to: .snapshotID(backup), [.plain(8192, sent)])
        // All its own data is in, but its ancestor's is not.
        #expect(try await caller.progress(backup, 100).state == .inProgress)
        let late = Content.noise(44, 3 * 65536)
        try await caller.upload(snapshot: open, .plain(0, late))
        let content = base.replacing(0, late)
        for id in [first, third, backup] { #expect(try await state(caller, id) == .inProgress) }
        try await caller.progress(open, 100)
        let zeros = [UInt8](repeating: 0, count: size)
        let expected: [([UInt8], [UInt8])] = [
            (first, content.replacing(512, own)),
            (third, content.replacing(512, own).replacing(2 * 65536, ownToo) + zeros),
            (backup, content.replacing(512, own).replacing(8192, sent)),
        ]
        for (id, bytes) in expected {
            try await waitForCompletion(caller, id)
            #expect(try await caller.download(snapshot: id, 0..<UInt64(bytes.count)) == bytes)
            #expect(try await caller.seal(id) == Content.seal(bytes, chunkSize: 65536))
        }
    }

    @Test(
        "V5: random writes of volume and ancestor, side by side, over a restart: newer data is never lost",
        arguments: 0..<3
    )
    func random(_ seed: UInt64) async throws {
        let server = try await ServerProcess.started()
        var generator = SeededRandom(seed: 1000 + seed)
        let account = freshAccount()
        var caller = try await server.connect(account)
        let chunkSize = [4096, 65536, 262144][Int(seed)]
        let volume = try await caller.createLocal(chunkSize: UInt32(chunkSize)).volumeID
        let open = try await caller.createSnapshot(volume).snapshotID
        let clone = try await caller.createVolume(size: 0, chunkSize: 0, from: open).volumeID
        // Sector by sector: what the ancestor holds, and what the clone has written itself.
        var ancestor = [UInt8](repeating: 0, count: size)
        var own = [UInt8](repeating: 0, count: size)
        var isOwn = [Bool](repeating: false, count: size / 512)
        var snapshots: [(id: [UInt8], own: [UInt8], isOwn: [Bool])] = []
        for step in 0..<150 {
            let count = Int.random(in: 1...(step % 10 == 0 ? 400 : 20), using: &generator)
            let sector = Int.random(in: 0...(size / 512 - count), using: &generator)
            let offset = sector * 512
            let bytes = Content.noise(UInt64(step) + seed << 20, count * 512)
            let kind = Int.random(in: 0..<6, using: &generator)
            let upload: Upload =
                kind == 0
                ? .zeros(UInt64(offset), UInt32(count * 512))
                : kind == 1 ? .hole(UInt64(offset), UInt32(count * 512)) : .plain(UInt64(offset), bytes)
            let written = kind < 2 ? [UInt8](repeating: 0, count: count * 512) : bytes
            if Bool.random(using: &generator) {
                try await caller.upload(snapshot: open, upload)
                ancestor = ancestor.replacing(offset, written)
            } else {
                try await caller.upload(clone, upload)
                own = own.replacing(offset, written)
                isOwn.replaceSubrange(sector..<sector + count, with: repeatElement(true, count: count))
            }
            if step == 70 || step == 110 {
                snapshots.append((try await caller.createSnapshot(clone).snapshotID, own, isOwn))
            }
            if step == 90 {
                try await server.crash()
                try await server.start()
                caller = try await server.connect(account)
            }
        }
        func merged(_ own: [UInt8], _ isOwn: [Bool]) -> [UInt8] {
            var content = ancestor
            for sector in isOwn.indices where isOwn[sector] {
                content.replaceSubrange(sector * 512..<(sector + 1) * 512, with: own[sector * 512..<(sector + 1) * 512])
            }
            return content
        }
        #expect(try await caller.download(clone, whole) == merged(own, isOwn))
        for snapshot in snapshots {
            #expect(try await caller.download(snapshot: snapshot.id, whole) == merged(snapshot.own, snapshot.isOwn))
        }
        try await caller.progress(open, 100)
        for snapshot in snapshots {
            try await waitForCompletion(caller, snapshot.id)
            #expect(
                try await caller.seal(snapshot.id)
                    == Content.seal(merged(snapshot.own, snapshot.isOwn), chunkSize: chunkSize)
            )
        }
        #expect(try await caller.download(clone, whole) == merged(own, isOwn))
    }
}
