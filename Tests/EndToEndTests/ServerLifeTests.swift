import CairnCore
import CairnRPC
import CairnWire
import Foundation
import Testing

/// How a server starts, ends, and refuses to start.
@Suite(.serialized)
struct ServerLifeTests {
    @Test(
        "SIGTERM: calls in flight are answered, new ones are not taken, the process ends with code 0, and nothing is lost"
    )
    func drain() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 32 << 20).volumeID
        let contents = (0..<16).map { Content.noise(UInt64(130 + $0), 2 << 20) }
        let (answers, answer) = AsyncStream<Void>.makeStream()
        let calls = contents.enumerated().map { index, bytes in
            Task {
                defer { answer.yield() }
                _ = try await caller.upload(volume, .plain(UInt64(index) * 2 << 20, bytes))
            }
        }
        // With the first answer the others are somewhere on their way.
        for await _ in answers { break }
        server.child.send(SIGTERM)
        var answered: Set<Int> = []
        for (index, call) in calls.enumerated() {
            switch await call.result {
            case .success: answered.insert(index)
            case .failure(let error as RPCError): #expect(error.delivery == .notSent, "\(error)")
            case .failure(let error as CallError): #expect(error.reason == .unavailable, "\(error)")
            case .failure(let error): Issue.record(error)
            }
        }
        #expect(!answered.isEmpty)
        #expect(try await server.child.wait(limit: .seconds(20)).status == 0)
        try await server.start()
        let again = try await server.connect(account)
        for index in answered {
            let start = UInt64(index) * 2 << 20
            #expect(try await again.download(volume, start..<start + 2 << 20) == contents[index])
        }
        #expect(try await server.stop().status == 0)
    }

    @Test("SIGTERM without clients, and with an idle one, ends at once")
    func idleDrain() async throws {
        let server = try await ServerProcess.started()
        let begin = ContinuousClock.now
        #expect(try await server.stop().status == 0)
        try await server.start()
        let caller = try await server.connect(freshAccount())
        let stream = try TLSStream(server.endpoint, try server.credentials("idle"), in: server.folder)
        try await stream.greet()
        #expect(try await server.stop().status == 0)
        #expect(ContinuousClock.now - begin < .seconds(15))
        #expect(!caller.connection.isOpen)
    }

    @Test("SIGTERM at any moment of the start ends the server")
    func earlySignal() async throws {
        let server = try await ServerProcess.started(shards: 1)
        #expect(try await server.stop().status == 0)
        for delay in 0..<30 as Range<UInt64> {
            let child = try ChildProcess(Program.cairnd, server.serveArguments, in: server.folder)
            try await Task.sleep(for: .milliseconds(delay * 7))
            child.send(SIGTERM)
            // Before the program has begun, the signal's own effect ends it; an outcome of any kind is the end.
            _ = try await child.wait(limit: .seconds(20))
        }
        // At once after the line that says it serves: what comes then was lost, now and then, by a handler installed too late.
        for _ in 0..<10 {
            let child = try ChildProcess(Program.cairnd, server.serveArguments, in: server.folder)
            while !child.output.contains("cairnd ready"), child.isRunning { await Task.yield() }
            child.send(SIGTERM)
            #expect(try await child.wait(limit: .seconds(20)).status == 0)
        }
    }

    @Test("A store that another server has open is refused, in clear words; the first goes on")
    func twoServers() async throws {
        let server = try await ServerProcess.started()
        let second = try await run(Program.cairnd, server.serveArguments, limit: .seconds(20), in: server.folder)
        #expect(second.status == 74)
        #expect(second.errors.contains("another server"), "\(second.errors)")
        #expect(!second.output.contains("ready"))
        _ = try await server.connect(freshAccount()).createVolume()
    }

    @Test("A store of a newer format version, a damaged one, and none at all are refused, in clear words")
    func refusedStores() async throws {
        let server = try await ServerProcess(shards: 1)
        let header = server.store + "/cairn.store"
        let original = try Image.bytes(header)
        for (bytes, words) in [
            (Array(original[0..<8]) + Content.littleEndian(UInt32(2)) + original[12...], "format version 2"),
            (Array(original.dropLast()) + [original.last! ^ 1], "damaged"), (Array("what is this?".utf8), "no store"),
        ] {
            try Data(bytes).write(to: URL(fileURLWithPath: header))
            let outcome = try await run(Program.cairnd, server.serveArguments, limit: .seconds(20), in: server.folder)
            #expect(outcome.status == 74)
            #expect(outcome.errors.contains(words), "\(outcome.errors)")
            #expect(try Image.bytes(header) == bytes)
        }
        try Data(original).write(to: URL(fileURLWithPath: header))
        try await server.start()
        #expect(try await server.stop().status == 0)
        let none = try await run(
            Program.cairnd,
            ["serve", "--data", server.folder.file("nowhere")] + server.serveArguments[3...],
            in: server.folder
        )
        #expect(none.status == 74)
        #expect(try await run(Program.cairnd, ["init", "--data", server.store], in: server.folder).status == 73)
    }

    @Test("Wrong settings end with code 78 and name the setting; a configuration file works, and flags win over it")
    func settings() async throws {
        let server = try await ServerProcess(shards: 1)
        for (arguments, word) in [
            (["--set", "no-such=1"], "no-such"), (["--set", "loops=many"], "loops"),
            (["--cert", "/nowhere.crt"], "nowhere"),
            (["--listen", "nonsense"], "listen"), (["--log-level", "loud"], "log-level"),
        ] {
            var serve = server.serveArguments
            // A later flag of the same name would be a usage error: the wrong one replaces the good one.
            if let place = serve.firstIndex(of: arguments[0]) { serve.removeSubrange(place...place + 1) }
            let outcome = try await run(Program.cairnd, serve + arguments, limit: .seconds(20), in: server.folder)
            #expect(outcome.status == 78, "\(arguments): \(outcome.errors)")
            #expect(outcome.errors.contains(word), "\(arguments): \(outcome.errors)")
        }
        let file = try server.folder.write(
            Array("# comment\nlisten = 127.0.0.1:1\nlog-level = debug\ndefault-volume-size = 3MiB\n".utf8),
            to: "cairnd.conf"
        )
        let child = try ChildProcess(Program.cairnd, server.serveArguments + ["--config", file], in: server.folder)
        try await eventually("ready") {
            guard child.isRunning else { throw HarnessError(child.errors) }
            return child.output.contains("cairnd ready on 127.0.0.1:")
        }
        #expect(!child.output.contains("127.0.0.1:1\n"))
        child.send(SIGINT)
        #expect(try await child.wait(limit: .seconds(20)).status == 0)
    }

    @Test("DEADLINE_EXCEEDED: a call whose time is over before it began changes nothing")
    func deadlines() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 16 << 20).volumeID
        let big = Content.noise(140, 8 << 20)
        let small = Content.noise(141, 512)
        // Frames of one connection: a large upload, then small ones with 1 ms to live.
        let stream = try TLSStream(server.endpoint, try server.credentials(account), in: server.folder)
        try await stream.greet()
        let method = UInt32(Wire.Method.uploadBlock.rawValue)
        func frame(_ id: UInt64, _ upload: Upload, timeout: UInt32) -> [UInt8] {
            let request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume)), blocks: [upload.block])
            return TLSStream.frame(
                .request,
                method: method,
                callID: id,
                value: timeout,
                message: request.encode(),
                payload: upload.bytes
            )
        }
        var frames = frame(1, .plain(0, big), timeout: 0)
        for id in 2...40 as ClosedRange<UInt64> { frames += frame(id, .plain(8 << 20 + id * 512, small), timeout: 1) }
        stream.child.write(frames)
        try await eventually("all are answered") { try stream.frames.count >= 41 }
        for (header, message) in try stream.frames.dropFirst() {
            let start = 8 << 20 + header.callID * 512
            if header.value == 0 { continue }
            #expect(header.value == Status.deadlineExceeded.rawValue)
            #expect(try Wire.ErrorDetail.decode(message).reason == .deadlineExceeded)
            #expect(try await caller.download(volume, start..<start + 512) == [UInt8](repeating: 0, count: 512))
        }
    }
}
