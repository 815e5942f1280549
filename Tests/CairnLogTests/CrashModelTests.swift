import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnLog

/// SeededRandom lives of a log on a disk that loses what was not synced: groups, syncs, checkpoints, recycling, kills at any call of
/// the storage, recoveries that are killed too. The oracle: every durable group is recovered, none is torn, changed or foreign,
/// and every record in a live segment reads back.
@Suite struct CrashModelTests {
    private struct Life {
        let storage = SimulatedStorage()
        var random: SeededRandom
        /// What the index would be if it had applied everything; and how much of it was durable.
        var written: [[UInt8]] = []
        var durableCount = 0
        /// The index as it was last flushed.
        var held = ModelIndex()
        /// Record, its content's seed, and the LSN of its group.
        var records: [(location: RecordLocation, content: UInt64, lsn: LSN)] = []

        init(seed: UInt64) { random = SeededRandom(seed: seed) }

        mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

        /// One group of random size; some are never synced.
        mutating func step(_ log: SegmentLog) throws(LogError) {
            let commit = (0..<Int.random(in: 0...3000, using: &random)).map {
                UInt8(truncatingIfNeeded: $0 &+ written.count)
            }
            let sizes = (0..<Int.random(in: 0...3, using: &random)).map { _ in
                Int.random(in: 0...130_000, using: &random)
            }
            let group = try log.makeGroup(
                for: .normal,
                records: sizes.count,
                bytes: sizes.reduce(0, +),
                commit: commit.count
            )
            var added: [(RecordLocation, UInt64, LSN)] = []
            for size in sizes {
                let content = random.next()
                let bytes = pattern(size, content)
                let location =
                    chance(50)
                    ? group.appendChunk(chunkHeader(bytes), bytes) : group.appendPatch(patchHeader(bytes), bytes)
                added.append((location, content, group.lsn))
            }
            try group.finish(commit: commit)
            // From here on the group may be there after a crash.
            written.append(commit)
            records += added.map { (location: $0.0, content: $0.1, lsn: $0.2) }
            _ = try log.write(group, sync: chance(60))
            durableCount = Int(log.durable.rawValue)
        }

        /// The index is flushed, and some old segments are given back.
        mutating func checkpoint(_ log: SegmentLog) throws(LogError) {
            try log.sync()
            durableCount = written.count
            guard let position = log.position else { return }
            held = ModelIndex(commits: written, position: position)
            for segment in log.segments where segment.use == .closed && segment.id != position.segment && chance(70) {
                log.recycle(segment.id, checkpoint: position)
                records.removeAll { $0.location.segment == segment.id }
            }
        }

        /// Recovers as an index would, killed now and then; what was found becomes the truth.
        mutating func recover() throws(LogError) -> SegmentLog {
            while true {
                if chance(40) {
                    storage.inject(.kill(call: Int.random(in: 1...12, using: &random)))
                } else {
                    storage.inject(nil)
                }
                do throws(LogError) {
                    var index = held
                    let recovery = try LogRecovery(
                        storage,
                        identity: identity,
                        options: LogOptions(),
                        from: index.position
                    )
                    while let group = try recovery.next() { index.apply(group) }
                    let live = Set(records.filter { $0.lsn.rawValue <= index.commits.count }.map(\.location.segment))
                    held = index
                    let log = try recovery.begin(durable: index.position, live: live)
                    storage.inject(nil)
                    return log
                } catch {
                    guard case .io = error else { throw error }
                    lose()
                }
            }
        }

        /// The power goes.
        mutating func lose() {
            var random = random
            let keep = [0, 10, 50, 90, 100].randomElement(using: &random)!
            storage.crash { _, _ in Int.random(in: 0..<100, using: &random) < keep }
            self.random = random
        }

        func verify(_ log: SegmentLog, _ seed: UInt64) throws {
            #expect(held.commits.count >= durableCount && held.commits.count <= written.count, "seed \(seed)")
            #expect(held.commits == Array(written.prefix(held.commits.count)), "seed \(seed)")
            for record in records where record.lsn.rawValue <= held.commits.count {
                let read = try log.read(record.location)
                #expect(copy(read.bytes) == copy(pattern(Int(record.location.length), record.content)), "seed \(seed)")
            }
        }
    }

    /// 24 in every run; `CAIRN_CRASH_SEEDS=2000` for more.
    private static let seeds =
        1...(ProcessInfo.processInfo.environment["CAIRN_CRASH_SEEDS"].flatMap { UInt64($0) } ?? 24)

    @Test(arguments: seeds) func randomLives(seed: UInt64) throws {
        var life = Life(seed: seed)
        try LogRecovery.format(life.storage, identity: identity, segmentSize: segmentSize)
        for _ in 0..<8 {
            let log = try life.recover()
            try life.verify(log, seed)
            life.written = life.held.commits
            life.durableCount = life.written.count
            life.records.removeAll { $0.lsn.rawValue > life.written.count }
            if life.chance(70) { life.storage.inject(.kill(call: Int.random(in: 1...60, using: &life.random))) }
            do throws(LogError) {
                for _ in 0..<Int.random(in: 0...30, using: &life.random) {
                    if life.chance(12) { try life.checkpoint(log) } else { try life.step(log) }
                }
                if life.chance(20) {
                    try log.close()
                    life.durableCount = life.written.count
                }
            } catch {
                guard case .io = error else { throw error }
            }
            life.lose()
        }
    }
}
