import CairnCore
import CairnWire
import Testing

/// The server asks how far a snapshot is (SPEC S10).
@Suite(.serialized, .server("prompt-seconds=1"))
struct PromptTests {
    private let server = ServerProcess.shared

    private func begin(_ caller: Caller, _ seed: UInt64) async throws -> [UInt8] {
        let snapshot = try await caller.begin(try await caller.createLocalVolume()).snapshotID
        try await caller.upload(to: .snapshotID(snapshot), [.plain(0, Content.noise(seed, 512))])
        return snapshot
    }

    @Test("S10: the connection that uploaded last is asked, and its answer is recorded")
    func answered() async throws {
        let account = freshAccount()
        let (first, last) = (PromptAnswers(10), PromptAnswers(77))
        let older = try await server.connect(account, answering: first)
        let snapshot = try await begin(older, 1)
        let newer = try await server.connect(account, answering: last)
        try await newer.upload(to: .snapshotID(snapshot), [.plain(512, Content.noise(2, 512))])
        let asked = first.asked.count
        try await eventually("the answer is recorded", within: .seconds(30)) {
            try await older.describeSnapshot(snapshot).promptedProgress?.percent == 77
        }
        #expect(Set(last.asked) == [snapshot] && first.asked.count == asked)
        let described = try await older.describeSnapshot(snapshot)
        #expect(described.state == .inProgress && described.progress == 0)
        #expect(try await newer.report(100, snapshot).state == .complete)
    }

    @Test("S10: an answer of 100 completes nothing")
    func hundred() async throws {
        let caller = try await server.connect(freshAccount(), answering: PromptAnswers(100))
        let snapshot = try await begin(caller, 3)
        try await eventually("the answer is recorded", within: .seconds(30)) {
            try await caller.describeSnapshot(snapshot).promptedProgress?.percent == 99
        }
        #expect(try await caller.describeSnapshot(snapshot).state == .inProgress)
    }

    @Test("S10: no answer within the deadline is recorded, and harms neither the snapshot nor the connection")
    func silent() async throws {
        let answers = PromptAnswers(nil)
        let caller = try await server.connect(freshAccount(), answering: answers)
        let snapshot = try await begin(caller, 4)
        try await eventually("the silence is recorded", within: .seconds(60)) {
            try await caller.describeSnapshot(snapshot).promptUnanswered
        }
        let name = "\(SnapshotID(bytes: snapshot)!)"
        #expect(
            server.log.split(separator: "\n").contains { $0.contains("no answer to a prompt") && $0.contains(name) }
        )
        #expect(!answers.asked.isEmpty)
        #expect(try await caller.describeSnapshot(snapshot).promptedProgress == nil)
        #expect(try await caller.report(100, snapshot).state == .complete)
    }

    @Test("S10: a client that takes no calls works as if it were never asked")
    func unsupported() async throws {
        let caller = try await server.connect(freshAccount())
        let snapshot = try await begin(caller, 5)
        try await Task.sleep(for: .seconds(4))
        #expect(try await caller.describeSnapshot(snapshot).promptedProgress == nil)
        #expect(try await caller.report(100, snapshot).state == .complete)
    }
}
