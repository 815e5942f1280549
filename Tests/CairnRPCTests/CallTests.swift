import CairnCore
import CairnRPC
import CairnTransport
import CairnWire
import Synchronization
import Testing

/// Calls that go well, and calls that end in the ways that calls end.
@Suite(.timeLimit(.minutes(5))) struct CallTests {
    @Test(arguments: [LoopKind.thread, .dispatch]) func echoes(loop: LoopKind) async throws {
        let server = try TestServer(loop: loop)
        let client = try await server.connect()
        defer { client.close() }
        #expect(try Wire.Hello.decode(client.peerHello).agent == "test server")
        #expect(client.peerLimits == SessionLimits())
        // A server keeps none for each of its clients.
        #expect(server.server.connections.map(\.peerHello) == [[]])
        for size in [0, 1, 100, 4096, 4097, 70_000, 1 << 20] {
            let message = [UInt8](repeating: 7, count: min(size, 1 << 20))
            let answer = try await client.call(Request(method: TestMethod.echo, message: message))
            #expect(answer.message == message && answer.payload == nil)
        }
        for size in [1, 15_000, 16_384, 100_000, 1 << 20, 16 << 20] {
            let payload = Buffer(copying: (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
            let half = size / 2
            let slices = [payload.slice.part(0..<half), payload.slice.part(half..<size)]
            let answer = try await client.call(
                Request(method: TestMethod.echoElsewhere, message: [1, 2], payload: slices)
            )
            #expect(answer.message == [1, 2])
            #expect(answer.payload?.bytes.elementsEqual(payload.bytes) == true, "\(size) bytes")
        }
    }

    @Test func thousandInFlight() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        defer { client.close() }
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<3000 {
                group.addTask {
                    let message = withUnsafeBytes(of: UInt32(index)) { Array($0) }
                    let method = index % 2 == 0 ? TestMethod.echo : TestMethod.echoElsewhere
                    return try await client.call(Request(method: method, message: message)).message == message
                }
            }
            for try await isRight in group { #expect(isRight) }
        }
    }

    @Test func errorsCarryTheirDetail() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        defer { client.close() }
        let error = await #expect(throws: RPCError.self) {
            try await client.call(Request(method: TestMethod.fail, message: []))
        }
        #expect(error?.code == .answered && error?.delivery == .answered)
        let call = try #require(error.map { CallError(status: $0.status, detail: $0.detail) })
        #expect(call.reason == .invalidArgument && call.blockIndex == 7)
        let dropped = await #expect(throws: RPCError.self) {
            try await client.call(Request(method: TestMethod.drop, message: []))
        }
        #expect(dropped?.status == Status.internal.rawValue)
    }

    @Test func deadlines() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        defer { client.close() }
        let error = await #expect(throws: RPCError.self) {
            try await client.call(Request(method: TestMethod.hold, message: [], timeout: .milliseconds(50)))
        }
        #expect(error?.code == .deadlineExceeded || error?.status == Status.deadlineExceeded.rawValue)
        #expect(await eventually { server.handler.abandoned.load(ordering: .relaxed) == 1 })
        #expect(
            try await client.call(Request(method: TestMethod.echo, message: [1], timeout: .seconds(5))).message == [1]
        )
    }

    @Test func cancellingTheTaskCancelsTheCall() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        defer { client.close() }
        let task = Task { try await client.call(Request(method: TestMethod.hold, message: [])) }
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        task.cancel()
        let error = await #expect(throws: RPCError.self) { try await task.value }
        #expect(error?.code == .cancelled && error?.delivery == .unknown)
        #expect(await eventually { server.handler.abandoned.load(ordering: .relaxed) == 1 })
        #expect(server.handler.held.withLock { $0[0].isCancelled })
    }

    @Test func serverCallsClient() async throws {
        let server = try TestServer()
        let handler = TestHandler()
        let client = try await server.connect(handler: handler)
        defer { client.close() }
        let back = try #require(server.server.connections.first)
        let answer = try await back.call(Request(method: TestMethod.echo, message: [9], timeout: .seconds(5)))
        #expect(answer.message == [9])
        #expect(back.context as? String == "somebody")
        // What it may not say is an error of its own, and ends no connection.
        for payload in [[], [Buffer(copying: [1]).slice]] as [[BufferSlice]] {
            let message = [UInt8](repeating: 1, count: payload.isEmpty ? 65 << 10 : 1)
            let long = await #expect(throws: RPCError.self) {
                try await back.call(Request(method: TestMethod.echo, message: message, payload: payload))
            }
            #expect(long?.status == Status.internal.rawValue)
        }
        #expect(back.isOpen)
        // A client without a handler says so.
        let mute = try await server.connect()
        defer { mute.close() }
        let other = try #require(server.server.connections.first { $0 !== back })
        let error = await #expect(throws: RPCError.self) { try await other.call(Request(method: 1, message: [])) }
        #expect(error?.status == Status.unimplemented.rawValue)
    }

    @Test func tooLargeIsSaidBeforeItIsSent() async throws {
        var options = RPCServer.Options()
        options.rpc.limits.payloadBytes = 1000
        options.rpc.limits.messageBytes = 2000
        let server = try TestServer(options: options)
        let client = try await server.connect()
        defer { client.close() }
        let requests = [
            Request(method: 1, message: [UInt8](repeating: 0, count: 2001)),
            Request(method: 1, message: [], payload: [Buffer(copying: [UInt8](repeating: 0, count: 1001)).slice]),
        ]
        for request in requests {
            let error = await #expect(throws: RPCError.self) { try await client.call(request) }
            #expect(error?.code == .tooLarge && error?.delivery == .notSent)
        }
        #expect(client.isOpen)
    }
}
