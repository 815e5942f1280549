import CairnCore
import CairnCrypto
import CairnTesting
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// Work that cannot be done does not keep other work from being done.
@Suite struct BackgroundTests {
    /// A volume with parts of chunk 0 at its present version.
    private func patched(_ scratch: ScratchStore) throws -> VolumeRecord {
        let volume = try scratch.volume()
        let part = noise(512, 5)
        try scratch.change(records: 1, bytes: 512) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 512, part, of: volume)
        }
        return volume
    }

    @Test("a damaged part of a chunk keeps neither seals nor purges from going on")
    func damagedPart() throws {
        let scratch = try ScratchStore()
        let volume = try patched(scratch)
        let entry = try scratch.shard.makeView().entries(volume.lineage, ChunkIndex(0), upTo: volume.dataVersion)[0]
            .entry
        try scratch.spoil(entry.patches[0])
        let damaged = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: volume, description: "", tags: [:])
        }
        let other = try scratch.volume()
        let data = chunkData(noise(64 << 10, 6))
        try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: other, .data(data))
        }
        let sealed = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(other.id)!, description: "", tags: [:])
        }
        #expect(try scratch.eventually { try scratch.shard.makeView().snapshot(sealed.id)?.seal != nil })
        // Chunk 0 of the other volume is dropped: it must be purged.
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(sealed.id)!)
            try transaction.deleteVolume(try transaction.volume(other.id)!)
        }
        #expect(
            try scratch.eventually {
                try !scratch.shard.makeView().holdsChunk(account: ScratchStore.account, data.fingerprint)
            }
        )
        #expect(try scratch.shard.makeView().snapshot(damaged.id)?.seal == nil)
        #expect(throws: StoreError.self) { try scratch.shard.read(ReadSource(damaged), [0..<65536], acceptsLZ4: false) }
    }

    @Test("a full store can be emptied though a snapshot with parts waits for its seal")
    func fullStore() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) {
            $0.capacityBytes = 8 << 20
            $0.checkpointBytes = 1 << 20
        }
        let keeper = try patched(scratch)
        let victim = try scratch.volume(64 << 20)
        var written = 0
        fill: while written < 1024 {
            let data = chunkData(noise(64 << 10, UInt64(written) + 100))
            let index = ChunkIndex(UInt64(written))
            do {
                try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                    try transaction.writeChunk(index, of: victim, .data(data))
                }
            } catch let error as StoreError where error.code == .full { break fill }
            written += 1
        }
        #expect(written > 10 && written < 1024)
        // Its seal wants to merge the part, and there is no room for that.
        _ = try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(keeper.id)!, description: "", tags: [:])
        }
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteVolume(try transaction.volume(victim.id)!)
        }
        let fits = scratch.eventually {
            let data = chunkData(noise(64 << 10, 7))
            return
                (try? scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                    try transaction.writeChunk(ChunkIndex(9), of: try transaction.volume(keeper.id)!, .data(data))
                }) != nil
        }
        #expect(fits)
    }

    @Test("a store whose second shard is damaged says so, and lets go of the first")
    func damagedShard() throws {
        let folder = NSTemporaryDirectory() + "cairn-damaged-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var creation = StoreCreation()
        creation.shardCount = 2
        creation.segmentBytes = 1 << 20
        try Store.create(at: folder, creation)
        let superblock = URL(fileURLWithPath: folder + "/shard-001/superblock")
        let good = try Data(contentsOf: superblock)
        try Data(repeating: 0x5a, count: good.count).write(to: superblock)
        let error = #expect(throws: StoreError.self) { try Store.open(at: folder) }
        #expect(error?.code == .damaged)
        try good.write(to: superblock)
        try Store.open(at: folder).close()
    }

    // MARK: Turns

    private static let (greedy, small) = (AccountID("greedy")!, AccountID("small")!)

    private func volumes(_ scratch: ScratchStore, _ count: Int, of account: AccountID, chunk: Int = 4096) throws
        -> [VolumeRecord]
    {
        try scratch.change(entries: 8 * count) { (transaction) throws(StoreError) in
            var volumes: [VolumeRecord] = []
            for _ in 0..<count {
                volumes.append(
                    try transaction.createVolume(
                        account: account,
                        kind: .remote,
                        size: 64 << 20,
                        chunkSize: ChunkSize(bytes: chunk)!,
                        source: nil,
                        affinity: [],
                        tags: [:]
                    )
                )
            }
            return volumes
        }
    }

    private func delete(_ scratch: ScratchStore, _ volumes: [VolumeRecord]) throws {
        try scratch.change(entries: 8 * volumes.count, reclaims: true) { (transaction) throws(StoreError) in
            for volume in volumes { try transaction.deleteVolume(try transaction.volume(volume.id)!) }
        }
    }

    @Test(
        "V9, S8: what a snapshot still held when its volume was being trimmed goes with it, though the trim had passed that"
    )
    func deletedDuringTrim() throws {
        let scratch = try ScratchStore { $0.releaseStep = 4 }
        let volume = try scratch.volume(200 * 4096, chunk: 4096)
        try scratch.beforeTheBackground {
            let data = (0..<200).map { chunkData(noise(4096, UInt64($0))) }
            try scratch.change(records: 200, bytes: 200 * 4096, entries: 800) { (transaction) throws(StoreError) in
                for chunk in 0..<200 {
                    try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data[chunk]))
                }
            }
            let snapshot = try scratch.change { (transaction) throws(StoreError) in
                try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
            }
            try delete(scratch, [volume])
            var (isDone, steps) = (false, 0)
            var place = ReleaseCursor()
            while !isDone, steps < 1000 {
                (isDone, place) = try scratch.change(entries: 64, reclaims: true) {
                    [place] (transaction) throws(StoreError) in
                    var place = place
                    let isDone = try transaction.trimStep(volume.lineage, &place)
                    return (isDone, place)
                }
                steps += 1
                // It has passed a third of them, and kept all of these.
                guard steps == 1 else { continue }
                #expect(!isDone && place.hasKept)
                try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
                    try transaction.deleteSnapshot(snapshot)
                }
            }
            #expect(isDone && steps > 50, "a few at a time")
        } _: { _ in
        }
        let audit = try scratch.shard.audit()
        #expect(audit.problems == [] && audit.entries == 0)
        #expect(try scratch.isEmpty(.manifests) && scratch.isEmpty(.written) && scratch.isEmpty(.lineages))
    }

    @Test("S8: which versions must stay is found, whatever was asked before and changed meanwhile")
    func retainedVersions() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        var random = SeededRandom(seed: 97)
        var kept: Set<UInt64> = []
        // As the volume has it.
        for version in UInt64(0)...64 {
            let isKept = try scratch.change { (transaction) throws(StoreError) in
                try transaction.isRetained(volume.lineage, from: DataVersion(version), before: DataVersion(version + 1))
            }
            if isKept { kept.insert(version) }
        }
        for _ in 0..<20 {
            let plan = (0..<40).map { _ in
                (version: random.next() % 64 + 3, asks: random.next() % 3 > 0, until: random.next() % 70)
            }
            let before = kept
            let (after, wrong) = try scratch.change(entries: 200) { (transaction) throws(StoreError) in
                var (kept, wrong) = (before, 0)
                for (version, asks, until) in plan {
                    guard asks else {
                        kept.formSymmetricDifference([version])
                        let isKept = kept.contains(version)
                        try transaction.changeRetained(volume.lineage, DataVersion(version)) { $0.hasSnapshot = isKept }
                        continue
                    }
                    let next = kept.filter { $0 >= version }.min()
                    let found = try transaction.nextRetained(volume.lineage, from: DataVersion(version))
                    let isRetained = try transaction.isRetained(
                        volume.lineage,
                        from: DataVersion(version),
                        before: DataVersion(until)
                    )
                    let newest = try transaction.newestRetained(volume.lineage)
                    if found?.rawValue != next || isRetained != (next.map { $0 < until } ?? false) { wrong += 1 }
                    if newest?.rawValue != kept.max() { wrong += 1 }
                }
                return (kept, wrong)
            }
            kept = after
            #expect(wrong == 0)
        }
    }

    @Test("R3: parts that a quota kept from being merged are merged when there is room for them again")
    func mergesAfterTheQuota() throws {
        let scratch = try ScratchStore()
        let isAllowed = Mutex(false)
        scratch.store.growth.set { _, _ in isAllowed.withLock(\.self) }
        let volume = try scratch.volume(16 << 20, chunk: 1 << 20)
        for part in 0..<20 {
            try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
                try transaction.writePatch(at: UInt64(part) * 8192, noise(4096, UInt64(part)), of: WriteTarget(volume))
            }
        }
        let background = scratch.shard.background!
        let isRefused = try scratch.beforeTheBackground {
        } _: { background throws(StoreError) in
            try background.mergeListed()
            return !background.refusedMerges.isEmpty
        }
        #expect(isRefused)
        isAllowed.withLock { $0 = true }
        background.queue.async { background.refusedMergesUntil = 0 }
        #expect(try scratch.eventually { try scratch.isEmpty(.patched) })
    }

    @Test("R3: a deletion is carried out in the first round, though another account's backlog takes more than that")
    func releasesTakeTurns() throws {
        let scratch = try ScratchStore(segmentBytes: 16 << 20)
        let many = try volumes(scratch, 300, of: Self.greedy)
        let one = try volumes(scratch, 1, of: Self.small)
        let lineages = (many + one).map(\.lineage)
        let left = try scratch.beforeTheBackground {
            try delete(scratch, many)
            try delete(scratch, one)
        } _: { background throws(StoreError) in
            background.releases.restart()
            try background.release()
            let view = background.shard.makeView()
            var left: [LineageID] = []
            for lineage in lineages where try view.index.get(Key.lineage(lineage)) != nil { left.append(lineage) }
            return left
        }
        #expect(!left.contains(one[0].lineage) && left.count > 10)
        #expect(try scratch.eventually { try scratch.isEmpty(.lineages) && scratch.isEmpty(.work) })
    }

    @Test("S6, R3: a snapshot is sealed in the first round, though another account has many that were complete before")
    func sealsTakeTurns() throws {
        let scratch = try ScratchStore(segmentBytes: 16 << 20)
        let (many, one) = (try volumes(scratch, 1, of: Self.greedy)[0], try volumes(scratch, 1, of: Self.small)[0])
        #expect(try scratch.eventually { try scratch.isEmpty(.work) })
        let made = Mutex<[SnapshotID]>([])
        let sealed = try scratch.beforeTheBackground {
            let snapshots = try scratch.change(entries: 800) { (transaction) throws(StoreError) in
                var snapshots: [SnapshotID] = []
                for volume in Array(repeating: many, count: 100) + [one] {
                    let present = try transaction.volume(volume.id)!
                    snapshots.append(try transaction.createSnapshot(of: present, description: "", tags: [:]).id)
                }
                return snapshots
            }
            made.withLock { $0 = snapshots }
        } _: { background throws(StoreError) in
            background.seals.restart()
            try background.sealSnapshots()
            let view = background.shard.makeView()
            var sealed: [Bool] = []
            for id in made.withLock({ $0 }) { sealed.append(try view.snapshot(id)?.seal != nil) }
            return sealed
        }
        #expect(sealed.last == true && sealed.count { $0 } < 50)
        // Each one's in their order.
        #expect(sealed.first == true)
        #expect(try scratch.eventually { try scratch.isEmpty(.work) })
    }

    @Test("R3: parts of chunks are merged some in a round, and those of another volume are among them")
    func mergesTakeTurns() throws {
        let scratch = try ScratchStore(segmentBytes: 32 << 20)
        let large = 4 << 20
        let many = try volumes(scratch, 1, of: Self.greedy, chunk: large)[0]
        let one = try volumes(scratch, 1, of: Self.small, chunk: large)[0]
        let places = (0..<8).map {
            PatchedPlace(lineage: many.lineage, version: many.dataVersion, chunk: ChunkIndex($0))
        }
        let last = PatchedPlace(lineage: one.lineage, version: one.dataVersion, chunk: ChunkIndex(7))
        let part = noise(512, 9)
        let left = try scratch.beforeTheBackground {
            try scratch.change(records: 9, bytes: 9 * 512, entries: 32) { (transaction) throws(StoreError) in
                for place in places {
                    try transaction.writePatch(at: place.chunk.rawValue * UInt64(large), part, of: many)
                }
                try transaction.writePatch(at: 7 * UInt64(large), part, of: one)
            }
        } _: { background throws(StoreError) in
            _ = background.merges.takeAll()
            background.merges.add(places + [last])
            try background.mergeListed()
            let view = background.shard.makeView()
            var left: [LineageID] = []
            for place in places + [last] {
                let entry = try view.entries(place.lineage, place.chunk, upTo: place.version, all: false).first
                if entry?.entry.patches.isEmpty == false { left.append(place.lineage) }
            }
            return left
        }
        #expect(!left.isEmpty && left.count < 9 && !left.contains(one.lineage))
        #expect(try scratch.eventually { try scratch.isEmpty(.patched) })
    }

    @Test("S6: a seal is computed in steps, and is what its chunks give at once")
    func sealSteps() throws {
        let scratch = try ScratchStore(segmentBytes: 16 << 20)
        let volume = try volumes(scratch, 1, of: Self.small)[0]
        let data = chunkData(noise(4096, 3))
        try scratch.change(records: 1, bytes: 4096, entries: 5100) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(5000), of: volume, .data(data))
            for chunk in 0..<5000 { try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .zeros) }
        }
        let snapshot = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
        }
        var walk = try SealWalk(shard: scratch.shard, snapshot: snapshot)
        var steps = 0
        var sealed: SealWalk.Sealed?
        while sealed == nil, steps < 10 {
            sealed = try walk.step()
            steps += 1
        }
        var expected = SealBuilder(size: snapshot.size, chunkSize: snapshot.chunkSize)
        expected.add(zeros: 5000)
        expected.add(data.fingerprint)
        expected.add(zeros: expected.leafCount - 5001)
        #expect(steps == 2 && sealed?.seal == expected.finish())
        #expect(sealed?.owners == [OwnerBytes(owner: Self.small, bytes: 4096)])
        #expect(try scratch.eventually { try scratch.shard.makeView().snapshot(snapshot.id)?.seal == sealed?.seal })
    }

    @Test("R3: lanes take turns, keep each account's order beyond what they hold in memory, and resume what gave way")
    func lanes() throws {
        let scratch = try ScratchStore(segmentBytes: 16 << 20)
        let (many, one) = (try volumes(scratch, 1, of: Self.greedy)[0], try volumes(scratch, 1, of: Self.small)[0])
        #expect(try scratch.eventually { try scratch.isEmpty(.work) })
        let ran = try scratch.beforeTheBackground {
            try scratch.change(entries: 2000) { (transaction) throws(StoreError) in
                for volume in Array(repeating: many, count: 200) + [one, one] + Array(repeating: many, count: 20) {
                    _ = try transaction.createSnapshot(
                        of: try transaction.volume(volume.id)!,
                        description: "",
                        tags: [:]
                    )
                }
            }
        } _: { background throws(StoreError) in
            var lanes = WorkLanes<Int>(mostBegun: 1) { $0.isSeal }
            var ran: [(number: UInt64, steps: Int)] = []
            try lanes.look(background.shard)
            while let turn = lanes.next() {
                // Those of even numbers take three steps.
                let steps = (turn.progress ?? 0) + 1
                if turn.number.isMultiple(of: 2), steps < 3 {
                    lanes.giveWay(steps)
                } else {
                    ran.append((turn.number, steps))
                    try lanes.finish(background.shard)
                }
                try lanes.look(background.shard)
            }
            return ran
        }
        let first = try #require(ran.map(\.number).min())
        let own = (first + 200)...(first + 201)
        #expect(ran.map(\.number).filter { !own.contains($0) } == (first..<first + 222).filter { !own.contains($0) })
        #expect(ran.map(\.number).filter { own.contains($0) } == Array(own))
        #expect(ran.allSatisfy { $0.steps == ($0.number.isMultiple(of: 2) ? 3 : 1) })
        // The two of the small account are among the first.
        #expect(try #require(ran.lastIndex { own.contains($0.number) }) < 8)
    }
}
