import CairnCore
import CairnRPC
import CairnWire
import Synchronization
import Testing

/// Calls that are judged by their headers.
@Suite(.timeLimit(.minutes(2))) struct ReceptionTests {
    /// What calls hold, counted.
    private final class Ledger: Sendable {
        let held = Atomic<Int>(0)
        let answered = Mutex<[Int]>([])

        final class Entry: CallHold {
            let ledger: Ledger
            init(_ ledger: Ledger) {
                self.ledger = ledger
                ledger.held.add(1, ordering: .relaxed)
            }
            deinit { ledger.held.subtract(1, ordering: .relaxed) }
            func answers(bytes: Int) { ledger.answered.withLock { $0.append(bytes) } }
        }
    }

    private static func refusal() -> Reception {
        let error = CallError(.throttled, "not now", retryable: true)
        return .refusal(status: error.status.rawValue, detail: error.detail.encode())
    }

    private static func content(_ count: Int) -> BufferSlice {
        Buffer(copying: [UInt8](repeating: 7, count: count)).slice
    }

    /// Ten times the window: so the credit of what was dropped comes back; and what is between goes on.
    @Test func whatIsRefusedIsDroppedAndAnswered() async throws {
        let server = try TestServer()
        server.handler.reception.withLock { $0 = { _, bytes in bytes > 1 << 20 ? Self.refusal() : .welcome(nil) } }
        let client = try await server.connect()
        let large = Self.content(8 << 20)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<40 {
                group.addTask {
                    let error = await #expect(throws: RPCError.self) {
                        try await client.call(
                            Request(method: TestMethod.echo, message: [1], payload: [large], timeout: .seconds(60))
                        )
                    }
                    #expect(error?.status == Status.resourceExhausted.rawValue)
                    #expect(error.map { CallError(status: $0.status, detail: $0.detail).reason } == .throttled)
                }
                group.addTask {
                    let small = Self.content(1000)
                    let answer = try await client.call(
                        Request(method: TestMethod.echo, message: [2], payload: [small], timeout: .seconds(60))
                    )
                    #expect(answer.payload.map { Array($0.bytes) } == Array(small.bytes))
                }
            }
            try await group.waitForAll()
        }
        #expect(server.handler.handled.load(ordering: .relaxed) == 40)
        client.close()
    }

    /// A call that is welcome holds what it was given until its answer has left; its body is not asked about twice.
    @Test func whatIsHeldGoesWithTheAnswer() async throws {
        let server = try TestServer()
        let ledger = Ledger()
        let asked = Mutex<[Int]>([])
        server.handler.reception.withLock {
            $0 = { _, bytes in
                asked.withLock { $0.append(bytes) }
                return .welcome(Ledger.Entry(ledger))
            }
        }
        let client = try await server.connect()
        let content = Self.content(100_000)
        async let held = client.call(Request(method: TestMethod.hold, message: [], payload: [content]))
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        #expect(ledger.held.load(ordering: .relaxed) == 1)
        server.handler.releaseHeld()
        _ = try await held
        #expect(await eventually { ledger.held.load(ordering: .relaxed) == 0 })
        // Small calls without a payload are not announced.
        _ = try await client.call(Request(method: TestMethod.echo, message: [1, 2]))
        #expect(asked.withLock { $0 } == [FrameHeader.byteCount + 100_000])
        #expect(ledger.answered.withLock { $0 } == [FrameHeader.byteCount + 1])
        client.close()
    }

    /// Whose connection ends in the middle of a body, or before the answer, holds nothing any more.
    @Test func whatIsHeldGoesWithTheConnection() async throws {
        let server = try TestServer()
        let ledger = Ledger()
        server.handler.reception.withLock { $0 = { _, _ in .welcome(Ledger.Entry(ledger)) } }
        let peer = try await RawPeer.greeted(server.endpoint)
        let header = FrameHeader(.request, method: TestMethod.hold, callID: 1)
        peer.send(RawPeer.frame(header, [1], [UInt8](repeating: 1, count: 50_000)))
        let second = FrameHeader(.request, method: TestMethod.hold, callID: 2)
        peer.send(RawPeer.frame(second, [1], [UInt8](repeating: 1, count: 50_000)).dropLast())
        #expect(await eventually { ledger.held.load(ordering: .relaxed) == 2 })
        #expect(server.handler.held.withLock { $0.count } == 1)
        peer.close()
        #expect(await eventually { server.handler.abandoned.load(ordering: .relaxed) == 1 })
        server.handler.held.withLock { $0 = [] }
        #expect(await eventually { ledger.held.load(ordering: .relaxed) == 0 })
    }

    /// The peer takes nothing of what it asked for, and breaks the protocol: the connection is over at once, but its answers are in
    /// memory until the transport gives up, and count until then.
    @Test func whatIsHeldGoesWithTheAnswersMemory() async throws {
        let server = try TestServer()
        let ledger = Ledger()
        server.handler.reception.withLock { $0 = { _, _ in .welcome(Ledger.Entry(ledger)) } }
        var peer = try DeafPeer(to: server.endpoint)
        // With a byte of payload, so that they are announced. More than the sockets' buffers take.
        let wanted = (1...3).flatMap {
            RawPeer.frame(FrameHeader(.request, method: TestMethod.download, callID: $0), size(16 << 20), [1])
        }
        let isSent = try peer?.send(RawPeer.hello + wanted)
        #expect(isSent == true)
        #expect(await eventually { server.handler.granted.load(ordering: .relaxed) == 3 })
        #expect(ledger.held.load(ordering: .relaxed) > 0)
        let isBroken = try peer?.send([0, 0, 0, 0, 1, 77] + [UInt8](repeating: 0, count: 26))
        #expect(isBroken == true)
        #expect(await eventually { server.server.connectionCount == 0 })
        #expect(ledger.held.load(ordering: .relaxed) > 0)
        withExtendedLifetime(peer) {}
        peer = nil
        #expect(await eventually(within: .seconds(20)) { ledger.held.load(ordering: .relaxed) == 0 })
    }
}
