import CairnTesting
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// RocksDB's text log shared the index's disk: where writing it failed, RocksDB's next message ended the process by an assertion,
/// and with it every shard.
@Suite struct IndexLogTests {
    @Test("RocksDB keeps no text file, and what it has to say of errors goes to the store's log")
    func errors() throws {
        let folder = Torture.scratchFolder("index-log")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let lines = LogLines()
        var settings = IndexDatabase.Options()
        settings.log = { line in lines.add(line) }
        let database = try IndexDatabase(path: folder, settings)
        try put(database)
        try database.flush()
        let files = try FileManager.default.contentsOfDirectory(atPath: folder)
        #expect(files.contains("CURRENT") && !files.contains { $0.hasPrefix("LOG") && $0 != "LOCK" }, "\(files)")
        #expect(lines.all.isEmpty, "\(lines.all)")

        // No table can be made in a folder that is gone.
        try FileManager.default.removeItem(atPath: folder)
        try put(database)
        var failure: StoreError?
        do { try database.flush() } catch { failure = error }
        #expect(failure?.code == .io)
        // RocksDB's own threads say it, when they come to it.
        for _ in 0..<6000 where !lines.all.contains(where: { $0.contains("No such file") }) { usleep(10_000) }
        #expect(lines.all.contains { $0.contains("No such file") }, "\(lines.all)")
        #expect(database.hasFailed)
        #expect(database.close(within: .seconds(60)))
    }

    private func put(_ database: IndexDatabase) throws {
        let overlay = IndexOverlay(database)
        overlay.put([1], [2])
        try database.apply(overlay)
    }
}

private final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
}
