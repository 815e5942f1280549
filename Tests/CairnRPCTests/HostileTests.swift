import CairnCore
import CairnRPC
import CairnTesting
import CairnTransport
import CairnWire
import Synchronization
import Testing

/// Peers that got in and then misbehave: they are answered or cut off, and nobody else notices.
@Suite(.serialized, .timeLimit(.minutes(10))) struct HostileTests {
    private func request(_ id: UInt64, _ method: UInt32 = TestMethod.hold, timeout: UInt32 = 0, _ message: [UInt8] = [])
        -> [UInt8]
    {
        RawPeer.frame(FrameHeader(.request, method: method, callID: id, value: timeout), message)
    }

    /// The server ends the connection and says that the protocol was broken.
    private func expectViolation(_ bytes: [UInt8], greeted: Bool = true, _ comment: Comment) async throws {
        let server = try TestServer()
        let peer = greeted ? try await RawPeer.greeted(server.endpoint) : try await RawPeer.connect(to: server.endpoint)
        peer.send(bytes)
        #expect(await peer.waitForClose(), comment)
        #expect(peer.farewell?.reason == .protocolError, comment)
        #expect(await eventually { server.server.connectionCount == 0 }, comment)
    }

    @Test func brokenRules() async throws {
        let cases: [(Comment, [UInt8])] = [
            ("second HELLO", RawPeer.hello),
            ("call id 0", request(0)),
            ("call id twice", request(5) + request(5)),
            ("call id falls", request(5) + request(4)),
            ("answer to no call", RawPeer.frame(FrameHeader(.response, method: 1, callID: 1))),
            ("credit never taken", RawPeer.frame(FrameHeader(.credit, credit: 1))),
            ("a GOAWAY without a status that says something", RawPeer.frame(FrameHeader(.goAway), [8, 3])),
            (
                "a GOAWAY of 5 KiB",
                RawPeer.frame(FrameHeader(.goAway, value: 3), [UInt8](repeating: 0, count: 5 << 10))
            ),
            ("unknown kind", [0, 0, 0, 0, 1, 77] + [UInt8](repeating: 0, count: 26)),
            ("message over the limit", [UInt8](FrameBytes.header(body: 2 << 20, message: 2 << 20))),
            ("payload over the limit", [UInt8](FrameBytes.header(body: 17 << 20, message: 0))),
            ("message beyond its body", [UInt8](FrameBytes.header(body: 10, message: 11))),
        ]
        for (comment, bytes) in cases { try await expectViolation(bytes, comment) }
        try await expectViolation(request(1), greeted: false, "a call before HELLO")
        try await expectViolation(RawPeer.frame(FrameHeader(.hello), [0xff]), greeted: false, "a HELLO that is none")
        let long = RawPeer.frame(FrameHeader(.hello), [UInt8](repeating: 0, count: 65 << 10))
        try await expectViolation(long, greeted: false, "a HELLO of 65 KiB")
    }

    @Test func creditOverstepped() async throws {
        var options = RPCServer.Options()
        options.rpc.limits.credit = 100_000
        let server = try TestServer(options: options)
        let peer = try await RawPeer.greeted(server.endpoint)
        let message = [UInt8](repeating: 1, count: 40_000)
        peer.send(request(1, TestMethod.hold, message) + request(2, TestMethod.hold, message))
        #expect(await eventually { server.handler.held.withLock { $0.count } == 2 })
        // What the answers give back may be used again.
        server.handler.releaseHeld()
        #expect(await eventually { peer.responses().count == 2 })
        #expect(peer.responses().reduce(0) { $0 + Int($1.credit) } == 80_000)
        peer.send(request(3, TestMethod.hold, message) + request(4, TestMethod.hold, message))
        #expect(await eventually { server.handler.held.withLock { $0.count } == 2 })
        peer.send(request(5, TestMethod.hold, message))
        #expect(await peer.waitForClose())
        #expect(peer.farewell?.reason == .protocolError)
        #expect(server.handler.held.withLock { $0.allSatisfy(\.isCancelled) })
    }
    private func request(_ id: UInt64, _ method: UInt32, _ message: [UInt8]) -> [UInt8] {
        request(id, method, timeout: 0, message)
    }

    @Test func tooManyCalls() async throws {
        var options = RPCServer.Options()
        options.rpc.limits.calls = 10
        let server = try TestServer(options: options)
        let peer = try await RawPeer.greeted(server.endpoint)
        peer.send((1...15).flatMap { request($0) })
        #expect(await eventually { peer.responses().count == 5 })
        #expect(peer.responses().allSatisfy { $0.value == Status.resourceExhausted.rawValue && $0.callID > 10 })
        server.handler.releaseHeld()
        #expect(await eventually { peer.responses().count == 15 })
        peer.close()
    }

    @Test func floodOfCallsAndCancels() async throws {
        let server = try TestServer()
        let peer = try await RawPeer.greeted(server.endpoint)
        var id: UInt64 = 0
        for _ in 0..<50 {
            var bytes: [UInt8] = []
            for _ in 0..<1000 {
                id += 1
                bytes +=
                    request(id) + RawPeer.frame(FrameHeader(.cancel, callID: id))
                    + RawPeer.frame(FrameHeader(.cancel, callID: id + 7))
            }
            peer.send(bytes)
        }
        #expect(await eventually(within: .seconds(60)) { peer.responses().count == 50_000 })
        #expect(peer.seen.withLock { !$0.isClosed })
        #expect(Set(peer.responses().map(\.callID)).count == 50_000)
        server.handler.held.withLock { $0 = [] }
        peer.close()
    }

    @Test func deadlineIsTheServersBusinessToo() async throws {
        let server = try TestServer()
        let peer = try await RawPeer.greeted(server.endpoint)
        peer.send(request(1, timeout: 50))
        #expect(await eventually { peer.responses().first?.value == Status.deadlineExceeded.rawValue })
        peer.close()
    }

    @Test func slowSenderIsCut() async throws {
        var options = RPCServer.Options()
        options.rpc.frameLimit = .milliseconds(300)
        options.rpc.payloadRate = 1 << 20
        let server = try TestServer(options: options)
        let peer = try await RawPeer.greeted(server.endpoint)
        // A byte now and then keeps no frame alive.
        let begun = Array(request(1, TestMethod.echo, [UInt8](repeating: 0, count: 100)).prefix(60))
        for byte in begun {
            peer.send([byte])
            try await Task.sleep(for: .milliseconds(20))
        }
        #expect(await peer.waitForClose(within: .seconds(3)))
        #expect(peer.farewell?.reason == .protocolError)
    }

    @Test func halfOpenConnectionsAreCut() async throws {
        var options = RPCServer.Options()
        options.rpc.handshakeLimit = .milliseconds(400)
        let server = try TestServer(options: options)
        let mute = try #require(PlainSocket(to: server.endpoint))
        let silent = try await RawPeer.connect(to: server.endpoint)
        #expect(mute.waitForEnd(seconds: 5))
        #expect(await silent.waitForClose(within: .seconds(5)))
        // And one whose authenticator takes for ever.
        #expect(server.server.connectionCount == 0)
    }

    @Test func deadPeersAreNoticed() async throws {
        var options = RPCServer.Options()
        options.rpc.pingAfter = .milliseconds(100)
        options.rpc.pongWithin = .milliseconds(300)
        let server = try TestServer(options: options)
        let client = try await server.connect()
        let dead = try await RawPeer.greeted(server.endpoint)
        #expect(await dead.waitForClose(within: .seconds(5)))
        #expect(dead.seen.withLock { $0.frames.contains { $0.header.kind == .ping } })
        // A decent client answers, and stays.
        #expect(client.isOpen)
        #expect(try await client.call(Request(method: TestMethod.echo, message: [1])).message == [1])
        client.close()
    }

    @Test func slowReaderStallsItselfAlone() async throws {
        var options = RPCServer.Options()
        options.rpc.answerBudgetBytes = 8 << 20
        let server = try TestServer(options: options)
        let other = try await server.connect()
        let stuck = try await RawPeer.greeted(server.endpoint)
        stuck.stallAtNextBytes()
        stuck.send((1...100).flatMap { request($0, TestMethod.download, size(4 << 20)) })
        #expect(await eventually { stuck.hasStalled })
        for index in 0..<200 {
            #expect(
                try await other.call(Request(method: TestMethod.echo, message: [UInt8(index)])).message == [
                    UInt8(index)
                ]
            )
        }
        // 100 answers of 4 MiB are wanted; the budget has room for two, the sockets' buffers take some.
        #expect(server.handler.granted.load(ordering: .relaxed) < 20)
        stuck.goOn()
        #expect(await eventually(within: .seconds(60)) { stuck.responses().count == 100 })
        other.close()
        stuck.close()
    }

    /// Fifteen and the one that held them up fill a packet: they leave in the midst of what makes it possible.
    @Test(arguments: [1, 15, 16, 31]) func callsBehindTurnsThatFailBeginAtOnce(turns: Int) async throws {
        var options = RPCServer.Options()
        options.rpc.answerBudgetBytes = 4000
        let server = try TestServer(options: options)
        let client = try await server.connect()
        defer { client.close() }
        let call = { (method: UInt32, bytes: Int) in
            Task { try await client.call(Request(method: method, message: size(bytes), timeout: .seconds(10))) }
        }
        let holding = call(TestMethod.chargeAndHold, 3500)
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        server.handler.elsewhere.suspend()
        let failing = (0..<turns).map { _ in call(TestMethod.chargeAndFail, 1000) }
        #expect(await eventually { server.handler.handled.load(ordering: .relaxed) == 1 + turns })
        // All want to be charged for, and none is: there is no room. What comes now does not begin.
        server.handler.elsewhere.resume()
        try await Task.sleep(for: .milliseconds(100))
        let behind = (0..<3).map { _ in call(TestMethod.echo, 1) }
        try await Task.sleep(for: .milliseconds(100))
        #expect(server.handler.handled.load(ordering: .relaxed) == 1 + turns)
        server.handler.releaseHeld()
        #expect(try await holding.value.message == [1])
        for task in failing { await #expect(throws: RPCError.self) { try await task.value } }
        for task in behind { #expect(try await task.value.message == size(1)) }
    }

    @Test func whoMakesUsAnswerWithoutReadingIsCut() async throws {
        let server = try TestServer()
        let peer = try #require(try DeafPeer(to: server.endpoint))
        let isCut = try await Task.detached {
            guard try peer.send(RawPeer.hello) else { return false }
            try await Task.sleep(for: .milliseconds(100))
            let pings = (0..<10_000).flatMap { RawPeer.frame(FrameHeader(.ping, callID: UInt64($0))) }
            // 64 MB of PINGs: the sockets' buffers take the first answers, the reserve bounds the rest.
            for _ in 0..<200 where try !peer.send(pings) { return true }
            return false
        }.value
        #expect(isCut)
    }

    /// Its frames keep coming, so that it is never found silent; but nothing of what it asked for leaves.
    @Test func whoNeverReadsIsCut() async throws {
        var options = RPCServer.Options()
        options.rpc.stallLimit = .milliseconds(400)
        let server = try TestServer(options: options)
        let peer = try #require(try DeafPeer(to: server.endpoint))
        let isCut = try await Task.detached {
            let wanted = (1...20).flatMap { self.request($0, TestMethod.download, size(4 << 20)) }
            guard try peer.send(RawPeer.hello + wanted) else { return false }
            for _ in 0..<1200 {
                try await Task.sleep(for: .milliseconds(50))
                if try !peer.send(RawPeer.frame(FrameHeader(.cancel, callID: 1000))) { return true }
            }
            return false
        }.value
        #expect(isCut)
        #expect(await eventually { server.server.connectionCount == 0 })
    }

    /// Random bytes, cut frames, lying lengths: 2,000 seeded cases, and memory stays where it was.
    @Test func randomBytes() async throws {
        let server = try TestServer()
        let before = residentBytes()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<8 {
                group.addTask {
                    let loop = EventLoop(name: "raw")
                    for seed in stride(from: lane, to: 2000, by: 8) {
                        try await self.disturb(server, seed: seed, loop: loop)
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(await eventually { server.server.connectionCount == 0 })
        // Other suites run beside this one; a payload buffer kept by each case would be gigabytes.
        #expect(residentBytes() - before < 256 << 20)
        let client = try await server.connect()
        #expect(try await client.call(Request(method: TestMethod.echo, message: [1])).message == [1])
        client.close()
    }

    private func disturb(_ server: TestServer, seed: Int, loop: EventLoop) async throws {
        var random = SeededRandom(seed: UInt64(seed))
        let isGreeted = Bool.random(using: &random)
        let peer =
            isGreeted
            ? try await RawPeer.greeted(server.endpoint, loop: loop)
            : try await RawPeer.connect(to: server.endpoint, loop: loop)
        peer.send(StrangeBytes.make(using: &random))
        if Bool.random(using: &random) {
            _ = await eventually(within: .milliseconds(3)) { peer.seen.withLock { $0.isClosed } }
        }
        peer.close()
    }
}

enum FrameBytes {
    /// A REQUEST's header with any lengths.
    static func header(body: UInt32, message: UInt32) -> [UInt8] {
        var writer = ByteWriter()
        writer.put(body)
        writer.put(bytes: [1, 2, 0, 0])
        writer.put(UInt32(1))
        writer.put(message)
        writer.put(UInt64(1))
        writer.put(UInt64(0))
        return writer.bytes
    }
}

/// Bytes that a fuzzer would send.
enum StrangeBytes {
    static func make(using random: inout SeededRandom) -> [UInt8] {
        let noise = (0..<Int.random(in: 1...400, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        switch Int.random(in: 0..<6, using: &random) {
        case 0: return noise
        case 1:
            return FrameBytes.header(
                body: .random(in: 0...UInt32.max, using: &random),
                message: .random(in: 0...UInt32.max, using: &random)
            ) + noise
        case 2: return Array(RawPeer.hello.prefix(Int.random(in: 1..<RawPeer.hello.count, using: &random)))
        case 3: return FrameBytes.header(body: 16 << 20, message: 0) + noise
        case 4:
            // A valid conversation with one bit flipped.
            var bytes = (1...5).flatMap {
                RawPeer.frame(FrameHeader(.request, method: TestMethod.echo, callID: $0), noise)
            }
            bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            return bytes
        default:
            let kinds = FrameKind.allCases
            return (0..<10).flatMap { _ in
                RawPeer.frame(
                    FrameHeader(kinds.randomElement(using: &random)!, callID: .random(in: 0...20, using: &random)),
                    []
                )
            }
        }
    }
}
