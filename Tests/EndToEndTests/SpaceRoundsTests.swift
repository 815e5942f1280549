import CairnClient
import CairnCore
import CairnWire
import Foundation
import Synchronization
import Testing

/// SPEC S8 and R2: space comes back, round after round, while others work; and what is told of it is exact each time.
///
/// `CAIRN_SPACE_MIB` sets the store's size (384; more for a longer run), `CAIRN_SPACE_ROUNDS` the rounds (10).
@Suite(.serialized)
struct SpaceRoundsTests {
    private static func setting(_ name: String, _ otherwise: Int) -> Int {
        ProcessInfo.processInfo.environment[name].flatMap(Int.init) ?? otherwise
    }
    private static let capacity = setting("CAIRN_SPACE_MIB", 384) << 20
    private static let rounds = setting("CAIRN_SPACE_ROUNDS", 10)
    private static let piece = 4 << 20
    /// As the server's stores are made.
    private static let segment = 32 << 20

    /// Of the rounds.
    private final class End: Sendable { let isReached = Mutex(false) }

    /// Writes pieces until the store says that it is full; gives how many there was room for.
    private func room(_ caller: Caller, _ volume: [UInt8]) async throws -> Int {
        for index in 0..<Self.capacity / Self.piece {
            do {
                try await caller.upload(volume, .plain(UInt64(index * Self.piece), try Image.random(Self.piece)))
            } catch let error as CallError where error.reason == .storeFull { return index }
        }
        return Self.capacity / Self.piece
    }

    /// Writes pieces; where the store is full they come again: what was deleted is freed in the background.
    private func fill(_ caller: Caller, _ volume: [UInt8], _ pieces: Int) async throws {
        for index in 0..<pieces {
            let bytes = try Image.random(Self.piece)
            try await eventually("there is room for piece \(index) of \(pieces)", within: .seconds(60)) {
                do {
                    try await caller.upload(volume, .plain(UInt64(index * Self.piece), bytes))
                    return true
                } catch let error as CallError where error.reason == .storeFull { return false }
            }
        }
    }

    /// A new volume; where the store is full, as soon as there is room for it.
    private func volume(_ caller: Caller) async throws -> [UInt8] {
        var made: [UInt8] = []
        try await eventually("there is room for a volume", within: .seconds(60)) {
            do {
                made = try await caller.createVolume(size: UInt64(Self.capacity)).volumeID
                return true
            } catch let error as CallError where error.reason == .storeFull { return false }
        }
        return made
    }

    /// What the account holds, as it is told in both places.
    private func expectUsage(
        _ caller: Caller,
        _ bytes: Int,
        _ when: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let total = try await caller.call(Wire.GetUsageRequest()).message.total
        let described = try await caller.call(Wire.DescribeAccountRequest()).message.usage
        // Of bytes that no codec makes smaller: each is stored as it is.
        #expect(total?.uniqueBytes ?? 0 == UInt64(bytes), "\(when)", sourceLocation: sourceLocation)
        #expect(total?.storedBytes ?? 0 == UInt64(bytes), "\(when)", sourceLocation: sourceLocation)
        #expect(described?.uniqueBytes == total?.uniqueBytes, "\(when)", sourceLocation: sourceLocation)
        #expect(described?.storedBytes == total?.storedBytes, "\(when)", sourceLocation: sourceLocation)
    }

