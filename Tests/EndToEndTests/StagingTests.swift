import CairnCore
import CairnWire
import Testing

/// Chunks that are here before there is a place for them (SPEC U7).
@Suite(.serialized)
struct StagingTests {
    private func present(_ caller: Caller, _ tokens: [[UInt8]]) async throws -> [UInt8] {
        try await caller.call(Wire.QueryChunksRequest(tokens: tokens)).message.present
    }

    @Test("U7, S5, C3: staged chunks survive kill -9 and become a snapshot, for their own account alone")
    func overRestart() async throws {
        let server = try await ServerProcess.started(shards: 4)
        let account = freshAccount()
        var caller = try await server.connect(account)
        let chunks = (0..<4).map { Content.noise(UInt64($0), 65536) }
        let answer = try await caller.stage(chunks, leaseSeconds: 3600)
        let tokens = answer.chunks.map(\.token)
        #expect(tokens == chunks.map { Content.token($0) } && answer.leaseExpiresAtMs > 0)
        try await server.crash()
        try await server.start()
        caller = try await server.connect(account)
        #expect(try await present(caller, tokens) == [0b1111])
        let stranger = try await server.connect(freshAccount())
        #expect(try await present(stranger, tokens) == [0])
        let foreign = try await failure { try await stranger.call(Wire.RenewLeaseRequest(tokens: tokens)) }
        #expect(foreign.reason == .invalidChunkToken && foreign.detail.blockIndex?.value == 0)
        // Several volumes: on whichever shard they are, the chunks come.
        for _ in 0..<4 {
            let snapshot = try await caller.begin(try await caller.createLocalVolume()) {
                $0.chunks = tokens.enumerated().map { .init(offset: UInt64($0) * 65536, token: $1) }
            }.snapshotID
            try await caller.report(100, snapshot)
            #expect(try await caller.download(snapshot: snapshot, 0..<4 * 65536) == Array(chunks.joined()))
        }
    }

    @Test("U7, U8: chunks that are staged near no volume, for which no Flush is, are durable when that is answered")
    func earlyAnswers() async throws {
        nonisolated(unsafe) var made: FaultPlan?
        let server = try await ServerProcess(shards: 1) { folder in
            let plan = try FaultPlan(folder: folder.file("store"), in: folder)
            made = plan
            return plan.environment
        }
        let plan = try #require(made)
        try await server.start()
        let caller = try await server.connect(freshAccount())
        plan.arm([.fdatasync], at: 1, .eio, .on, in: ".seg")
        let chunk = Content.noise(20, 65536)
        let refused = try await failure { try await caller.stage([chunk], durability: .onFlush) }
        #expect(refused.reason == .unavailable && plan.fired > 0, "\(refused)")
        plan.disarm()
        try await eventually("the shard takes chunks again") {
            let answer = try? await caller.stage([chunk], durability: .onFlush)
            return answer != nil
        }
    }

    @Test("U7: a lease ends when it was said to, unless it is renewed; released, the chunks go")
    func leases() async throws {
        let server = try await ServerProcess.started(shards: 2, settings: ["lease-seconds=1"])
        let caller = try await server.connect(freshAccount())
        let chunks = (10..<13).map { Content.noise(UInt64($0), 65536) }
        let tokens = try await caller.stage(chunks, leaseSeconds: 4).chunks.map(\.token)
        let renewed = try await caller.call(
            Wire.RenewLeaseRequest(tokens: Array(tokens[1...]), leaseSeconds: 3600)
        ).message.leaseExpiresAtMs
        #expect(renewed > UnixTime.milliseconds + 3_000_000)
        // Asking pins what is there for a second more: not too often.
        try await eventually("the first lease ends", within: .seconds(60)) {
            try await Task.sleep(for: .seconds(3))
            return try await present(caller, [tokens[0]]) == [0]
        }
        #expect(try await present(caller, Array(tokens[1...])) == [0b11])
        _ = try await caller.call(Wire.ReleaseLeaseRequest(tokens: [tokens[1], Content.noise(99, 32)]))
        try await eventually("the released chunk goes", within: .seconds(60)) {
            try await Task.sleep(for: .seconds(3))
            return try await present(caller, [tokens[1]]) == [0]
        }
        #expect(try await present(caller, [tokens[2]]) == [1])
        let unknown = try await failure {
            try await caller.call(Wire.RenewLeaseRequest(tokens: [tokens[2], tokens[0]]))
        }
        #expect(unknown.reason == .invalidChunkToken && unknown.detail.blockIndex?.value == 1)
    }
}
