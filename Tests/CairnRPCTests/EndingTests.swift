import CairnCore
import CairnCrypto
import CairnRPC
import CairnTransport
import CairnWire
import Foundation
import Synchronization
import Testing

/// How connections end: in order, at once, by the clock, and for one that comes after them.
@Suite(.timeLimit(.minutes(5))) struct EndingTests {
    @Test func drainLetsCallsFinish() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        let closed = Mutex<Bool>(false)
        client.onClose { error in closed.withLock { $0 = error == nil } }
        async let answer = client.call(Request(method: TestMethod.hold, message: []))
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        let drain = Task { await server.server.drain(limit: .seconds(20)) }
        #expect(await eventually { !client.isOpen })
        let late = await #expect(throws: RPCError.self) {
            try await client.call(Request(method: TestMethod.echo, message: []))
        }
        #expect(late?.code == .goingAway && late?.delivery == .notSent)
        server.handler.releaseHeld()
        #expect(try await answer.message == [1])
        let start = ContinuousClock.now
        await drain.value
        #expect(ContinuousClock.now - start < .seconds(5))
        #expect(await eventually { closed.withLock { $0 } })
        await #expect(throws: RPCError.self) { try await server.connect() }
    }

    @Test func drainHasALimit() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        let call = Task { try await client.call(Request(method: TestMethod.hold, message: [])) }
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        await server.server.drain(limit: .milliseconds(200))
        let error = await #expect(throws: RPCError.self) { try await call.value }
        #expect(error?.code == .connectionLost && error?.delivery == .unknown)
        #expect(server.handler.held.withLock { $0[0].isCancelled })
    }

    @Test func closingFailsWhatIsInFlight() async throws {
        let server = try TestServer()
        let client = try await server.connect()
        let call = Task { try await client.call(Request(method: TestMethod.hold, message: [])) }
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        client.close()
        let error = await #expect(throws: RPCError.self) { try await call.value }
        #expect(error?.code == .connectionLost)
        let after = await #expect(throws: RPCError.self) { try await client.call(Request(method: 1, message: [])) }
        #expect(after?.delivery == .notSent)
        #expect(
            await eventually {
                server.server.connectionCount == 0 && server.handler.abandoned.load(ordering: .relaxed) == 1
            }
        )
    }

    /// SPEC C5: the newer connection waits for what the older one still does, even when the older one is gone.
    @Test(arguments: [false, true]) func retirementWaitsForTheLastCall(isGone: Bool) async throws {
        let server = try TestServer()
        let client = try await server.connect()
        let old = try #require(server.server.connections.first)
        let stubborn = Mutex<IncomingCall?>(nil)
        let call = Task { try await client.call(Request(method: TestMethod.drop, message: [])) }
        _ = try? await call.value
        let held = Task { try await client.call(Request(method: TestMethod.echoElsewhere + 100, message: [])) }
        _ = try? await held.value
        let work = Task { try await client.call(Request(method: TestMethod.hold, message: [])) }
        #expect(await eventually { server.handler.held.withLock { $0.count } == 1 })
        stubborn.withLock { $0 = server.handler.held.withLock { $0.first } }
        if isGone {
            client.close()
            #expect(await eventually { server.server.connectionCount == 0 })
        }
        let retired = Mutex(false)
        old.retire { retired.withLock { $0 = true } }
        // This handler abandons at once when it is told.
        #expect(await eventually { retired.withLock { $0 } })
        #expect(stubborn.withLock { $0?.isCancelled } == true)
        _ = try? await work.value
        #expect(await eventually { server.server.connectionCount == 0 })
    }

    @Test func retirementOfOneThatIsNotLetInYet() async throws {
        let decision = Mutex<(@Sendable (Admission) -> Void)?>(nil)
        let authenticator = SlowAuthenticator { _, decide in decision.withLock { $0 = decide } }
        let server = RPCServer(
            tls: try TLSContext(.server, files: TestInstallation.shared.server),
            authenticator: authenticator,
            loops: EventLoops(count: 1)
        )
        defer { server.stop() }
        let endpoint = try server.listen(at: Endpoint(host: "127.0.0.1", port: 0))
        let peer = try await RawPeer.connect(to: endpoint)
        peer.send(RawPeer.hello)
        #expect(await eventually { authenticator.applicant.withLock { $0 } != nil })
        let retired = Mutex(false)
        authenticator.applicant.withLock { $0 }?.connection.retire { retired.withLock { $0 = true } }
        try await Task.sleep(for: .milliseconds(100))
        #expect(!retired.withLock { $0 })
        decision.withLock { $0 }?(.accept(context: 1, hello: [], handler: TestHandler()))
        #expect(await eventually { retired.withLock { $0 } })
        #expect(await peer.waitForClose())
    }

    @Test func refusalSaysWhy() async throws {
        let error = CallError(.authenticationFailure)
        let server = try TestServer { _ in .refuse(status: error.status.rawValue, detail: error.detail.encode()) }
        let refused = await #expect(throws: RPCError.self) { try await server.connect() }
        #expect(refused?.code == .refused && refused?.status == Status.unauthenticated.rawValue)
        #expect(refused.map { CallError(status: $0.status, detail: $0.detail).reason } == .authenticationFailure)
    }

    /// A GOAWAY is short, whatever there is to say.
    @Test func longReasonsAreCut() async throws {
        let server = try TestServer()
        let peer = try await RawPeer.greeted(server.endpoint)
        let error = CallError(.unavailable, "moved: " + String(repeating: "ä", count: 10_000), blockIndex: 7)
        server.server.close(status: error.status.rawValue, detail: error.detail.encode()) { _ in true }
        #expect(await peer.waitForClose())
        let farewell = try #require(peer.farewell)
        #expect(farewell.reason == .unavailable && farewell.blockIndex == 7)
        #expect(farewell.text.hasPrefix("moved: ää") && error.text.hasPrefix(farewell.text))
        let length = peer.seen.withLock { $0.frames.last?.header.messageBytes }
        #expect(length.map { $0 <= 4096 } == true)
    }

    @Test func nobodyThere() async throws {
        let tls = try TLSContext(.client, files: TestInstallation.shared.client)
        let server = try TestServer()
        server.server.stop()
        try await Task.sleep(for: .milliseconds(50))
        for host in ["127.0.0.1", "no-such-host.invalid"] {
            let error = await #expect(throws: RPCError.self) {
                try await RPCConnection.connect(
                    to: Endpoint(host: host, port: server.endpoint.port),
                    tls: tls,
                    hello: []
                )
            }
            #expect(error?.code == .unreachable && error?.delivery == .notSent)
        }
    }

    @Test func connectionsAreLimited() async throws {
        var options = RPCServer.Options()
        options.connections = 2
        let server = try TestServer(options: options)
        let first = try await server.connect()
        let second = try await server.connect()
        await #expect(throws: RPCError.self) { try await server.connect() }
        first.close()
        // The place is free again once the first has ended.
        var third: RPCConnection?
        for _ in 0..<100 where third == nil {
            try await Task.sleep(for: .milliseconds(30))
            third = try? await server.connect()
        }
        #expect(third != nil)
        third?.close()
        second.close()
    }
}

final class SlowAuthenticator: Authenticator {
    let applicant = Mutex<Applicant?>(nil)
    private let body: @Sendable (Applicant, @escaping @Sendable (Admission) -> Void) -> Void
    init(_ body: @escaping @Sendable (Applicant, @escaping @Sendable (Admission) -> Void) -> Void) { self.body = body }
    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void) {
        self.applicant.withLock { $0 = applicant }
        body(applicant, decide)
    }
}
