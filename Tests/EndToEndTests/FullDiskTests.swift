import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Synchronization
import Testing

/// A disk that is really full, of the level `errors`: by the store itself, and by others. Reads and deletes go on, space comes back without a restart, and
/// what was acknowledged is there, also after kill -9.
@Suite(.serialized, .enabled(if: geteuid() == 0, "skipped: only root can mount a small file system"))
struct FullDiskTests {
    private static let piece = 2 << 20
    /// Of each test on each disk.
    private static let rounds = 3
    /// MiB, where others fill the disk.
    private static let checkpointBytes = 4

    /// What was acknowledged: volumes, and the seeds of their pieces in order.
    private struct Held {
        var volume: [UInt8]
        var seeds: [UInt64] = []
    }

    private static let noise = Content.noise(1, piece)

    /// Another piece for each seed: no chunk of it is in another.
    private static func bytes(_ seed: UInt64) -> [UInt8] {
        var bytes = noise
        for chunk in stride(from: 0, to: piece, by: 65536) {
            bytes.replaceSubrange(chunk..<chunk + 8, with: Content.littleEndian(seed << 8 | UInt64(chunk >> 16)))
        }
        return bytes
    }

    private func start(on disk: SmallDisk, checkpointBytes: String) async throws -> (ServerProcess, account: String) {
        let server = try await ServerProcess(
            shards: 1,
            settings: ["lease-seconds=1", "checkpoint-bytes=\(checkpointBytes)"],
            store: disk.store
        )
        try await server.start()
        return (server, freshAccount())
    }

    /// The next piece.
    private func upload(_ caller: Caller, _ held: inout Held, _ seed: UInt64) async throws {
        try await caller.upload(held.volume, .plain(UInt64(held.seeds.count * Self.piece), Self.bytes(seed)))
        held.seeds.append(seed)
    }

    /// Writes pieces until STORE_FULL.
    private func fill(_ caller: Caller, _ held: inout Held, seed: UInt64) async throws {
        for number in 0..<1000 {
            do {
                try await upload(caller, &held, seed + UInt64(number))
            } catch let error as CallError {
                #expect(error.reason == .storeFull && error.status == .resourceExhausted && error.isRetryable)
                return
            }
        }
        Issue.record("the disk is never full")
    }

    private func volume(_ caller: Caller) async throws -> [UInt8] {
        var made: [UInt8] = []
        try await eventually("there is room for a volume", within: .seconds(60)) {
            do {
                made = try await caller.createVolume(size: 4 << 30).volumeID
                return true
            } catch let error as CallError where error.reason == .storeFull { return false }
        }
        return made
    }

    private func check(_ caller: Caller, _ held: Held, _ when: String) async throws {
        for (number, seed) in held.seeds.enumerated() {
            let start = UInt64(number * Self.piece)
            let found = try await caller.download(held.volume, start..<start + UInt64(Self.piece))
            #expect(found == Self.bytes(seed), "\(when): piece \(number)")
        }
    }

    /// Reads go on while others have all of the disk; not where the shard has failed at something and recovers, which says when to come
    /// again.
    private func checkFull(_ caller: Caller, _ held: Held, _ when: String) async throws {
        try await eventually("\(when): all is read", within: .seconds(60)) {
            do {
                try await check(caller, held, when)
                return true
            } catch let error as CallError where error.isRetryable && error.reason == .unavailable { return false }
        }
    }

    private func metric(_ server: ServerProcess, _ name: String) async throws -> Int {
        let admin = try await server.connect(
            try server.issue("admin-\(UInt32.random(in: .min ... .max))", [.uri("cairn://admin")])
        )
        let text = try await admin.call(Wire.GetMetricsRequest()).message.text
        let lines = text.split(separator: "\n").filter { $0.hasPrefix(name + "{") }
        return lines.reduce(0) { $0 + (Int($1.split(separator: " ").last ?? "") ?? 0) }
    }

    @Test(
        "S8: a disk that the store fills: STORE_FULL, all is read, a kill and a start, deletes, and as much room again, round after round",
        arguments: SmallDisk.Kind.allCases
    )
    func filledByItself(kind: SmallDisk.Kind) async throws {
        let disk = try await SmallDisk(kind, mebibytes: 448)
        let (server, account) = try await start(on: disk, checkpointBytes: "8MiB")
        var caller = try await server.connect(account)
        var rooms: [Int] = []
        for round in 0..<Self.rounds {
            var held = Held(volume: try await volume(caller))
            // What was deleted is freed in the background: full is what stays full.
            try await eventually("round \(round) has as much room as the first", within: .seconds(60)) {
                try await fill(caller, &held, seed: UInt64(round) << 32 | UInt64(held.seeds.count))
                return held.seeds.count >= (rooms.first ?? 1) * 9 / 10
            }
            rooms.append(held.seeds.count)
            #expect(disk.available < 128 << 20, "round \(round): \(disk.available >> 20) MiB are left")
            try await check(caller, held, "round \(round), full")
            if round > 0 {
                try await server.crash()
                try await server.start()
                caller = try await server.connect(account)
                try await check(caller, held, "round \(round), started on a full disk")
            }
            #expect(try await metric(server, "cairn_shard_fenced") == 0)
            #expect(try await metric(server, "cairn_shard_recoveries_total") == 0)
            try await caller.deleteVolume(held.volume)
        }
        #expect(rooms[0] * Self.piece > 128 << 20, "\(rooms)")
        _ = try await server.stop()
        Torture.report("errors", ["full_disks": rooms.count])
    }

    @Test(
        "U8, S8: a disk that others fill to the last byte: what the server cannot do it refuses, it recovers when there is room, without a restart, and nothing acknowledged is lost",
        arguments: SmallDisk.Kind.allCases
    )
    func filledByOthers(kind: SmallDisk.Kind) async throws {
        let disk = try await SmallDisk(kind, mebibytes: 448)
        let (server, account) = try await start(on: disk, checkpointBytes: "\(Self.checkpointBytes)MiB")
        var caller = try await server.connect(account)
        var held = Held(volume: try await volume(caller))
        for round in 0..<Self.rounds {
            // Also what the index has kept for itself: then it cannot be flushed at all, while the log has its segments.
            if round == 1 { unlink(disk.store + "/shard-000/index.reserve") }
            try disk.fill()
            // Until something does not work: the log has its segments, the index has nothing.
            var refused: CallError?
            for number in 0..<200 where refused == nil {
                let seed = UInt64(round) << 32 | UInt64(number)
                do {
                    try await upload(caller, &held, seed)
                } catch let error as CallError { refused = error }
            }
            let error = try #require(refused)
            // One group may go beyond it.
            let tail = try await metric(server, "cairn_shard_log_tail_bytes")
            #expect(tail < (2 * Self.checkpointBytes + 16) << 20, "a start would have \(tail) bytes to read")
            #expect(error.isRetryable && (error.reason == .storeFull || error.reason == .unavailable), "\(error)")
            try await checkFull(caller, held, "round \(round), full")
            if round == 2 { try await server.crash() }
            disk.unfill()
            if round == 2 {
                try await server.start()
                caller = try await server.connect(account)
            }
            try await eventually("there is room in round \(round)", within: .seconds(90)) {
                let seed = UInt64(round) << 32 | 1 << 20
                do {
                    try await upload(caller, &held, seed)
                    return true
                } catch let error as CallError where error.isRetryable { return false }
            }
            try await check(caller, held, "round \(round)")
        }
        _ = try await server.stop()
        Torture.report("errors", ["disks_full_by_others": Self.rounds])
    }
}