    @Test(
        "S8, R2: filled to 90 %, deleted, filled again, ten rounds, while imports and exports run; usage is exact each time"
    )
    func rounds() async throws {
        let server = try await ServerProcess.started(
            shards: 1,
            settings: ["capacity=\(Self.capacity >> 20)MiB", "lease-seconds=1"]
        )
        let end = End()
        let worker = freshAccount("worker")
        async let work = Self.work(server, worker, until: end)
        let caller = try await server.connect(freshAccount())
        let probe = try await caller.createVolume(size: UInt64(Self.capacity)).volumeID
        let room = try await room(caller, probe)
        // What a store keeps for itself: the reserve, the open segments, and the worker's little.
        #expect(room * Self.piece >= Self.capacity - 6 * Self.segment)
        let pieces = room * 9 / 10
        try await caller.deleteVolume(probe)
        let held = pieces * Self.piece
        for round in 0..<Self.rounds {
            let volume = try await self.volume(caller)
            try await fill(caller, volume, pieces)
            try await eventually("nothing but round \(round)'s is held", within: .seconds(60)) {
                try await caller.call(Wire.GetUsageRequest()).message.total?.uniqueBytes == UInt64(held)
            }
            try await expectUsage(caller, held, "round \(round), filled")
            let snapshot = try await caller.createSnapshot(volume).snapshotID
            let told = try await caller.call(
                Wire.GetUsageRequest(
                    targets: [.init(target: .volumeID(volume)), .init(target: .snapshotID(snapshot))],
                    freedByDeletion: true
                )
            ).message
            #expect(told.freedBytes == UInt64(held), "round \(round)")
            try await caller.deleteVolume(volume)
            try await expectUsage(caller, held, "round \(round), a snapshot holds it")
            try await caller.deleteSnapshot(snapshot)
            try await eventually("nothing is held after round \(round)", within: .seconds(60)) {
                try await caller.call(Wire.GetUsageRequest()).message.total?.uniqueBytes == 0
            }
        }
        try await expectUsage(caller, 0, "after all rounds")
        end.isReached.withLock { $0 = true }
        let (imports, exports) = try await work
        #expect(imports > 0 && exports > 0)
        // What its imports left behind that the full store ended.
        let client = try server.client(worker)
        for volume in try await client.volumes(state: .available).all() { try await client.deleteVolume(volume.id) }
        try await eventually("nothing of the worker's is held") {
            let total = try await client.usage().total
            return total.unique == 0 && total.stored == 0
        }
        #expect(try await client.describeAccount().usage.stored == 0)
        #expect(try server.logBytes() <= Self.capacity)
    }

    /// Imports and exports of an account of its own, one after the other, each compared; gives how many were done.
    private static func work(_ server: ServerProcess, _ account: String, until end: End) async throws -> (Int, Int) {
        let folder = server.folder
        let client = try server.client(account)
        var (imports, exports) = (0, 0)
        while !end.isReached.withLock({ $0 }) {
            // What it deletes lies in segments beside what stays, and is not compacted: it must be little.
            try await Task.sleep(for: .milliseconds(250))
            let bytes = try Image.random(1 << 20)
            let (source, target) = (folder.fresh("source"), folder.fresh("target"))
            try Data(bytes).write(to: URL(fileURLWithPath: source))
            defer { for path in [source, target] { try? FileManager.default.removeItem(atPath: path) } }
            let imported = try await server.cairn(account, ["import", source, "--new", "--snapshot", "--json"])
            // A full store is told as such, and the work goes on when there is room again.
            guard imported.status == 0 else {
                #expect(imported.output.contains("STORE_FULL") || imported.errors.contains("STORE_FULL"), "\(imported)")
                continue
            }
            imports += 1
            let report = try Report(imported)
            let made = (
                VolumeID(text: try report.text("volume_id"))!, SnapshotID(text: try report.text("snapshot_id"))!
            )
            let usage = try await client.usage(of: [.volume(made.0), .snapshot(made.1)], freed: true)
            #expect(usage.total.unique == 1 << 20 && usage.freedBytes == 1 << 20, "\(usage)")
            let exported = try await server.cairn(
                account,
                ["export", try report.text("snapshot_id"), target, "--verify"]
            )
            #expect(exported.status == 0, "\(exported.errors)")
            let isSame = try await Image.same(source, target, in: folder)
            #expect(isSame)
            exports += 1
            for (kind, id) in [("volume", "volume_id"), ("snapshot", "snapshot_id")] {
                let deleted = try await server.cairn(account, [kind, "delete", try report.text(id)])
                #expect(deleted.status == 0, "\(deleted.errors)")
            }
        }
        return (imports, exports)
    }
}
