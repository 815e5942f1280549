import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnLog
@testable import CairnStore

/// Copies of the index: how they are made, kept, and what they hold back.
@Suite struct CheckpointTests {
    @Test("contents: golden bytes, and nothing damaged is taken for whole")
    func contents() throws {
        let contents = CheckpointContents(
            identity: LogIdentity(store: UUID128(high: 1, low: 2), shard: ShardIndex(3)),
            position: LogPosition(lsn: LSN(4), epoch: Epoch(5), segment: SegmentID(6), offset: 8192),
            logBytes: 7,
            madeAt: 8,
            database: "d",
            files: [.init(name: "CURRENT", bytes: 16, checksum: 0x0102_0304)]
        )
        let golden =
            "434149524e434b5001000000" + "00000000000000010000000000000002" + "0300" + "0400000000000000"
            + "0500000000000000" + "06000000" + "00200000" + "0700000000000000" + "0800000000000000"
            + "0100000064" + "01000000" + "0700000043555252454e54" + "1000000000000000" + "04030201"
        let hex = contents.encoded.map { (byte: UInt8) in String(format: "%02x", byte) }.joined()
        #expect(hex.dropLast(8) == golden)
        #expect(CheckpointContents.decode(contents.encoded) == contents)
        for at in contents.encoded.indices {
            var spoilt = contents.encoded
            spoilt[at] ^= 1
            #expect(CheckpointContents.decode(spoilt) == nil, "byte \(at)")
            #expect(CheckpointContents.decode(Array(contents.encoded[..<at])) == nil)
        }
    }

