import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnClient

/// Exports onto what exists (SPEC A4).
struct OntoTests {
    static func onto(_ server: FakeServer, _ path: String, snapshot: Bool = false) async throws -> ExportSummary {
        var options = ExportOptions()
        options.isOnto = true
        return try await ExportTests.run(server, to: .path(path), snapshot: snapshot, options: options)
    }

    @Test(
        "A4: only what differs is fetched; what is beyond the image goes, what is short is filled",
        arguments: [0, 8192, -8192]
    )
    func difference(longer: Int) async throws {
        let folder = TemporaryFolder()
        let server = ExportTests.filled(seed: 41)
        var random = SeededRandom(seed: 42)
        var old = server.content
        // Three chunks differ, and the hole at chunk 3 holds something.
        for chunk in [1, 100, 200, 3] {
            old.replaceSubrange(chunk * 4096 + 5..<chunk * 4096 + 20, with: random.bytes(15))
        }
        if longer > 0 { old += random.bytes(longer) } else { old.removeLast(-longer) }
        let path = folder.file("disk")
        try Data(old).write(to: URL(fileURLWithPath: path))
        let before = try OpenFile.open(path, OpenFile.readOnly).identity()
        let summary = try await Self.onto(server, path)
        #expect(try contents(path) == server.content)
        #expect(try OpenFile.open(path, OpenFile.readOnly).identity() == before, "the same file")
        #expect(summary.progress.transferred == 3 * 4096 + UInt64(longer < 0 ? 3072 : 0))
        #expect(!FileManager.default.fileExists(atPath: path + FileSink.partialSuffix))
        let again = try await Self.onto(server, path)
        #expect(again.progress.transferred == 0 && again.progress.wire == 0)
        #expect(again.seal == ExportTests.sealOf(server.content))
    }

    @Test("A4: a chunk of which the listing knows no token is named to the server, which need not send it")
    func unknownChunks() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 43)
        let server = FakeServer(size: 1 << 20)
        let (one, two, three) = (random.bytes(4096), random.bytes(4096), random.bytes(4096))
        server.place(one, at: 10, patched: true)
        server.place(two, at: 11, patched: true)
        server.place(three, at: 12, patched: true)
        var old = server.content
        old.replaceSubrange(11 * 4096..<12 * 4096, with: random.bytes(4096))
        let path = folder.file("disk")
        try Data(old).write(to: URL(fileURLWithPath: path))
        let summary = try await Self.onto(server, path)
        #expect(try contents(path) == server.content)
        #expect(summary.progress.transferred == 4096)
        #expect(server.state.withLock { $0.answeredKnown } == 2)
        #expect(server.state.withLock { $0.downloadedBytes } == 4096)
    }

    @Test("A4: a chunk that the target holds in another place only is fetched all the same")
    func otherPlace() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 44)
        let server = FakeServer(size: 1 << 20)
        let (one, two) = (random.bytes(4096), random.bytes(4096))
        server.place(one, at: 10, patched: true)
        server.place(two, at: 11, patched: true)
        var old = server.content
        old.replaceSubrange(10 * 4096..<11 * 4096, with: two)
        old.replaceSubrange(11 * 4096..<12 * 4096, with: one)
        let path = folder.file("disk")
        try Data(old).write(to: URL(fileURLWithPath: path))
        let summary = try await Self.onto(server, path)
        #expect(try contents(path) == server.content)
        #expect(summary.progress.transferred == 8192)
    }

    @Test("A4: the seal covers what was in place; a target that is not there, or is a pipe, is refused")
    func refusals() async throws {
        let folder = TemporaryFolder()
        let server = ExportTests.filled(seed: 45)
        server.state.withLock { $0.seal = Fingerprint(bytes: [UInt8](repeating: 1, count: 32)) }
        let path = folder.file("disk")
        try Data(server.content).write(to: URL(fileURLWithPath: path))
        let damaged = await #expect(throws: ClientError.self) { try await Self.onto(server, path, snapshot: true) }
        #expect(damaged?.code == .damaged)
        let absent = await #expect(throws: ClientError.self) { try await Self.onto(server, folder.file("none")) }
        #expect(absent?.code == .target && absent?.errno == OpenFile.absentError)
        mkfifo(folder.file("pipe"), 0o600)
        let pipe = await #expect(throws: ClientError.self) { try await Self.onto(server, folder.file("pipe")) }
        #expect(pipe?.code == .target)
        #expect(!FileManager.default.fileExists(atPath: folder.file("none")))
    }
}
