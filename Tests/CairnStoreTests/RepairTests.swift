import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnLog
@testable import CairnStore

/// A lost or damaged index is made anew, and it is said what was done.
@Suite struct RepairTests {
    private func image() throws -> RepairImage { try RepairImage(copy: RepairImage.shared.get()) }

    /// The error of opening the store; nil where it opens.
    private func refusal(_ image: RepairImage) -> StoreError? {
        do throws(StoreError) { try Store.open(at: image.folder).close() } catch { return error }
        return nil
    }

    @Test("what is whole is left as it is, and said to be")
    func healthy() throws {
        let image = try image()
        let report = try image.repair()
        #expect(report.outcome == .healthy && report.findings.isEmpty && report.actions.isEmpty, "\(report)")
        #expect(report.lsn == image.history.last!.position.lsn.rawValue)
        #expect(try image.problems() == [])
    }

    @Test(
        "without its index a store does not open, and names what to do; repair makes it anew from the newest copy; again: nothing"
    )
    func missing() throws {
        let image = try image()
        try FileManager.default.removeItem(atPath: image.index)
        let error = try #require(refusal(image))
        #expect(error.code == .damaged && error.text.contains("cairnd repair") && error.text.contains("shard 0"))
        let dry = try image.repair { $0.dryRun = true }
        #expect(dry.outcome == .repairable && dry.actions.contains { $0.contains("checkpoint 2") })
        #expect(!FileManager.default.fileExists(atPath: image.index))
        let report = try image.repair()
        #expect(report.outcome == .repaired && report.replayedCommits >= 44, "\(report)")
        #expect(report.actions.contains { $0.contains("checkpoint 2") })
        #expect(report.lsn == image.history.last!.position.lsn.rawValue)
        let again = try image.repair()
        #expect(again.outcome == .healthy && again.replayedCommits == 0, "\(again)")
        #expect(try image.problems() == [])
    }

    @Test("each file of the index flipped, cut, zeroed or removed: it is found, and mended, and the old one is kept")
    func damagedFiles() throws {
        let names = try RepairImage.shared.get().files(RepairImage.shared.get().index).map {
            ($0 as NSString).lastPathComponent
        }
        #expect(names.count >= 3)
        var kept = 0
        for name in names {
            for damage in ["flip", "cut", "zero", "remove"] {
                let image = try image()
                let path = image.index + "/" + name
                let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as! Int
                switch damage {
                case "flip": try RepairImage.flip(path, at: size / 3)
                case "cut": truncate(path, size / 2)
                case "zero": try Data(count: size).write(to: URL(fileURLWithPath: path))
                default: try FileManager.default.removeItem(atPath: path)
                }
                let report = try image.repair()
                #expect(report.outcome == .repaired && !report.findings.isEmpty, "\(damage) of \(name): \(report)")
                if FileManager.default.fileExists(atPath: image.shard + "/index.bad-1") { kept += 1 }
                #expect(try image.problems() == [], "\(damage) of \(name)")
            }
        }
        #expect(kept == names.count * 4)
    }

