import CairnCore
import CairnStore
import CairnWire
import Foundation
import Testing

@testable import CairnService

/// Snapshots for which nobody does anything (SPEC S11).
@Suite struct IdleTests {
    private static let hour: UInt64 = 3_600_000

    private func touched(_ harness: ServiceHarness, _ snapshot: [UInt8]) throws -> UInt64 {
        let id = try #require(SnapshotID(bytes: snapshot))
        return try #require(try harness.service.shard(of: id.uuid)?.makeView().snapshot(id)).touchedAt
    }

    private func state(_ harness: ServiceHarness, _ snapshot: [UInt8]) throws -> Wire.SnapshotState {
        try harness.describe(snapshot).state
    }

    @Test(
        "S11, S4: an idle snapshot becomes an error, visible, holds no data, and the next one is earliest and needs a rebase"
    )
    func cancelled() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let first = try harness.begin(volume).snapshotID
        let bytes = noise(65536, seed: 1)
        try harness.upload(bytes, at: 0, to: first)
        let clone = try harness.createVolume(.init(snapshotID: first)).volumeID
        let second = try harness.begin(volume).snapshotID
        harness.service.cancelIdleSnapshots(at: UnixTime.milliseconds + 71 * Self.hour)
        #expect(try state(harness, first) == .inProgress)
        harness.service.cancelIdleSnapshots(at: UnixTime.milliseconds + 73 * Self.hour)
        #expect(try harness.eventually { try state(harness, first) == .error })
        // The second one's time begins now.
        harness.service.cancelIdleSnapshots(at: UnixTime.milliseconds + 140 * Self.hour)
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

    @Test("S11: uploads and reports are touches; a later one's time begins when it becomes the earliest")
    func touches() throws {
        let harness = try ServiceHarness { $1.snapshotIdleMilliseconds = 8 * 20 }
        harness.service.stop()
        let volume = try harness.localVolume()
        let first = try harness.begin(volume).snapshotID
        let later = try harness.begin(volume).snapshotID
        let actions: [() throws -> Void] = [
            { try harness.upload(noise(512, seed: 1), at: 0, to: first) },
            { try harness.report(1, first) },
            { try harness.upload(noise(512, seed: 2), at: 0, to: first) { $0.progress = .init(percent: 2) } },
            {
                _ = try harness.call(
                    harness.service.writeZeroes,
                    .init(target: .init(target: .snapshotID(first)), ranges: [.init(offset: 0, length: 512)])
                )
            },
        ]
        let laterBefore = try touched(harness, later)
        for action in actions {
            let before = try touched(harness, first)
            Thread.sleep(forTimeInterval: 0.03)
            try action()
            #expect(try touched(harness, first) >= before + 30)
        }
        #expect(try touched(harness, later) == laterBefore)
        try harness.report(100, first)
        #expect(try touched(harness, later) > laterBefore)
        let third = try harness.begin(volume).snapshotID
        let thirdBefore = try touched(harness, third)
        Thread.sleep(forTimeInterval: 0.03)
        try harness.delete(later)
        #expect(try touched(harness, third) > thirdBefore)
    }

    @Test("S11: the time goes on over a restart")
    func restart() throws {
        var harness = try ServiceHarness()
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
