import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Testing

/// `cairnd repair` as operators run it: on the store of a server that was killed.
@Suite(.serialized)
struct RepairCommandTests {
    private struct Report: Decodable {
        let shard: Int
        let outcome: String
        let replayedCommits: Int
        let actions: [String]
    }

    private func repair(_ server: ServerProcess, _ more: String...) async throws -> (status: Int32, reports: [Report]) {
        let arguments = ["repair", "--data", server.store, "--json"] + more
        let outcome = try await run(Program.cairnd, arguments, in: server.folder)
        let reports = outcome.output.split(separator: "\n").compactMap {
            try? JSONDecoder().decode(Report.self, from: Data($0.utf8))
        }
        return (outcome.status, reports)
    }

    @Test(
        "a lost index: cairnd says so and does not start; cairnd repair, killed at random and run again, makes it anew; all is there"
    )
    func lost() async throws {
        let server = try await ServerProcess.started(shards: 1, settings: ["index-backup-bytes=8MiB"])
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 64 << 20).volumeID
        var pieces: [[UInt8]] = []
        for piece in 0..<8 {
            pieces.append(try Image.random(4 << 20))
            try await caller.upload(volume, .plain(UInt64(piece) << 22, pieces[piece]))
        }
        let copies = server.store + "/shard-000/checkpoints"
        try await eventually("the index was copied") {
            (try? FileManager.default.contentsOfDirectory(atPath: copies).contains { UInt32($0) != nil }) ?? false
        }
        let running = try await repair(server)
        #expect(running.status == 74 && running.reports.isEmpty)
        try await server.crash()
        let index = server.store + "/shard-000/index"
        for round in 0..<4 {
            if round.isMultiple(of: 2) {
                try FileManager.default.removeItem(atPath: index)
            } else {
                try Data(count: 10).write(to: URL(fileURLWithPath: index + "/CURRENT"))
            }
            let refused = try await run(Program.cairnd, server.serveArguments, in: server.folder)
            #expect(refused.status == 74 && refused.errors.contains("cairnd repair"), "\(refused)")
            let dry = try await repair(server, "--dry-run")
            #expect(dry.status == 1 && dry.reports.first?.outcome == "repairable", "\(dry)")
            for _ in 0..<3 {
                let child = try ChildProcess(Program.cairnd, ["repair", "--data", server.store], in: server.folder)
                try await Task.sleep(for: .milliseconds(Int.random(in: 0..<150)))
                child.send(SIGKILL)
                _ = try await child.wait(limit: .seconds(10))
            }
            let done = try await repair(server, "--shard", "0")
            #expect(done.status == 0, "\(done)")
            #expect(try await repair(server).reports.first?.outcome == "healthy")
        }
        try await server.start()
        let again = try await server.connect(account)
        for piece in 0..<8 {
            let answer = try await again.download(volume, UInt64(piece) << 22..<UInt64(piece + 1) << 22)
            #expect(answer == pieces[piece], "piece \(piece)")
        }
    }
}