    @Test(
        "a damaged copy is moved aside, and the older one is taken; without any, the log from its beginning; without that, nothing"
    )
    func fallback() throws {
        let image = try image()
        try FileManager.default.removeItem(atPath: image.index)
        let copies = try image.checkpoints()
        #expect(copies.count == 2)
        try RepairImage.flip(try #require(image.files(copies[1]).first { $0.contains("MANIFEST") }), at: 40)
        let older = try image.repair()
        #expect(older.outcome == .repaired && older.actions.contains { $0.contains("checkpoint 1 (") }, "\(older)")
        #expect(FileManager.default.fileExists(atPath: copies[1] + ".bad"))
        #expect(try image.problems() == [])

        try FileManager.default.removeItem(atPath: image.index)
        try RepairImage.flip(copies[0] + "/contents", at: 20)
        let bare = try image.repair()
        #expect(bare.outcome == .repaired && bare.actions.contains { $0.contains("from its beginning") }, "\(bare)")
        #expect(try image.problems() == [])

        try FileManager.default.removeItem(atPath: image.index)
        try FileManager.default.removeItem(atPath: image.segment(SegmentID(1)))
        let none = try image.repair()
        #expect(none.outcome == .beyondRepair && none.actions.isEmpty, "\(none)")
        #expect(refusal(image)?.code == .damaged)
    }

    @Test(
        "rot of a commit in the middle of the tail is told from the log's end: how much is lost, and nothing is done unasked"
    )
    func lostCommits() throws {
        let image = try image()
        try FileManager.default.removeItem(atPath: image.index)
        let (before, lost) = (image.history[9], image.history[10].position)
        // The commit record is the last of the group.
        try wipeGroup(of: image, before: before.position, lost)
        let last = image.history.last!.position.lsn.rawValue
        let refused = try image.repair()
        #expect(refused.outcome == .wouldLose && refused.actions.isEmpty, "\(refused)")
        #expect(refused.lost?.firstLSN == lost.lsn.rawValue && refused.lost?.lastLSN == last, "\(refused)")
        #expect(refused.lost?.commits == last - lost.lsn.rawValue + 1)
        #expect(!FileManager.default.fileExists(atPath: image.index))
        let report = try image.repair { $0.acceptLoss = true }
        #expect(report.outcome == .repaired && report.lsn == before.position.lsn.rawValue, "\(report)")
        #expect(try image.problems(before.content) == [])
        // The log that goes on from there is one that later repairs can read.
        try FileManager.default.removeItem(atPath: image.index)
        let again = try image.repair()
        #expect(again.outcome == .repaired && again.lost == nil, "\(again)")
        #expect(try image.problems(before.content) == [])
    }

    /// Zeros over all of the group that ends at `position`.
    private func wipeGroup(of image: RepairImage, before: LogPosition, _ position: LogPosition) throws {
        let start = before.segment == position.segment ? Int(before.offset) : Format.block
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: image.segment(position.segment)))
        try file.seek(toOffset: UInt64(start))
        try file.write(contentsOf: Data(count: Int(position.offset) - start))
        try file.close()
    }

    @Test("rot of a chunk, or of a group's header, in the tail costs no commit: the rest of the group counts")
    func lostRecords() throws {
        for (offset, isHeader) in [(4096 + 300, false), (20, true)] {
            let image = try image()
            let (before, hit) = (image.history[9].position, image.history[10].position)
            let start = before.segment == hit.segment ? Int(before.offset) : Format.block
            try RepairImage.flip(image.segment(hit.segment), at: start + offset)
            // So that the index wants this group.
            try FileManager.default.removeItem(atPath: image.index)
            let report = try image.repair()
            #expect(report.outcome == .repaired && report.damagedGroups == 1 && report.lost == nil, "\(report)")
            let changed = image.history[10].content.first { image.history[9].content[$0.key] != $0.value }!.key
            let isStill = image.content[changed] == image.history[10].content[changed]
            #expect(try image.problems(damaged: isStill && !isHeader ? [changed] : []) == [])
        }
    }

    @Test("a repair that is killed before any of its steps, or in the middle of one, can be run again")
    func killed() throws {
        struct Killed: Error {}
        var steps = 0
        for kill in 0..<20 {
            let image = try image()
            try Data(count: 100).write(to: URL(fileURLWithPath: image.index + "/CURRENT"))
            let counter = StepCounter()
            do {
                _ = try image.repair { options in
                    options.step = { (_) throws(StoreError) in
                        if counter.next() == kill { throw StoreError(.aborted, "killed") }
                    }
                }
                steps = kill
            } catch { #expect((error as? StoreError)?.code == .aborted) }
            let report = try image.repair()
            #expect(report.outcome == (steps > 0 ? .healthy : .repaired), "step \(kill): \(report)")
            #expect(try image.problems() == [], "step \(kill)")
            if steps > 0 { break }
        }
        #expect(steps >= 3)
    }

    @Test("one rotten slot of the superblock is written again from the other")
    func superblock() throws {
        let image = try image()
        try RepairImage.flip(image.shard + "/superblock", at: 4096 + 100)
        #expect(try image.repair().outcome == .repaired)
        try RepairImage.flip(image.shard + "/superblock", at: 100)
        #expect(try image.repair().outcome == .repaired)
        #expect(try image.repair().outcome == .healthy)
        #expect(try image.problems() == [])
    }
}

/// Counts from 0, from any thread.
final class StepCounter: @unchecked Sendable {
    // Safety: a repair runs on one thread.
    private var count = 0
    func next() -> Int {
        defer { count += 1 }
        return count
    }
}
