import CairnCore
import CairnStore
import CairnWire
import Foundation
import Synchronization
import Testing

@testable import CairnService

@Suite struct PromptTests {
    private static func snapshot(_ number: UInt64) -> SnapshotID { SnapshotID(UUID128(high: number, low: 0)) }
    private static let account = AccountID("alice")!

    @Test("S10: the connection that uploaded last is asked, once at a time, when nothing was reported for the interval")
    func schedule() {
        var schedule = PromptSchedule<String>(interval: 60)
        let one = Self.snapshot(1)
        func due(_ now: UInt64) -> [String] { schedule.due(at: now).map(\.line) }
        schedule.uploaded(to: one, account: Self.account, by: "first", reporting: false, at: 0)
        schedule.uploaded(to: one, account: Self.account, by: "second", reporting: false, at: 50)
        #expect(due(59) == [])
        #expect(due(60) == ["second"])
        #expect(due(500) == [])
        schedule.answered(one, at: 500)
        #expect(due(559) == [])
        schedule.reported(one, at: 559)
        #expect(due(618) == [] && due(619) == ["second"])
        schedule.answered(one, at: 620)
        schedule.uploaded(to: one, account: Self.account, by: "third", reporting: true, at: 650)
        #expect(due(709) == [] && due(710) == ["third"])
        schedule.forget(one)
        schedule.answered(one, at: 711)
        schedule.reported(one, at: 711)
        #expect(due(10_000) == [] && schedule.count == 0)
    }

    @Test("S10: the memory of whom to ask is bounded")
    func bounded() {
        var schedule = PromptSchedule<Int>(interval: 1)
        let ofOne = PromptSchedule<Int>.limitOfOne
        func add(_ range: Range<Int>, of account: AccountID) {
            for number in range {
                schedule.uploaded(to: Self.snapshot(UInt64(number)), account: account, by: 1, reporting: false, at: 0)
            }
        }
        // One account fills its own part alone.
        add(0..<ofOne + 10, of: Self.account)
        #expect(schedule.count == ofOne)
        schedule.forget(Self.snapshot(0))
        schedule.forget(Self.snapshot(0))
        add(ofOne + 10..<ofOne + 12, of: Self.account)
        #expect(schedule.count == ofOne)
        for other in 1..<PromptSchedule<Int>.limit / ofOne + 1 {
            add(other << 20..<other << 20 + ofOne, of: AccountID("other-\(other)")!)
        }
        #expect(schedule.count == PromptSchedule<Int>.limit)
    }

    /// A client's end: answers with what it is told to.
    private final class Line: PromptLine {
        private let state: Mutex<(outcome: PromptOutcome?, asked: [SnapshotID])>
        init(_ outcome: PromptOutcome?) { state = Mutex((outcome, [])) }
        func set(_ outcome: PromptOutcome) { state.withLock { $0.outcome = outcome } }
        var asked: [SnapshotID] { state.withLock { $0.asked } }

        func ask(_ snapshot: SnapshotID, limit: Duration, answer: @escaping @Sendable (PromptOutcome) -> Void) {
            let outcome = state.withLock { state in
                state.asked.append(snapshot)
                return state.outcome
            }
            if let outcome { answer(outcome) }
        }
    }

    private func context(_ line: Line) -> CallContext { CallContext(account: Self.account, promptLine: line) }

    private func harness() throws -> ServiceHarness { try ServiceHarness { $1.promptMilliseconds = 100 } }

    @Test("S10: the answer is recorded, and never completes the snapshot", arguments: [(0, 0), (40, 40), (100, 99)])
    func answered(percent: UInt32, recorded: UInt32) throws {
        let harness = try harness()
        let snapshot = try harness.begin(try harness.localVolume()).snapshotID
        #expect(try harness.describe(snapshot).promptedProgress == nil)
        let line = Line(.percent(percent))
        try harness.upload(noise(512, seed: 1), at: 0, to: snapshot, as: context(line))
        #expect(try harness.eventually { try harness.describe(snapshot).promptedProgress != nil })
        let described = try harness.describe(snapshot)
        #expect(described.promptedProgress?.percent == recorded)
        #expect(described.state == .inProgress && described.progress == 0)
        #expect(harness.eventually { line.asked.count >= 3 })
        #expect(Set(line.asked) == [try #require(SnapshotID(bytes: snapshot))])
        try harness.report(100, snapshot)
        // A question that was under way may still have come.
        Thread.sleep(forTimeInterval: 0.3)
        let count = line.asked.count
        Thread.sleep(forTimeInterval: 0.5)
        #expect(line.asked.count == count)
        #expect(try harness.describe(snapshot).state == .complete)
    }

    @Test(
        "S10: no answer, or none that makes sense, is counted and harms nothing",
        arguments: [PromptOutcome.unanswered, .percent(101)]
    )
    func unanswered(outcome: PromptOutcome) throws {
        let harness = try harness()
        let snapshot = try harness.begin(try harness.localVolume()).snapshotID
        let line = Line(outcome)
        try harness.upload(noise(512, seed: 2), at: 0, to: snapshot, as: context(line))
        #expect(harness.eventually { harness.service.prompts.counts.unanswered >= 3 })
        let described = try harness.describe(snapshot)
        #expect(described.promptedProgress == nil && described.promptUnanswered && described.state == .inProgress)
        #expect(try harness.report(100, snapshot).state == .complete)
    }

    @Test("S10: an answer stays told where a later prompt gets none; that is told until the next answer")
    func sometimesAnswered() throws {
        let harness = try harness()
        let snapshot = try harness.begin(try harness.localVolume()).snapshotID
        let line = Line(.percent(40))
        try harness.upload(noise(512, seed: 5), at: 0, to: snapshot, as: context(line))
        let told = { (percent: UInt32, isUnanswered: Bool) in
            try harness.eventually {
                let described = try harness.describe(snapshot)
                return described.promptedProgress?.percent == percent && described.promptUnanswered == isUnanswered
            }
        }
        #expect(try told(40, false))
        line.set(.unanswered)
        #expect(try told(40, true))
        line.set(.percent(0))
        #expect(try told(0, false))
    }

    @Test(
        "S10: a client that takes no prompts, or is gone, is not asked again",
        arguments: [PromptOutcome.unsupported, .gone]
    )
    func notAgain(outcome: PromptOutcome) throws {
        let harness = try harness()
        let snapshot = try harness.begin(try harness.localVolume()).snapshotID
        let line = Line(outcome)
        try harness.upload(noise(512, seed: 3), at: 0, to: snapshot, as: context(line))
        #expect(harness.eventually { line.asked.count == 1 })
        Thread.sleep(forTimeInterval: 0.5)
        #expect(line.asked.count == 1)
    }

    @Test("S10, S4: only for a snapshot that takes data, and only where the server asks at all")
    func whom() throws {
        let harness = try harness()
        let volume = try harness.localVolume()
        let first = try harness.begin(volume).snapshotID
        let line = Line(nil)
        try harness.upload(noise(512, seed: 4), at: 0, to: first, as: context(line))
        try harness.delete(first)
        Thread.sleep(forTimeInterval: 0.5)
        #expect(line.asked.isEmpty)
        let silent = try ServiceHarness { $1.promptMilliseconds = 0 }
        let snapshot = try silent.begin(try silent.localVolume()).snapshotID
        try silent.upload(noise(512, seed: 5), at: 0, to: snapshot, as: context(line))
        Thread.sleep(forTimeInterval: 0.3)
        #expect(line.asked.isEmpty)
    }
}
