import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Synchronization
import Testing

/// SIGKILL in the middle of things: recovery, not fsync, is what it proves (the page cache survives).
@Suite(.serialized)
struct KillTests {
    /// What was acknowledged: sector → stamp.
    private final class Ledger: Sendable {
        private let entries = Mutex<[UInt64: (acknowledged: UInt64, attempted: UInt64)]>([:])

        func attempt(_ sector: UInt64, _ stamp: UInt64) {
            entries.withLock { $0[sector] = ($0[sector]?.acknowledged ?? 0, stamp) }
        }
        func acknowledge(_ sector: UInt64, _ stamp: UInt64) {
            entries.withLock { $0[sector]!.acknowledged = stamp }
        }
        var all: [UInt64: (acknowledged: UInt64, attempted: UInt64)] { entries.withLock { $0 } }
    }

    private static func sector(_ stamp: UInt64) -> [UInt8] {
        stamp == 0
            ? [UInt8](repeating: 0, count: 512)
            : [[UInt8]](repeating: Content.littleEndian(stamp), count: 64).flatMap { $0 }
    }

    /// Writes stamped sectors until the connection breaks.
    private static func stamp(_ caller: Caller, _ volume: [UInt8], _ ledger: Ledger, seed: UInt64, base: UInt64) async {
        var generator = SeededRandom(seed: seed)
        var stamp = base
        while !Task.isCancelled {
            stamp += 1
            let sectors = Set(
                (0..<Int.random(in: 1...4, using: &generator)).map { _ in
                    UInt64.random(in: 0..<256, using: &generator) + seed * 256
                }
            )
            for sector in sectors { ledger.attempt(sector, stamp) }
            let bytes = Self.sector(stamp)
            guard (try? await caller.upload(volume, sectors.map { .plain($0 * 512, bytes) })) != nil else { return }
            for sector in sectors { ledger.acknowledge(sector, stamp) }
        }
    }

