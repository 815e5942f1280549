import CairnCore
import CairnCrypto
import CairnTesting
import Foundation
import Synchronization
import Testing

@testable import CairnClient

struct ExportTests {
    static let chunk = 4096

    /// A server with chunks of data, zeros and holes; the last chunk is a short one.
    static func filled(seed: UInt64 = 1) -> FakeServer {
        var random = SeededRandom(seed: seed)
        let server = FakeServer(size: (2 << 20) - 1024)
        for chunk in UInt64(0)..<400 where chunk % 7 != 3 {
            server.place(chunk % 2 == 0 ? random.text(Self.chunk) : random.bytes(Self.chunk), at: chunk)
        }
        server.state.withLock { $0.chunks[450] = .zeros }
        server.place(random.bytes(Self.chunk - 1024), at: 511)
        return server
    }

    static func run(
        _ server: FakeServer,
        to target: ExportTarget,
        snapshot: Bool = false,
        options: ExportOptions = ExportOptions()
    ) async throws -> ExportSummary {
        let origin = snapshot ? BlockTarget.snapshot(server.snapshot) : .volume(server.volume)
        let exporter = Exporter(client: Client(caller: server), from: origin, to: target, options: options)
        return try await limited { try await exporter.run() }
    }

    static func sealOf(_ bytes: [UInt8]) -> Fingerprint {
        var builder = SealBuilder(size: UInt64(bytes.count), chunkSize: .minimum)
        bytes.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: bytes.count, by: chunk) {
                let end = min(start + chunk, bytes.count)
                builder.add(
                    SHA256.hash(UnsafeRawBufferPointer(rebasing: bytes[start..<end]), padding: chunk - (end - start))
                )
            }
        }
        return builder.finish()
    }

    @Test func aFileGetsTheContentAndItsHoles() async throws {
        let folder = TemporaryFolder()
        let server = Self.filled()
        let summary = try await Self.run(server, to: .path(folder.file("out")))
        #expect(try contents(folder.file("out")) == server.content)
        #expect(summary.progress.done == UInt64(server.content.count))
        #expect(summary.seal == Self.sealOf(server.content))
        #expect(summary.sealCheck == .none)
        let file = try OpenFile.open(folder.file("out"), OpenFile.readOnly)
        let afterData = try file.data(from: 410 * 4096, size: 511 * 4096)
        #expect(afterData == nil, "zeros and holes take no space")
        #expect(!FileManager.default.fileExists(atPath: folder.file("out.cairn-partial")))
    }

    @Test func theSealIsCompared() async throws {
        let folder = TemporaryFolder()
        let server = Self.filled()
        let seal = Self.sealOf(server.content)
        server.state.withLock { $0.seal = seal }
        let summary = try await Self.run(server, to: .path(folder.file("out")), snapshot: true)
        #expect(summary.sealCheck == .matched)
        server.state.withLock { $0.seal = SHA256.hash([1]) }
        await #expect { try await Self.run(server, to: .path(folder.file("other")), snapshot: true) } throws: {
            ($0 as? ClientError)?.code == .damaged
        }
        #expect(!FileManager.default.fileExists(atPath: folder.file("other")), "nothing wrong gets the final name")
    }

    @Test func damagedDataIsNeverWritten() async throws {
        let folder = TemporaryFolder()
        let server = Self.filled()
        server.state.withLock { $0.corrupts = true }
        await #expect { try await Self.run(server, to: .path(folder.file("out"))) } throws: {
            ($0 as? ClientError)?.code == .damaged
        }
        #expect(!FileManager.default.fileExists(atPath: folder.file("out")))
    }

    @Test func anInterruptedExportGoesOn() async throws {
        let folder = TemporaryFolder()
        let server = Self.filled()
        // Half of it is there, with one chunk that is wrong, and one where zeros belong.
        var half = Array(server.content.prefix(1 << 20))
        half[5 * Self.chunk] ^= 1
        half[3 * Self.chunk] = 9
        _ = try folder.sparse("out.cairn-partial", size: 1 << 20, [0: half])
        let summary = try await Self.run(server, to: .path(folder.file("out")))
        #expect(try contents(folder.file("out")) == server.content)
        #expect(summary.progress.inPlace > 200 * 4096 && summary.progress.transferred < 300 * 4096)
    }

    @Test func aPartialFileHasOneWriter() async throws {
        let folder = TemporaryFolder()
        let held = try FileSink(folder.file("out"), size: 4096, replaces: false)
        let server = Self.filled()
        await #expect { try await Self.run(server, to: .path(folder.file("out"))) } throws: {
            ($0 as? ClientError)?.errno == EBUSY
        }
        withExtendedLifetime(held) {}
    }

    @Test func aFileIsOnlyReplacedOnDemand() async throws {
        let folder = TemporaryFolder()
        let path = try folder.sparse("out", size: 3, [0: [1, 2, 3]])
        let server = Self.filled()
        await #expect { try await Self.run(server, to: .path(path)) } throws: { ($0 as? ClientError)?.errno == EEXIST }
        #expect(try contents(path) == [1, 2, 3])
        var options = ExportOptions()
        options.replaces = true
        _ = try await Self.run(server, to: .path(path), options: options)
        #expect(try contents(path) == server.content)
    }

    @Test func aLinkStaysALink() async throws {
        let folder = TemporaryFolder()
        let path = try folder.sparse("real", size: 3, [0: [1, 2, 3]])
        #expect(symlink(path, folder.file("link")) == 0)
        let server = Self.filled()
        var options = ExportOptions()
        options.replaces = true
        _ = try await Self.run(server, to: .path(folder.file("link")), options: options)
        #expect(try contents(path) == server.content)
        #expect((try? FileManager.default.destinationOfSymbolicLink(atPath: folder.file("link"))) == path)
    }

    @Test func aPipeGetsEverythingInOrder() async throws {
        let folder = TemporaryFolder()
        let path = folder.file("pipe")
        #expect(mkfifo(path, 0o600) == 0)
        let server = Self.filled()
        let received = Mutex<[UInt8]?>(nil)
        Thread.detachNewThread {
            var bytes: [UInt8] = []
            let file = open(path, O_RDONLY)
            var buffer = [UInt8](repeating: 0, count: 10_000)
            while true {
                let count = read(file, &buffer, buffer.count)
                if count <= 0 { break }
                bytes += buffer[0..<count]
            }
            close(file)
            received.withLock { $0 = bytes }
        }
        _ = try await Self.run(server, to: .path(path))
        try await limited { while received.withLock({ $0 == nil }) { try await Task.sleep(for: .milliseconds(5)) } }
        #expect(received.withLock { $0 } == server.content)
    }

    @Test func aPipeThatIsClosedEndsTheExport() async throws {
        signal(SIGPIPE, SIG_IGN)
        let folder = TemporaryFolder()
        let path = folder.file("pipe")
        #expect(mkfifo(path, 0o600) == 0)
        Thread.detachNewThread {
            let file = open(path, O_RDONLY)
            var byte: UInt8 = 0
            _ = read(file, &byte, 1)
            close(file)
        }
        await #expect { try await Self.run(Self.filled(), to: .path(path)) } throws: {
            ($0 as? ClientError)?.errno == EPIPE
        }
    }

    @Test func aPipeWithoutAReaderCanBeGivenUp() async throws {
        let folder = TemporaryFolder()
        let path = folder.file("pipe")
        #expect(mkfifo(path, 0o600) == 0)
        let server = Self.filled()
        let task = Task {
            try await Exporter(client: Client(caller: server), from: .volume(server.volume), to: .path(path)).run()
        }
        try await Task.sleep(for: .milliseconds(50))
        task.cancel()
        await #expect { try await limited(.seconds(10)) { try await task.value } } throws: {
            ($0 as? ClientError)?.code == .cancelled
        }
    }

    @Test func cancellingLeavesThePartialFile() async throws {
        let folder = TemporaryFolder()
        let server = Self.filled()
        let exporter = Exporter(
            client: Client(caller: server),
            from: .volume(server.volume),
            to: .path(folder.file("out"))
        )
        let task = Task { try await exporter.run() }
        while exporter.progress.done == 0, exporter.progress.total == nil { await Task.yield() }
        task.cancel()
        _ = try? await limited { try await task.value }
        let isDone = FileManager.default.fileExists(atPath: folder.file("out"))
        #expect(isDone != FileManager.default.fileExists(atPath: folder.file("out.cairn-partial")))
        if !isDone { _ = try await Self.run(server, to: .path(folder.file("out"))) }
        #expect(try contents(folder.file("out")) == server.content)
    }

    @Test func anEmptyVolumeIsAHole() async throws {
        let folder = TemporaryFolder()
        let server = FakeServer(size: 8 << 40)
        let summary = try await Self.run(server, to: .path(folder.file("out")))
        #expect(summary.progress.zero == 8 << 40 && summary.progress.transferred == 0)
        #expect(try OpenFile.open(folder.file("out"), OpenFile.readOnly).size() == 8 << 40)
    }

    @Test func anImportAndAnExportAreOpposites() async throws {
        let folder = TemporaryFolder()
        for seed in UInt64(0)..<8 {
            var random = SeededRandom(seed: seed)
            var parts: [UInt64: [UInt8]] = [:]
            for _ in 0..<random.next() % 40 {
                let offset = random.next() % 1_000_000
                parts[offset] = random.bytes(Int(random.next() % 20_000))
            }
            let path = try folder.sparse("in-\(seed)", size: 1_024_000, parts)
            let server = FakeServer(size: 1_024_000)
            let source = try ImportSource.open(path)
            let sent = try await limited {
                try await Importer(client: Client(caller: server), source: source, volume: server.volume).run()
            }
            let got = try await Self.run(server, to: .path(folder.file("out-\(seed)")))
            #expect(try contents(folder.file("out-\(seed)")) == (try contents(path)), "seed \(seed)")
            #expect(sent.seal == got.seal)
        }
    }
}