    private func write(_ scratch: ScratchStore, _ volume: VolumeRecord, _ range: Range<Int>) throws {
        for number in range {
            let data = chunkData(noise(64 << 10, UInt64(number) + 1))
            try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(UInt64(number % 64)), of: volume, .data(data))
            }
        }
    }

    @Test(
        "a copy is made after so much log; two are kept; unchanged tables are shared between them, never with the index"
    )
    func due() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.indexBackupBytes = 2 << 20 }
        let volume = try scratch.volume()
        let folder = scratch.shard.checkpoints.folder
        for round in 0..<4 {
            let newest = folder.checkpoints.last?.number ?? 0
            try write(scratch, volume, round * 40..<(round + 1) * 40)
            #expect(scratch.eventually { (folder.checkpoints.last?.number ?? 0) > newest }, "round \(round)")
        }
        #expect(scratch.eventually { folder.checkpoints.count == 2 && !scratch.shard.checkpoints.isRunning })
        scratch.shard.background.stop()
        func inodes(_ path: String) throws -> Set<UInt64> {
            let names = try FileManager.default.contentsOfDirectory(atPath: path)
            return Set(
                try names.map {
                    try FileManager.default.attributesOfItem(atPath: path + "/" + $0)[.systemFileNumber] as! UInt64
                }
            )
        }
        let index = try inodes(scratch.folder + "/shard-000/index")
        for checkpoint in folder.checkpoints {
            #expect(folder.verify(checkpoint) == [])
            #expect(try inodes(folder.folder(checkpoint.number)).isDisjoint(with: index))
        }
    }

    @Test("a copy that is given up half-way, or killed, leaves nothing that counts; the next one is whole")
    func interrupted() throws {
        let scratch = try ScratchStore { $0.indexBackupBytes = 1 << 40 }
        let volume = try scratch.volume()
        try write(scratch, volume, 0..<20)
        let (shard, index) = (scratch.shard, scratch.folder + "/shard-000/index")
        // Nothing writes any more.
        shard.background.stop()
        try shard.background.flushIndex()
        let folder = shard.checkpoints.folder
        #expect(throws: StoreError.self) {
            _ = try folder.make(of: shard.database, in: index) { (_) throws(StoreError) in
                throw StoreError(.aborted, "killed")
            }
        }
        #expect(folder.checkpoints.isEmpty)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
        // As a kill leaves it.
        for name in ["copy.new", "links.new", "00000001.old"] {
            try FileManager.default.createDirectory(atPath: folder.path + "/" + name, withIntermediateDirectories: true)
            try Data(count: 10).write(to: URL(fileURLWithPath: folder.path + "/" + name + "/CURRENT"))
        }
        let made = try folder.make(of: shard.database, in: index) { (_) throws(StoreError) in }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["00000001"])
        #expect(folder.verify(made) == [] && made.contents.position == shard.log.position)
        let read = try CheckpointFolder(shard: scratch.folder + "/shard-000", identity: made.contents.identity)
        #expect(read.checkpoints == [made])
    }

    @Test(
        "segments that a kept copy wants are not recycled, also over restarts; where room is short, newer copies free them"
    )
    func holding() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.indexBackupBytes = 1 << 40 }
        let volume = try scratch.volume()
        try write(scratch, volume, 0..<64)
        try RepairImage.copyIndex(of: flushed(scratch))
        let held = scratch.shard.checkpoints.folder.retention
        // Everything is written over: what was written between is dead.
        try write(scratch, volume, 1000..<1192)
        for restart in 0..<3 {
            if restart > 0 { try scratch.reopen { $0.indexBackupBytes = 1 << 40 } }
            _ = scratch.eventually(2) { false }
            #expect(scratch.shard.checkpoints.folder.retention == held)
            let log = scratch.shard.log
            let wanted = log.segments.filter { $0.use != .free }.count
            #expect(wanted >= 12, "restart \(restart): \(wanted)")
        }
        // A full log: copies are made until what holds nothing is free.
        try scratch.reopen { options in
            options.indexBackupBytes = 1 << 40
            options.capacityBytes = 20 << 20
        }
        #expect(scratch.eventually(30) { scratch.shard.log.segments.count { $0.use == .closed } <= 7 })
        #expect(scratch.shard.checkpoints.folder.checkpoints.count == 2)
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("a copy that a start cannot read is not taken for damaged: all of the log is kept, and it counts again")
    func unread() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.indexBackupBytes = 1 << 40 }
        let volume = try scratch.volume()
        try write(scratch, volume, 0..<64)
        try RepairImage.copyIndex(of: flushed(scratch))
        let held = scratch.shard.checkpoints.folder.retention
        let before = scratch.shard.checkpoints.folder.checkpoints.count
        let made = try #require(scratch.shard.checkpoints.folder.checkpoints.first)
        let contents = scratch.shard.checkpoints.folder.folder(made.number) + "/contents"
        // Reading a folder fails with another error than what is missing or wrong.
        try FileManager.default.moveItem(atPath: contents, toPath: contents + ".away")
        try FileManager.default.createDirectory(atPath: contents, withIntermediateDirectories: false)
        try scratch.reopen { $0.indexBackupBytes = 1 << 40 }
        #expect(scratch.shard.checkpoints.folder.checkpoints.count == before - 1)
        #expect(scratch.shard.checkpoints.folder.damaged == [made.number])
        #expect(scratch.shard.checkpoints.folder.retention == .all)
        // Another copy, which alone would hold back less.
        try RepairImage.copyIndex(of: flushed(scratch))
        #expect(scratch.shard.checkpoints.folder.retention == .all)
        try FileManager.default.removeItem(atPath: contents)
        try FileManager.default.moveItem(atPath: contents + ".away", toPath: contents)
        try scratch.reopen { $0.indexBackupBytes = 1 << 40 }
        let folder = scratch.shard.checkpoints.folder
        #expect(folder.damaged == [] && folder.checkpoints.first == made && folder.retention == held)
        // For room it is the first to go.
        try FileManager.default.removeItem(atPath: contents)
        try FileManager.default.createDirectory(atPath: contents, withIntermediateDirectories: false)
        try scratch.reopen { $0.indexBackupBytes = 1 << 40 }
        #expect(scratch.shard.checkpoints.folder.damaged == [made.number])
        try FileManager.default.removeItem(atPath: contents)
        try scratch.shard.checkpoints.folder.giveUpOldest()
        #expect(scratch.shard.checkpoints.folder.damaged == [])
        #expect(scratch.shard.checkpoints.folder.checkpoints.count == 1)
        #expect(scratch.shard.checkpoints.folder.retention != .all)
    }

    @Test(
        "what is recycled while the first copy is made leaves it the log that it needs; so does what is freed after a restart"
    )
    func recycling() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { options in
            options.indexBackupBytes = 1 << 40
            options.leaseTime = .seconds(3600)
        }
        let volume = try scratch.volume()
        func write(_ seed: UInt64) throws {
            for chunk in 0..<UInt64(64) {
                let part = noise(32 << 10, seed + chunk)
                try scratch.change(records: 1, bytes: part.count) { (transaction) throws(StoreError) in
                    try transaction.writePatch(at: chunk * (64 << 10), part, of: volume)
                }
            }
        }
        let (shard, background) = (scratch.shard, scratch.shard.background!)
        let folder = shard.checkpoints.folder
        background.stop()
        try folder.setGivenUp(true)
        try write(100)
        try background.flushIndex()
        folder.begin(at: try #require(background.durable))
        var isFirst = true
        _ = try folder.make(of: shard.database, in: scratch.folder + "/shard-000/index") { (_) throws(StoreError) in
            guard isFirst else { return }
            isFirst = false
            do {
                // Each frees what was written before it, also before the copy.
                for seed in [1000, 2000, 3000] as [UInt64] {
                    try write(seed)
                    try background.flushIndex()
                    try background.reclaimSegments()
                }
            } catch { throw StoreError(.invalid, "\(error)") }
        }
        folder.end()
        #expect(!isFirst && shard.log.segments.contains { $0.use == .free })
        let image = NSTemporaryDirectory() + "cairn-recycling-" + UUID().uuidString
        defer { remove(folder: image) }
        try FileManager.default.copyItem(atPath: scratch.folder, toPath: image)
        try FileManager.default.removeItem(atPath: image + "/shard-000/index")
        var report: ShardRepair?
        try Store.repair(at: image) { report = $0 }
        #expect(report?.outcome == .repaired && report?.lost == nil, "\(String(describing: report))")
        #expect(report?.lsn == shard.log.position?.lsn.rawValue)
        // After a restart what no copy wants is given back without a write that makes the index durable.
        _ = try folder.make(of: shard.database, in: scratch.folder + "/shard-000/index") { (_) throws(StoreError) in }
        try folder.giveUpOldest()
        try scratch.reopen { options in
            options.indexBackupBytes = 1 << 40
            options.leaseTime = .seconds(3600)
        }
        #expect(scratch.eventually { scratch.shard.log.segments.count { $0.use == .closed } <= 5 })
    }

    @Test("a rotten copy is found by a scrub, and made anew")
    func rot() throws {
        let scratch = try ScratchStore { $0.indexBackupBytes = 1 << 40 }
        let volume = try scratch.volume()
        for round in 0..<2 {
            try write(scratch, volume, round * 20..<(round + 1) * 20)
            try RepairImage.copyIndex(of: flushed(scratch))
        }
        let folder = scratch.shard.checkpoints.folder
        let older = try #require(folder.checkpoints.first)
        #expect(folder.checkpoints.count == 2)
        #expect(try scratch.scrub().indexProblem == nil)
        #expect(folder.checkpoints.first == older)
        // The second has it too: tables are shared.
        let table = try #require(older.contents.files.first { $0.name.hasSuffix(".sst") })
        try RepairImage.flip("\(folder.folder(older.number))/\(table.name)", at: Int(table.bytes) / 2)
        let problem = try scratch.scrub().indexProblem
        #expect(problem?.contains("checkpoint \(older.number): \(table.name)") == true, "\(problem ?? "nothing")")
        #expect(!folder.checkpoints.contains(older))
        #expect(scratch.eventually { !folder.checkpoints.isEmpty && !scratch.shard.checkpoints.isWanted })
        #expect(folder.checkpoints.allSatisfy { folder.verify($0).isEmpty })
    }

    private func flushed(_ scratch: ScratchStore) throws -> ScratchStore {
        try scratch.shard.background.flushIndex()
        return scratch
    }

    @Test(
        "rotten contents of a copy are found by a scrub, also where they were rotten when the store was opened",
        arguments: [false, true]
    )
    func rottenContents(isReopened: Bool) throws {
        let configure: (inout StoreOptions) -> Void = { $0.indexBackupBytes = 1 << 40 }
        let scratch = try ScratchStore(configure)
        try write(scratch, try scratch.volume(), 0..<20)
        try RepairImage.copyIndex(of: flushed(scratch))
        let copy = try #require(scratch.shard.checkpoints.folder.checkpoints.first)
        let path = scratch.shard.checkpoints.folder.folder(copy.number)
        try RepairImage.flip("\(path)/contents", at: 12)
        if isReopened { try scratch.reopen(configure) }
        let problem = try scratch.scrub().indexProblem
        #expect(problem?.contains("checkpoint \(copy.number)") == true && problem?.contains("contents") == true)
        #expect(!FileManager.default.fileExists(atPath: path))
        #expect(try scratch.scrub().indexProblem == nil)
    }

    @Test("restarts without a write leave no segment behind that copies hold")
    func emptyEpochs() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.indexBackupBytes = 1 << 40 }
        let volume = try scratch.volume()
        // More than half of a segment: compaction, which would write, and so leave a segment with each start, lets it be.
        try write(scratch, volume, 0..<12)
        #expect(try scratch.eventually { try scratch.isEmpty(.work) })
        try RepairImage.copyIndex(of: flushed(scratch))
        let written = scratch.shard.log.position?.lsn
        for _ in 0..<12 { try scratch.reopen { $0.indexBackupBytes = 1 << 40 } }
        #expect(scratch.shard.log.position?.lsn == written)
        #expect(scratch.shard.log.segments.count { $0.use == .closed } <= 2)
    }
}