    @Test(
        "kill -9 of the server mid-import, restart, import again: cmp is clean, and every acknowledged block is there"
    )
    func server() async throws {
        let server = try await ServerProcess.started(shards: 2)
        let account = freshAccount()
        let folder = server.folder
        let source = folder.file("image")
        let bytes = try Image.random(40 << 20)
        try Image.make(source, size: 48 << 20, [(0, bytes)])
        var caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 48 << 20).volumeID
        let stamped = try await caller.createVolume(size: 1 << 20, chunkSize: 4096).volumeID
        let name = "\(VolumeID(bytes: volume)!)"
        let ledger = Ledger()
        for round in 0..<3 {
            let (seed, base) = (UInt64(round % 4), UInt64(round) << 32)
            let writing = Task { [caller] in await Self.stamp(caller, stamped, ledger, seed: seed, base: base) }
            // Through a pipe that is not fed to its end: so the import is under way when the server is killed, however fast it is.
            let child = try server.startCairn(
                account,
                ["import", "-", "--volume", name, "--timeout", "3s"],
                input: .pipe
            )
            let fed = (round + 1) * 12 << 20
            child.write(Array(bytes[0..<fed]))
            let goal = round * 190 + 30
            try await eventually("the import is under way") {
                try await caller.blocks(.volumeID(volume), pages: 1000).count > goal
            }
            try await eventually("something is acknowledged") { ledger.all.values.contains { $0.acknowledged > base } }
            let inPlace = try await caller.blocks(.volumeID(volume), pages: 1000).count
            #expect(child.isRunning)
            try await server.crash()
            child.write(Array(bytes[fed...]))
            child.closeInput()
            await writing.value
            let outcome = try await child.wait(limit: .seconds(30))
            #expect(outcome.status == 69)
            try await server.start()
            caller = try await server.connect(account)
            #expect(try await caller.blocks(.volumeID(volume), pages: 1000).count >= inPlace)
            try await check(caller, stamped, ledger)
        }
        let rest = try Report(
            try await server.cairn(account, ["import", source, "--volume", name, "--snapshot", "--verify", "--json"])
        )
        #expect(try rest.text("seal_check") == "matched")
        #expect(try rest.number("transferred_bytes") < 40 << 20)
        let target = folder.file("back")
        _ = try Report(try await server.cairn(account, ["export", try rest.text("snapshot_id"), target, "--json"]))
        #expect(try await Image.same(source, target, in: folder))
    }

    /// Acknowledged ones are there; others are old or new, never torn.
    private func check(_ caller: Caller, _ volume: [UInt8], _ ledger: Ledger) async throws {
        let bytes = try await caller.download(volume, 0..<1 << 20)
        var acknowledged = 0
        for (sector, entry) in ledger.all {
            let found = Array(bytes[Int(sector) * 512..<Int(sector + 1) * 512])
            #expect(
                found == Self.sector(entry.acknowledged) || found == Self.sector(entry.attempted),
                "sector \(sector)"
            )
            if entry.acknowledged != 0 { acknowledged += 1 }
            // What is there now is what later rounds build on.
            if found == Self.sector(entry.attempted) { ledger.acknowledge(sector, entry.attempted) }
        }
        #expect(acknowledged > 0)
    }

    @Test("kill -9 of the client mid-import, import again: little is sent twice, cmp is clean")
    func client() async throws {
        let server = try await ServerProcess.started(shards: 2)
        let account = freshAccount()
        let folder = server.folder
        let bytes = try Image.random(48 << 20)
        let source = try folder.write(bytes, to: "image")
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 48 << 20).volumeID
        let name = "\(VolumeID(bytes: volume)!)"
        // Through a pipe that is not fed to its end: so it is under way when it is killed, however fast it is.
        let child = try server.startCairn(account, ["import", "-", "--volume", name], input: .pipe)
        child.write(Array(bytes[0..<32 << 20]))
        try await eventually("the import is under way") {
            try await caller.blocks(.volumeID(volume), pages: 1000).count > 200
        }
        child.send(SIGKILL)
        #expect(try await child.wait().status == 137)
        let inPlace = try await caller.blocks(.volumeID(volume), pages: 1000).count
        let rest = try Report(try await server.cairn(account, ["import", source, "--volume", name, "--json"]))
        #expect(try rest.number("transferred_bytes") <= (768 - inPlace) * 65536)
        #expect(try rest.number("in_place_bytes") >= inPlace * 65536)
        let target = folder.file("back")
        _ = try Report(try await server.cairn(account, ["export", name, target, "--json"]))
        #expect(try await Image.same(source, target, in: folder))
    }

    @Test(
        "kill -9 again and again under load, also while it recovers: the store opens each time, and nothing acknowledged is lost"
    )
    func again() async throws {
        let server = try await ServerProcess.started(shards: 2, settings: ["checkpoint-bytes=1MiB"])
        let account = freshAccount()
        let volume = try await server.connect(account).createVolume(size: 1 << 20, chunkSize: 4096).volumeID
        let ledger = Ledger()
        var generator = SeededRandom(seed: 120)
        for round in 0..<10 {
            let caller = try await server.connect(account)
            let writers = (0..<3).map { writer in
                Task {
                    await Self.stamp(
                        caller,
                        volume,
                        ledger,
                        seed: UInt64(writer),
                        base: UInt64(round * 4 + writer) << 32
                    )
                }
            }
            let snapshots = Task { while (try? await caller.createSnapshot(volume)) != nil {} }
            try await eventually("something is acknowledged") {
                ledger.all.values.contains { $0.acknowledged > UInt64(round * 4) << 32 }
            }
            try await Task.sleep(for: .milliseconds(Int.random(in: 0...250, using: &generator)))
            try await server.crash()
            for writer in writers { await writer.value }
            await snapshots.value
            if round % 3 == 2 {
                // Killed while it starts.
                let child = try ChildProcess(Program.cairnd, server.serveArguments, in: server.folder)
                try await Task.sleep(for: .milliseconds(Int.random(in: 5...80, using: &generator)))
                child.send(SIGKILL)
                _ = try await child.wait(limit: .seconds(5))
            }
            try await server.start()
            try await check(try await server.connect(account), volume, ledger)
        }
        let caller = try await server.connect(account)
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        let content = try await caller.download(snapshot: snapshot, 0..<1 << 20)
        #expect(try await caller.seal(snapshot) == Content.seal(content, chunkSize: 4096))
    }
}
