import CairnCore
import CairnStore
import CairnWire
import Foundation
import Testing

@testable import CairnService

/// Snapshots for which nobody does anything (SPEC S11).
@Suite struct IdleTests {
    private func harness(idle milliseconds: UInt64) throws -> ServiceHarness {
        try ServiceHarness { $1.snapshotIdleMilliseconds = milliseconds }
    }

    private func state(_ harness: ServiceHarness, _ snapshot: [UInt8]) throws -> Wire.SnapshotState {
        try harness.describe(snapshot).state
    }

    @Test(
        "S11, S4: an idle snapshot becomes an error, visible, holds no data, and the next one is earliest and needs a rebase"
    )
    func cancelled() throws {
        let harness = try harness(idle: 1000)
        let volume = try harness.localVolume()
        let first = try harness.begin(volume).snapshotID
        let bytes = noise(65536, seed: 1)
        try harness.upload(bytes, at: 0, to: first)
        let clone = try harness.createVolume(.init(snapshotID: first)).volumeID
        let second = try harness.begin(volume).snapshotID
        #expect(try harness.eventually { try state(harness, first) == .error })
        #expect(try harness.snapshotCount(volume) == 3)
        let next = try harness.describe(second)
        #expect(next.state == .inProgress && next.needsRebase)
        let calls: [() throws -> Void] = [
            { _ = try harness.read(.snapshotID(first), 0, 512) },
            { try harness.upload(bytes, at: 0, to: first) },
            { try harness.report(50, first) },
            { try harness.report(100, first) },
            { _ = try harness.createVolume(.init(snapshotID: first)) },
            { _ = try harness.call(harness.service.missingBlocks, .init(target: .snapshotID(first))) },
        ]
        for body in calls { #expect(refusal(body)?.code == .failedPrecondition) }
        // V5: what was cloned from it keeps what was uploaded.
        #expect(try harness.read(.volumeID(clone), 0, 65536) == bytes)
        try harness.upload(bytes, at: 65536, to: second) {
            $0.rebased = true
            $0.progress = .init(percent: 100)
        }
        #expect(try harness.read(.snapshotID(second), 0, 2 * 65536) == [UInt8](repeating: 0, count: 65536) + bytes)
        #expect(try state(harness, second) == .complete)
        try harness.delete(first)
        #expect(refusal { try harness.describe(first) } == .noSuchSnapshot)
        #expect(try harness.eventually { try harness.store.shards.allSatisfy { try $0.audit().problems.isEmpty } })
    }

    @Test(
        "S11: uploads, reports and answers to prompts are touches; a later one's time begins when it becomes earliest"
    )
    func touches() throws {
        let harness = try harness(idle: 1500)
        let volumes = try (0..<2).map { _ in try harness.localVolume() }
        let uploaded = try harness.begin(volumes[0]).snapshotID
        let reported = try harness.begin(volumes[1]).snapshotID
        let later = try harness.begin(volumes[1]).snapshotID
        let abandoned = try harness.begin(try harness.localVolume()).snapshotID
        let end = Date() + 4
        var count: UInt32 = 0
        while Date() < end {
            try harness.upload(noise(512, seed: UInt64(count)), at: 0, to: uploaded)
            try harness.report(count / 4, reported)
            count += 1
            Thread.sleep(forTimeInterval: 0.1)
        }
        #expect(try harness.eventually { try state(harness, abandoned) == .error })
        #expect(try state(harness, uploaded) == .inProgress)
        #expect(try state(harness, later) == .inProgress)
        try harness.report(100, reported)
        #expect(try state(harness, later) == .inProgress)
        #expect(try harness.eventually { try state(harness, later) == .error })
    }

    @Test("S11: the time goes on over a restart")
    func restart() throws {
        var harness = try harness(idle: 3_600_000)
        let snapshot = try harness.begin(try harness.localVolume()).snapshotID
        harness = try ServiceHarness(restarting: harness) { $1.snapshotIdleMilliseconds = 500 }
        #expect(try harness.eventually { try state(harness, snapshot) == .error })
        harness = try ServiceHarness(restarting: harness) { $1.snapshotIdleMilliseconds = 500 }
        #expect(try state(harness, snapshot) == .error)
        try harness.audit()
    }

    @Test("S11: a touch is written once in a grain; nothing is cancelled before its limit")
    func rule() throws {
        let rule = IdleRule(limitMilliseconds: 72 * 3600 * 1000)
        #expect(rule.grain == 60_000)
        #expect(IdleRule(limitMilliseconds: 800).grain == 100)
        let harness = try ServiceHarness()
        let id = try #require(SnapshotID(bytes: try harness.begin(try harness.localVolume()).snapshotID))
        let shard = try #require(harness.service.shard(of: id.uuid))
        let snapshot = try #require(try shard.makeView().snapshot(id))
        let touched = snapshot.touchedAt
        #expect(!rule.wantsTouch(snapshot, at: touched + 59_999) && rule.wantsTouch(snapshot, at: touched + 60_000))
        let end = touched + rule.limit + rule.grain
        #expect(!rule.isIdle(snapshot, at: end - 1) && rule.isIdle(snapshot, at: end))
    }
}
