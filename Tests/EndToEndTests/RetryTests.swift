import CairnCore
import CairnRPC
import CairnTesting
import CairnWire
import Testing

/// SPEC C5: every call can be made again.
@Suite(.serialized)
struct RetryTests {
    @Test("C5: the same key gives the first answer again, other parameters a mismatch; also after kill -9 and restart")
    func keys() async throws {
        let server = try await ServerProcess.started(shards: 4)
        let account = freshAccount()
        var caller = try await server.connect(account)
        let createKey = Array("create".utf8)
        let snapshotKey = Array("snapshot".utf8)
        let deleteKey = Array("delete".utf8)
        let created = try await caller.createVolume(key: createKey)
        let doomed = try await caller.createVolume(key: Array("doomed".utf8))
        let doomedSnapshot = try await caller.createSnapshot(doomed.volumeID)
        let snapshot = try await caller.createSnapshot(created.volumeID, key: snapshotKey)
        _ = try await caller.call(
            Wire.DeleteSnapshotRequest(snapshotID: doomedSnapshot.snapshotID, idempotencyKey: Array("ds".utf8))
        )
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: doomed.volumeID, idempotencyKey: deleteKey))
        for round in 0..<3 {
            if round == 1 {
                try await server.crash()
                try await server.start()
                caller = try await server.connect(account)
            }
            #expect(try await caller.createVolume(key: createKey) == created)
            #expect(try await caller.createSnapshot(created.volumeID, key: snapshotKey) == snapshot)
            _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: doomed.volumeID, idempotencyKey: deleteKey))
            _ = try await caller.call(
                Wire.DeleteSnapshotRequest(snapshotID: doomedSnapshot.snapshotID, idempotencyKey: Array("ds".utf8))
            )
            try await mismatches(caller, created, snapshot, createKey, snapshotKey, deleteKey)
        }
        #expect(try await caller.call(Wire.ListVolumesRequest()).message.volumes.map(\.volumeID) == [created.volumeID])
        #expect(try await caller.describeVolume(created.volumeID).dataVersion == 3)
        // Another account's key is another key.
        let other = try await server.connect(freshAccount())
        #expect(try await other.createVolume(key: createKey).volumeID != created.volumeID)
    }

    private func mismatches(
        _ caller: Caller,
        _ created: Wire.CreateVolumeResponse,
        _ snapshot: Wire.CreateSnapshotResponse,
        _ createKey: [UInt8],
        _ snapshotKey: [UInt8],
        _ deleteKey: [UInt8]
    ) async throws {
        // Parameters that alone would choose other shards, too.
        for affinity in 0..<6 {
            let error = try await failure { try await caller.createVolume(affinity: [UInt8(affinity)], key: createKey) }
            #expect(error.reason == .idempotencyMismatch)
        }
        for error in [
            try await failure { try await caller.createVolume(size: 2 << 20, key: createKey) },
            try await failure {
                try await caller.createVolume(size: 0, chunkSize: 0, from: snapshot.snapshotID, key: createKey)
            },
            try await failure { try await caller.createSnapshot(created.volumeID, key: createKey) },
            try await failure {
                try await caller.call(
                    Wire.CreateSnapshotRequest(
                        volumeID: created.volumeID,
                        description: "other",
                        idempotencyKey: snapshotKey
                    )
                )
            },
            try await failure {
                try await caller.call(Wire.DeleteVolumeRequest(volumeID: created.volumeID, idempotencyKey: deleteKey))
            },
        ] { #expect(error.reason == .idempotencyMismatch) }
        let long = [UInt8](repeating: 1, count: 65)
        #expect(try await failure { try await caller.createVolume(key: long) }.reason == .invalidArgument)
    }

    @Test("C5: the same key from many connections at once makes one volume")
    func simultaneous() async throws {
        let server = try await ServerProcess.started(shards: 4)
        let account = freshAccount()
        var callers: [Caller] = []
        for _ in 0..<8 { callers.append(try await server.connect(account)) }
        let connected = callers
        for round in 0..<5 {
            let ids = try await withThrowingTaskGroup(of: [UInt8].self) { group in
                for (index, caller) in connected.enumerated() {
                    group.addTask { try await caller.createVolume(key: Array("once-\(round)".utf8)).volumeID }
                    _ = index
                }
                return try await group.reduce(into: Set()) { $0.insert($1) }
            }
            #expect(ids.count == 1)
        }
        #expect(try await connected[0].call(Wire.ListVolumesRequest()).message.volumes.count == 5)
    }

    @Test("C5: a refused call leaves its key free")
    func refusedKey() async throws {
        let server = try await ServerProcess.started()
        let caller = try await server.connect(freshAccount())
        let key = Array("again".utf8)
        #expect(try await failure { try await caller.createVolume(size: 1, key: key) }.reason == .invalidVolumeSize)
        _ = try await caller.createVolume(key: key)
    }

    @Test(
        "C5: a HELLO of the same instance is answered after the older connection's calls have ended: no late write wins"
    )
    func instances() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        let instance = Content.noise(80, 16)
        let volume = try await server.connect(account).createVolume(size: 4 << 20).volumeID
        let contents = (0..<8).map { Content.noise(UInt64(90 + $0), 4 << 20) }
        for round in 0..<6 {
            let older = try await server.connect(account, instance: instance)
            // Large writes, still under way when the instance comes again.
            let late = contents[0..<6].map { content in Task { try await older.upload(volume, .plain(0, content)) } }
            try await Task.sleep(for: .milliseconds(round * 8))
            let newer = try await server.connect(account, instance: instance)
            let last = contents[6 + round % 2]
            try await newer.upload(volume, .plain(0, last))
            for task in late { _ = await task.result }
            try await Task.sleep(for: .milliseconds(20))
            #expect(try await newer.download(volume, 0..<4 << 20) == last)
            #expect(!older.connection.isOpen)
        }
        // Another instance of the account disturbs nobody.
        let one = try await server.connect(account, instance: Content.noise(81, 16))
        let other = try await server.connect(account, instance: Content.noise(82, 16))
        _ = try await other.createVolume()
        _ = try await one.createVolume()
        // Nor does the same instance ID of another account.
        let foreign = try await server.connect(freshAccount(), instance: Content.noise(81, 16))
        _ = try await foreign.createVolume()
        _ = try await one.createVolume()
    }

    @Test("U8: what was acknowledged as durable is there after kill -9; the write verifier changes with the restart")
    func durable() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        var caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 8 << 20).volumeID
        var content = [UInt8](repeating: 0, count: 8 << 20)
        var generator = SeededRandom(seed: 83)
        var verifiers: Set<[UInt8]> = []
        for round in 0..<4 {
            for index in 0..<25 {
                let count = Int.random(in: 1...200, using: &generator) * 512
                let offset = Int.random(in: 0...((8 << 20) - count) / 512, using: &generator) * 512
                let bytes = Content.noise(UInt64(round * 100 + index), count)
                let answer = try await caller.upload(volume, .plain(UInt64(offset), bytes))
                if index == 0 { #expect(verifiers.insert(answer.writeVerifier).inserted) }
                content.replaceSubrange(offset..<offset + count, with: bytes)
            }
            try await server.crash()
            try await server.start()
            caller = try await server.connect(account)
            #expect(try await caller.download(volume, 0..<8 << 20) == content)
        }
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        #expect(try await caller.seal(snapshot) == Content.seal(content, chunkSize: 65536))
        // And in order: SIGTERM and a new start.
        _ = try await server.stop()
        try await server.start()
        caller = try await server.connect(account)
        #expect(try await caller.download(snapshot: snapshot, 0..<8 << 20) == content)
    }
}
