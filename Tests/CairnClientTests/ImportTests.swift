import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Testing

@testable import CairnClient

struct ImportTests {
    static let chunk = 4096

    static func run(_ path: String, into server: FakeServer) async throws -> ImportSummary {
        try await run(try ImportSource.open(path), into: server)
    }

    static func run(_ source: ImportSource, into server: FakeServer) async throws -> ImportSummary {
        try await limited {
            try await Importer(client: Client(caller: server), source: source, volume: server.volume).run()
        }
    }

    @Test func anImageBecomesTheVolume() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 1)
        let size = 3 << 20
        let image =
            random.bytes(300 * Self.chunk) + [UInt8](repeating: 0, count: 100 * Self.chunk)
            + random.text(200 * Self.chunk)
        let path = try folder.sparse("image", size: UInt64(size), [8192: image])
        let server = FakeServer(size: UInt64(size))
        let summary = try await Self.run(path, into: server)
        #expect(server.content == (try contents(path)))
        #expect(summary.progress.done == UInt64(size))
        #expect(summary.progress.transferred == UInt64(500 * Self.chunk))
        #expect(summary.progress.payload < UInt64(450 * Self.chunk), "text compresses")
        #expect(summary.progress.zero == UInt64(size - 500 * Self.chunk))
        #expect(summary.sourceBytes == UInt64(size) && summary.padding == 0)
    }

    @Test func againSendsNothing() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 2)
        let path = try folder.sparse("image", size: 2 << 20, [0: random.bytes(1 << 20)])
        let server = FakeServer(size: 2 << 20)
        let first = try await Self.run(path, into: server)
        let uploads = server.state.withLock { $0.uploads }
        let second = try await Self.run(path, into: server)
        #expect(server.state.withLock { $0.uploads } == uploads)
        #expect(second.progress.inPlace == 1 << 20 && second.progress.wire == 0)
        #expect(first.seal == second.seal)
    }

    @Test func changesAreSentAndWhatIsGoneIsCleared() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 3)
        let server = FakeServer(size: 1 << 20)
        let old = random.bytes(1 << 20)
        _ = try await Self.run(try folder.sparse("old", size: 1 << 20, [0: old]), into: server)
        // A hole, written zeros, a change of one byte, and the rest as it was.
        var new = old
        new[700_000] ^= 1
        for index in 0..<(64 << 10) { new[(128 << 10) + index] = 0 }
        let path = try folder.sparse("new", size: 1 << 20, [64 << 10: Array(new[(64 << 10)...])])
        let summary = try await Self.run(path, into: server)
        #expect(server.content == (try contents(path)))
        #expect(summary.progress.transferred == UInt64(Self.chunk))
        #expect(server.state.withLock { $0.chunks[0] } == nil, "a hole of the file is a hole of the volume")
        #expect(server.state.withLock { $0.chunks[32] } == .zeros)
    }

    @Test func aChunkThatOccursOftenIsSentOnce() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 4)
        let pattern = (0..<5).map { _ in random.bytes(Self.chunk) }
        let image = (0..<1000).flatMap { pattern[$0 * $0 % 5] }
        let server = FakeServer(size: UInt64(image.count))
        let path = try folder.sparse("image", size: UInt64(image.count), [0: image])
        let summary = try await Self.run(path, into: server)
        #expect(server.content == image)
        #expect(server.state.withLock { $0.received.values.allSatisfy { $0 == 1 } })
        #expect(summary.progress.transferred == UInt64(3 * Self.chunk), "squares modulo 5 are 0, 1 and 4")
        #expect(summary.progress.deduplicated == UInt64(997 * Self.chunk))
    }

    @Test(arguments: [2, 40])
    func lostLeasesAreMadeUpFor(every: Int) async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 5)
        let image = random.text(40 * Self.chunk)
        let server = FakeServer(size: 1 << 20)
        let path = try folder.sparse("image", size: 1 << 20, [0: image])
        let lost = image.withUnsafeBytes { bytes in
            stride(from: 0, to: image.count, by: every * Self.chunk).map {
                fingerprint(UnsafeRawBufferPointer(rebasing: bytes[$0..<$0 + Self.chunk]))
            }
        }
        // The others are there: named, not sent.
        for chunk in 0..<40 where chunk % every != 0 {
            server.place(Array(image[chunk * Self.chunk..<(chunk + 1) * Self.chunk]), at: UInt64(100 + chunk))
        }
        server.state.withLock { $0.lostLeases = Set(lost) }
        let summary = try await Self.run(path, into: server)
        #expect(server.content == (try contents(path)))
        #expect(summary.progress.transferred + summary.progress.deduplicated == UInt64(40 * Self.chunk))
        if every == 40 { #expect(summary.progress.transferred == UInt64(Self.chunk), "only what was lost") }
    }

    @Test(arguments: [1, 511, 512, 4095, 4097, 1_000_001])
    func oddSizesArePadded(size: Int) async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: UInt64(size))
        let image = random.bytes(size)
        let path = try folder.sparse("image", size: UInt64(size), [0: image])
        let server = FakeServer(size: 1_000_448)
        server.place(random.bytes(Self.chunk), at: 100)
        let summary = try await Self.run(path, into: server)
        #expect(Array(server.content.prefix(size)) == image)
        #expect(server.content.dropFirst(size).allSatisfy { $0 == 0 }, "the rest becomes zeros")
        #expect(summary.sourceBytes == UInt64(size) && summary.padding == UInt64((512 - size % 512) % 512))
    }

    @Test func partlyWrittenChunksAreReplaced() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 6)
        let server = FakeServer(size: 1 << 20)
        server.place(random.bytes(Self.chunk), at: 3, patched: true)
        server.place(random.bytes(Self.chunk), at: 200, patched: true)
        let path = try folder.sparse("image", size: 1 << 20, [0: random.bytes(64 << 10)])
        _ = try await Self.run(path, into: server)
        #expect(server.content == (try contents(path)))
    }

    @Test("D5: what may not be listed is replaced as a whole, zeros and holes too")
    func unlisted() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 11)
        let server = FakeServer(size: 1 << 20)
        for chunk: UInt64 in 0..<256 { server.place(random.bytes(Self.chunk), at: chunk) }
        server.state.withLock { $0.refusesListing = true }
        let image = random.bytes(64 << 10) + [UInt8](repeating: 0, count: 64 << 10)
        let path = try folder.sparse("image", size: 1 << 20, [512 << 10: image])
        let summary = try await Self.run(path, into: server)
        #expect(server.content == (try contents(path)))
        #expect(summary.progress.transferred == 64 << 10 && summary.progress.inPlace == 0)
        #expect(server.state.withLock { $0.chunks[255] } == nil, "a hole of the file is a hole of the volume")
        #expect(server.state.withLock { $0.chunks[(600 << 10) / 4096] } == .zeros)
    }

    @Test("V5: while data can still show through, equal chunks, zeros and holes are sent too; afterwards they are not")
    func unsettled() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 14)
        let server = FakeServer(size: 1 << 20)
        let equal = random.bytes(64 << 10)
        for chunk in 0..<16 {
            server.place(Array(equal[chunk * Self.chunk..<(chunk + 1) * Self.chunk]), at: UInt64(chunk))
        }
        let image = equal + [UInt8](repeating: 0, count: 64 << 10) + random.bytes(64 << 10)
        let path = try folder.sparse("image", size: 1 << 20, [0: image])
        server.state.withLock { $0.isUnsettled = true }
        let summary = try await Self.run(path, into: server)
        #expect(server.content == (try contents(path)))
        #expect(server.state.withLock { $0.written } == Set(0..<256))
        #expect(summary.progress.transferred == 64 << 10 && summary.progress.deduplicated == 64 << 10)
        server.state.withLock { state in
            state.isUnsettled = false
            state.written = []
        }
        _ = try await Self.run(path, into: server)
        #expect(server.state.withLock { $0.written }.isEmpty)
    }

    @Test func tooLargeASourceIsRefusedBeforeAnythingIsSent() async throws {
        let folder = TemporaryFolder()
        let path = try folder.sparse("image", size: (1 << 20) + 1, [:])
        let server = FakeServer(size: 1 << 20)
        await #expect { try await Self.run(path, into: server) } throws: {
            ($0 as? ClientError)?.code == .invalidRequest
        }
        #expect(server.state.withLock { $0.uploads } == 0)
    }

    @Test("G1: a sparse source that is cut before it is read, in a hole or after it, is no shorter image")
    func shortened() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 12)
        let parts: [UInt64: [UInt8]] = [0: random.bytes(64 << 10), 3 << 20: random.bytes(64 << 10)]
        for size: UInt64 in [32 << 10, 1 << 20, (3 << 20) + 4096] {
            let path = try folder.sparse("image-\(size)", size: 4 << 20, parts)
            let source = try ImportSource.open(path)
            try OpenFile.open(path, OpenFile.readWrite).setSize(size)
            let error = await #expect(throws: ClientError.self) {
                try await Self.run(source, into: FakeServer(size: 4 << 20))
            }
            #expect(error?.code == .source && error?.text.contains("became shorter") == true)
        }
    }

    @Test("G1: so is one that is cut when its last hole was passed, and all that is left was read")
    func shortenedLate() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 13)
        let path = try folder.sparse("image", size: 4 << 20, [0: random.bytes(64 << 10)])
        let server = FakeServer(size: 4 << 20)
        let meddler = Meddler(server, before: .uploadBlock) {
            try? OpenFile.open(path, OpenFile.readWrite).setSize(64 << 10)
        }
        let source = try ImportSource.open(path)
        let error = await #expect(throws: ClientError.self) {
            try await limited {
                try await Importer(client: Client(caller: meddler), source: source, volume: server.volume).run()
            }
        }
        #expect(error?.code == .source && error?.text.contains("became shorter") == true)
    }

    @Test func anErrorEndsTheImport() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 7)
        let path = try folder.sparse("image", size: 4 << 20, [0: random.bytes(4 << 20)])
        let server = FakeServer(size: 4 << 20)
        server.state.withLock { $0.failures[5] = CallError(.quotaExceeded, "no more") }
        await #expect { try await Self.run(path, into: server) } throws: {
            ($0 as? ClientError)?.answer?.reason == .quotaExceeded
        }
    }

    @Test func cancellingStopsSoon() async throws {
        let folder = TemporaryFolder()
        let path = folder.file("pipe")
        #expect(mkfifo(path, 0o600) == 0)
        let server = FakeServer(size: 1 << 20)
        let source = try ImportSource.open(path)
        let task = Task {
            try await Importer(client: Client(caller: server), source: source, volume: server.volume).run()
        }
        try await Task.sleep(for: .milliseconds(50))
        task.cancel()
        await #expect { try await limited(.seconds(5)) { try await task.value } } throws: {
            ($0 as? ClientError)?.code == .cancelled
        }
    }

    @Test(arguments: [0, 1, 70_001, 1 << 20])
    func aPipeIsReadToItsEnd(size: Int) async throws {
        let folder = TemporaryFolder()
        let path = folder.file("pipe")
        #expect(mkfifo(path, 0o600) == 0)
        var random = SeededRandom(seed: 8)
        let image = random.bytes(size)
        // The reader first: a pipe without one kills its writer.
        let source = try ImportSource.open(path)
        Thread.detachNewThread {
            let out = open(path, O_WRONLY)
            image.withUnsafeBytes { bytes in
                var done = 0
                while done < bytes.count {
                    let count = write(out, bytes.baseAddress! + done, min(9_999, bytes.count - done))
                    if count <= 0 { break }
                    done += count
                }
            }
            close(out)
        }
        let server = FakeServer(size: 1 << 20)
        server.place(random.bytes(Self.chunk), at: 255)
        let summary = try await Self.run(source, into: server)
        #expect(summary.sourceBytes == UInt64(size))
        #expect(server.content == image + [UInt8](repeating: 0, count: (1 << 20) - size))
    }

    @Test func hugeHolesCostNothing() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 10)
        let path = try folder.sparse("image", size: 8 << 40, [5 << 40: random.bytes(8192)])
        let server = FakeServer(size: 8 << 40)
        server.place(random.bytes(Self.chunk), at: 1 << 30)
        let summary = try await Self.run(path, into: server)
        #expect(summary.progress.transferred == 8192 && summary.progress.done == 8 << 40)
        #expect(server.state.withLock { $0.chunks.count } == 2)
    }

    @Test func memoryIsBounded() async throws {
        let folder = TemporaryFolder()
        var random = SeededRandom(seed: 9)
        let server = FakeServer(size: 8 << 20)
        let path = try folder.sparse("image", size: 8 << 20, [0: random.bytes(8 << 20)])
        var options = ImportOptions()
        options.memory = 1 << 20
        let importer = Importer(
            client: Client(caller: server),
            source: try ImportSource.open(path),
            volume: server.volume,
            options: options
        )
        _ = try await limited { try await importer.run() }
        // Pieces are 64 chunks here, 256 KiB: four of them, and a page of the listing.
        #expect(server.state.withLock { $0.mostInFlight } <= 5)
        #expect(server.content == (try contents(path)))
    }
}
