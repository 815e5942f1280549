import CairnCore
import CairnWire
import Testing

/// SPEC R6: snapshots of several volumes at one point in time.
@Suite(.serialized, .server(shards: 4))
struct GroupSnapshotTests {
    private let server = ServerProcess.shared

    private func versions(_ caller: Caller, _ volumes: [[UInt8]]) async throws -> [UInt64] {
        var found: [UInt64] = []
        for volume in volumes { found.append(try await caller.describeVolume(volume).dataVersion) }
        return found
    }

    @Test(
        "R6: snapshots of volumes on several shards are of one point in time, under writers that go from one to the next"
    )
    func oneMoment() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        var volumes: [[UInt8]] = []
        for _ in 0..<6 { volumes.append(try await caller.createVolume().volumeID) }
        #expect(Set(volumes.map { UUID128(bytes: $0)!.shard }).count > 1)
        let order = volumes
        // Each stamp goes to all volumes in turn: at any moment, the stamps fall by at most one along the way.
        let writer = try await server.connect(account)
        let writing = Task {
            var stamp: UInt64 = 0
            while !Task.isCancelled {
                stamp += 1
                let sector = Content.littleEndian(stamp) + [UInt8](repeating: 0, count: 504)
                for volume in order { try await writer.upload(volume, .plain(0, sector)) }
            }
        }
        for round in 0..<12 {
            let made = try await caller.call(
                Wire.CreateSnapshotsRequest(volumeIDs: volumes, description: "together \(round)")
            ).message.snapshots
            #expect(made.count == 6)
            #expect(made.allSatisfy { $0.state == .complete })
            var stamps: [UInt64] = []
            for snapshot in made {
                let sector = try await caller.download(snapshot: snapshot.snapshotID, 0..<512)
                stamps.append(sector.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) })
                #expect(try await caller.describeSnapshot(snapshot.snapshotID).description == "together \(round)")
            }
            #expect(stamps == stamps.sorted(by: >), "\(stamps)")
            #expect(stamps[0] - stamps[5] <= 1, "\(stamps)")
        }
        writing.cancel()
        _ = await writing.result
        #expect(try await versions(caller, volumes) == Array(repeating: 14, count: 6))
    }

    @Test(
        "R6, S1, C5: all of them or none: a bad volume is named, and nothing is made; the same key gives the same answer"
    )
    func allOrNothing() async throws {
        let (caller, other) = (try await server.connect(freshAccount()), try await server.connect(freshAccount()))
        var volumes: [[UInt8]] = []
        for _ in 0..<3 { volumes.append(try await caller.createVolume().volumeID) }
        let foreign = try await other.createVolume().volumeID
        let local = try await caller.createLocal().volumeID
        let before = try await versions(caller, volumes)
        for (bad, reason) in [
            (foreign, Wire.Reason.invalidVolumeID), (UUID128.random(shard: ShardIndex(1)).bytes, .invalidVolumeID),
            (local, .wrongVolumeKind), (volumes[0], .invalidArgument),
        ] {
            let error = try await failure {
                try await caller.call(Wire.CreateSnapshotsRequest(volumeIDs: volumes + [bad]))
            }
            #expect(error.reason == reason, "\(error)")
            #expect(error.blockIndex == 3, "\(error)")
        }
        #expect(try await failure { try await caller.call(Wire.CreateSnapshotsRequest()) }.reason == .invalidArgument)
        #expect(try await versions(caller, volumes) == before)
        let request = Wire.CreateSnapshotsRequest(volumeIDs: volumes, idempotencyKey: Array("together".utf8))
        let made = try await caller.call(request).message
        #expect(made.snapshots.map(\.dataVersion) == before)
        #expect(try await caller.call(request).message == made)
        #expect(try await versions(caller, volumes) == before.map { $0 + 1 })
        var changed = request
        changed.volumeIDs.reverse()
        try await expectFailure(.idempotencyMismatch) { try await caller.call(changed) }
    }

    @Test("R6: kill -9 in the middle of it leaves all of them or none")
    func killed() async throws {
        let server = try await ServerProcess.started(shards: 4)
        let account = freshAccount()
        var caller = try await server.connect(account)
        var volumes: [[UInt8]] = []
        for _ in 0..<8 { volumes.append(try await caller.createVolume().volumeID) }
        for round in 0..<6 {
            let (making, all) = (caller, volumes)
            let key = Array("round \(round)".utf8)
            let work = Task {
                var count = 0
                while (try? await making.call(
                    Wire.CreateSnapshotsRequest(volumeIDs: all, idempotencyKey: key + [UInt8(count % 256)])
                )) != nil { count += 1 }
                return count
            }
            try await Task.sleep(for: .milliseconds(30 + round * 17))
            try await server.crash()
            let answered = await work.value
            try await server.start()
            caller = try await server.connect(account)
            var snapshots: [[UInt64]] = []
            for volume in volumes {
                var page = Wire.ListSnapshotsRequest(page: .init(limit: 1000), volumeID: volume)
                var listed: [Wire.SnapshotDescription] = []
                repeat {
                    let answer = try await caller.call(page).message
                    listed += answer.snapshots
                    page.page?.pageToken = answer.nextPageToken
                } while page.page?.pageToken.isEmpty == false
                snapshots.append(listed.map(\.dataVersion).sorted())
            }
            #expect(Set(snapshots.map(\.count)).count == 1, "\(snapshots.map(\.count))")
            #expect(snapshots[0].count > answered)
            // One that is said again after the crash is made once.
            let again = Wire.CreateSnapshotsRequest(volumeIDs: volumes, idempotencyKey: key + [UInt8(answered % 256)])
            let made = try await caller.call(again).message
            #expect(try await caller.call(again).message == made)
            for snapshot in made.snapshots {
                #expect(try await caller.describeSnapshot(snapshot.snapshotID).state == .complete)
            }
        }
    }
}
