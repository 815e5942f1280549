import CairnCore
import CairnCrypto
import CairnLog
import Foundation
import Testing

@testable import CairnStore

@Suite struct DamageTests {
    private func write(_ scratch: ScratchStore, _ volume: VolumeRecord, _ chunks: [UInt64: UInt64]) throws {
        for (chunk, seed) in chunks {
            let data = chunkData(noise(64 << 10, seed))
            try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(chunk), of: volume, .data(data))
            }
        }
    }

    private func read(_ scratch: ScratchStore, _ volume: VolumeRecord, _ chunk: UInt64) throws(StoreError) {
        let start = chunk * (64 << 10)
        _ = try scratch.shard.read(ReadSource(volume), [start..<start + (64 << 10)], acceptsLZ4: false)
    }

    private func damage(_ scratch: ScratchStore, _ volume: VolumeRecord) throws -> [UInt64] {
        let end = ChunkIndex(volume.chunkSize.count(for: volume.size))
        return try scratch.shard.makeView().damage(
            of: ReadSource(volume),
            in: ChunkIndex(0)..<end,
            limit: 1000,
            looking: 1000,
            rule: nil
        ).found.map(\.chunk.rawValue)
    }

    @Test("D4: what a read finds damaged is remembered; the same data uploaded again heals it wherever it is named")
    func readMarksUploadHeals() throws {
        let scratch = try ScratchStore()
        let (first, second) = (try scratch.volume(), try scratch.volume())
        try write(scratch, first, [0: 1, 1: 2])
        try write(scratch, second, [5: 1])
        let token = chunkData(noise(64 << 10, 1)).fingerprint
        let key = ChunkKey(own: AccountNumber(rawValue: 1), token)
        let before = try #require(try scratch.shard.makeView().chunk(key))
        try scratch.spoil(Patch(start: 0, location: before.location))
        #expect(throws: StoreError.self) { try read(scratch, first, 0) }
        #expect(try scratch.eventually { try damage(scratch, first) == [0] })
        #expect(try damage(scratch, second) == [5])
        #expect(try scratch.shard.pin(account: ScratchStore.account, [token]) == [false])
        #expect(try scratch.shard.chunkShapes(account: ScratchStore.account, [token]) == [nil])
        #expect(throws: StoreError.self) {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(9), of: first, .token(token))
            }
        }
        let leased = try scratch.change { (transaction) throws(StoreError) in
            try transaction.lease(token, account: ScratchStore.account, until: 1)
        }
        #expect(!leased)
        // At its own place, where the manifest need not change at all.
        try write(scratch, first, [0: 1])
        try read(scratch, first, 0)
        try read(scratch, second, 5)
        #expect(try damage(scratch, first) == [] && damage(scratch, second) == [])
        let after = try #require(try scratch.shard.makeView().chunk(key))
        #expect(after.references == before.references && after.location != before.location)
        #expect(try scratch.shard.pin(account: ScratchStore.account, [token]) == [true])
        #expect(try scratch.isEmpty(.damagedChunks))
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("S6, D4: a snapshot that cannot be sealed for damage is sealed when that is healed, also after a restart")
    func sealedWhenHealed() throws {
        let scratch = try ScratchStore { $0.sealRetry = .milliseconds(20) }
        let (volume, other) = (try scratch.volume(), try scratch.volume())
        try write(scratch, volume, [0: 1, 1: 2])
        let token = chunkData(noise(64 << 10, 1)).fingerprint
        let key = ChunkKey(own: AccountNumber(rawValue: 1), token)
        try scratch.spoil(Patch(start: 0, location: try #require(try scratch.shard.makeView().chunk(key)).location))
        // A part over it: what it makes of the chunk is not known before both are read.
        let part = noise(512, 3)
        try scratch.change(records: 1, bytes: 512) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 1024, part, of: volume)
        }
        let id = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
        }.id
        func seal() throws -> Fingerprint? { try scratch.shard.makeView().snapshot(id)?.seal }
        #expect(try scratch.eventually { try damage(scratch, volume) == [0] })
        usleep(200_000)
        #expect(try seal() == nil && !scratch.isEmpty(.work))
        try scratch.reopen()
        usleep(200_000)
        #expect(try seal() == nil && !scratch.isEmpty(.work))
        try write(scratch, other, [5: 1])
        #expect(try scratch.eventually { try seal() != nil })
        let chunk = try bytes(scratch, volume, 0)
        var builder = SealBuilder(size: volume.size, chunkSize: volume.chunkSize)
        builder.add(chunk.withUnsafeBytes { SHA256.hash($0) })
        builder.add(chunkData(noise(64 << 10, 2)).fingerprint)
        builder.add(zeros: builder.leafCount - builder.leaves)
        #expect(try seal() == builder.finish())
        #expect(chunk[1024..<1536].elementsEqual(part.bytes))
        #expect(try scratch.eventually { try scratch.isEmpty(.work) })
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("S6, D4: a snapshot that cannot be sealed for damage can be deleted, and leaves nothing behind")
    func unsealedAndDeleted() throws {
        let scratch = try ScratchStore { $0.sealRetry = .seconds(3600) }
        let volume = try scratch.volume()
        try write(scratch, volume, [0: 1])
        let key = ChunkKey(own: AccountNumber(rawValue: 1), chunkData(noise(64 << 10, 1)).fingerprint)
        try scratch.spoil(Patch(start: 0, location: try #require(try scratch.shard.makeView().chunk(key)).location))
        try scratch.change(records: 1, bytes: 512) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 1024, noise(512, 3), of: volume)
        }
        let made = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(volume.id)!, description: "", tags: [:])
        }
        #expect(try scratch.eventually { try damage(scratch, volume) == [0] })
        #expect(try !scratch.isEmpty(.work))
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(made.id)!)
        }
        #expect(try scratch.eventually { try scratch.isEmpty(.work) })
    }

    private func bytes(_ scratch: ScratchStore, _ volume: VolumeRecord, _ chunk: UInt64) throws -> [UInt8] {
        let start = chunk * (64 << 10)
        let pieces = try scratch.shard.read(ReadSource(volume), [start..<start + (64 << 10)], acceptsLZ4: false)
        guard case .plain(let slice, _) = pieces.first?.content else { throw StoreError(.damaged, "no bytes") }
        return withExtendedLifetime(slice) { Array(slice.bytes) }
    }

    @Test(
        "D4: bytes that were wrong before they got a checksum are healed for every reader, also after a restart, and where compaction moved them before",
        arguments: [false, true]
    )
    func wrongContent(moving: Bool) throws {
        // What is emptied is kept for copies of the index: so the bad record stays where it was, too.
        let scratch = try ScratchStore(segmentBytes: 1 << 20) {
            $0.spareSegments = 1
            $0.indexBackupBytes = 4 << 30
        }
        let (first, second) = (try scratch.volume(), try scratch.volume())
        let right = noise(64 << 10, 1)
        let (data, wrong) = (chunkData(right), chunkData(noise(64 << 10, 2)))
        let spoilt = ChunkData(
            fingerprint: data.fingerprint,
            rawLength: wrong.rawLength,
            rawChecksum: wrong.rawChecksum,
            codec: .raw,
            bytes: wrong.bytes
        )
        for volume in [first, second] {
            try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(3), of: volume, .data(spoilt))
            }
        }
        let key = ChunkKey(own: AccountNumber(rawValue: 1), data.fingerprint)
        let location = try #require(try scratch.shard.makeView().chunk(key)).location
        if moving {
            var seed: UInt64 = 100
            let hasMoved = try scratch.eventually(60) {
                for chunk in 10..<UInt64(40) { try write(scratch, first, [chunk: seed + chunk]) }
                seed += 100
                return try scratch.shard.makeView().chunk(key)?.location != location
            }
            #expect(hasMoved)
        }
        #expect(try scratch.scrub().found == 1)
        #expect(try damage(scratch, second) == [3])
        try write(scratch, first, [3: 1])
        #expect(try !scratch.isEmpty(.healed))
        let expected = withExtendedLifetime(right) { Array(right.bytes) }
        for _ in 0..<2 {
            for volume in [first, second] { #expect(try bytes(scratch, volume, 3) == expected) }
            try scratch.reopen()
        }
        // Once nothing names the chunk, nothing is remembered of it.
        for volume in [first, second] {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(3), of: volume, .zeros)
            }
        }
        #expect(try scratch.eventually { try scratch.isEmpty(.healed) })
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("D4: data is found where it is now, though the manifest hints at where it was", arguments: [false, true])
    func movedData(restarting: Bool) throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.spareSegments = 1 }
        let volume = try scratch.volume()
        for chunk in 0..<UInt64(40) { try write(scratch, volume, [chunk: chunk + 1]) }
        let key = ChunkKey(own: AccountNumber(rawValue: 1), chunkData(noise(64 << 10, 3)).fingerprint)
        let location = try #require(try scratch.shard.makeView().chunk(key)).location
        func hint() throws -> RecordLocation? {
            try scratch.shard.makeView().resolve(volume.lineage, volume.dataVersion, ChunkIndex(2)).hint
        }
        #expect(try hint() == location)
        // Until the segment has begun another life.
        var seed: UInt64 = 100
        let hasMoved = try scratch.eventually(60) {
            for chunk in 4..<UInt64(40) { try write(scratch, volume, [chunk: seed + chunk]) }
            seed += 100
            return !scratch.shard.log.mayHold(location)
        }
        #expect(hasMoved)
        #expect(try hint() == location)
        // What lives the segments are in is not known then.
        if restarting { try scratch.reopen() }
        for chunk in 0..<UInt64(4) {
            let expected = noise(64 << 10, chunk + 1)
            #expect(try bytes(scratch, volume, chunk) == withExtendedLifetime(expected) { Array(expected.bytes) })
        }
        // The first that was misled has shown it.
        #expect(!scratch.shard.log.mayHold(location))
        #expect(try damage(scratch, volume) == [])
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("a scrub names what no reader has met, and takes it back where it is whole again")
    func scrubMarks() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.volume()
        try write(scratch, volume, [0: 1, 1: 2, 2: 3])
        let part = noise(4096, 9)
        try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 7 * (64 << 10), part, of: volume)
        }
        let view = scratch.shard.makeView()
        let patch = try #require(try view.parts(volume.lineage, volume.dataVersion, ChunkIndex(7)).first)
        let key = ChunkKey(own: AccountNumber(rawValue: 1), chunkData(noise(64 << 10, 2)).fingerprint)
        let chunk = try #require(try view.chunk(key))
        try scratch.spoil(Patch(start: patch.start, location: patch.location))
        let healthy = try scratch.bytes(of: chunk.location)
        try scratch.spoil(Patch(start: 0, location: chunk.location))
        #expect(try scratch.scrub().found == 2)
        #expect(try damage(scratch, volume) == [1, 7])
        let counts = try scratch.shard.makeView().damageCounts()[ScratchStore.account]
        #expect(counts?.chunks == 1 && counts?.parts == 1)
        #expect(scratch.shard.damagedCount == 2)
        // Nothing new, nothing forgotten; then over the damaged part, and the disk's bytes come back.
        #expect(try scratch.scrub().found == 0)
        try scratch.change(records: 1, bytes: 4096) { (transaction) throws(StoreError) in
            try transaction.writePatch(at: 7 * (64 << 10), part, of: volume)
        }
        #expect(try scratch.isEmpty(.damagedParts))
        try scratch.write(healthy, at: chunk.location)
        _ = try scratch.scrub()
        #expect(try damage(scratch, volume) == [])
        #expect(scratch.shard.damagedCount == 0)
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("D4: what nobody reads is found by the scrub that runs by itself, and again in each period")
    func scrubsByItself() throws {
        let scratch = try ScratchStore { $0.scrubPeriod = .seconds(1) }
        let volume = try scratch.volume()
        for (round, seed) in [UInt64(1), 2].enumerated() {
            try write(scratch, volume, [UInt64(round): seed])
            let key = ChunkKey(own: AccountNumber(rawValue: 1), chunkData(noise(64 << 10, seed)).fingerprint)
            let chunk = try #require(try scratch.shard.makeView().chunk(key))
            try scratch.spoil(Patch(start: 0, location: chunk.location))
            #expect(try scratch.eventually { try damage(scratch, volume).contains(UInt64(round)) })
        }
        #expect(!scratch.shard.scrubber.status.isOnDemand && scratch.shard.scrubber.bytesRead >= 2 * 64 << 10)
    }

    @Test("marks and the scrub's place outlast a restart; a purge takes the mark with it")
    func restart() throws {
        let scratch = try ScratchStore { $0.scrubSaveInterval = .zero }
        let volume = try scratch.volume()
        try write(scratch, volume, [0: 1, 1: 2])
        let key = ChunkKey(own: AccountNumber(rawValue: 1), chunkData(noise(64 << 10, 2)).fingerprint)
        try scratch.spoil(Patch(start: 0, location: try #require(try scratch.shard.makeView().chunk(key)).location))
        #expect(try scratch.scrub().found == 1)
        let finished = scratch.shard.scrubber.status.finishedAt
        try scratch.reopen()
        #expect(scratch.eventually { scratch.shard.scrubber.status.finishedAt == finished })
        #expect(try damage(scratch, volume) == [1])
        // A pass that is slow, through more than one step takes: after a restart it goes on.
        for chunk in 10..<UInt64(60) { try write(scratch, volume, [chunk: chunk]) }
        scratch.shard.scrubber.begin(bytesPerSecond: 1)
        #expect(scratch.eventually { scratch.shard.scrubber.status.bytes > 0 })
        #expect(scratch.shard.scrubber.status.isRunning)
        try scratch.reopen()
        #expect(scratch.eventually { scratch.shard.scrubber.status.isRunning })
        #expect(scratch.shard.scrubber.status.isOnDemand)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(1), of: volume, .zeros)
        }
        #expect(try scratch.eventually { try scratch.isEmpty(.damagedChunks) })
        #expect(try scratch.shard.audit().problems == [])
    }

    @Test("a segment with damaged records is emptied of the rest, and keeps them until they are healed")
    func compaction() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) { $0.spareSegments = 1 }
        let volume = try scratch.volume()
        for chunk in 0..<UInt64(40) { try write(scratch, volume, [chunk: chunk + 1]) }
        let key = ChunkKey(own: AccountNumber(rawValue: 1), chunkData(noise(64 << 10, 3)).fingerprint)
        let location = try #require(try scratch.shard.makeView().chunk(key)).location
        try scratch.spoil(Patch(start: 0, location: location))
        // Most of the first segments dies; what is left is moved, but for the damaged one.
        for chunk in 4..<UInt64(40) { try write(scratch, volume, [chunk: chunk + 100]) }
        for chunk in 4..<UInt64(40) { try write(scratch, volume, [chunk: chunk + 200]) }
        let alone = Int(location.length)
        let isAlone = try scratch.eventually {
            guard let bytes = try scratch.shard.makeView().index.get(Key.segment(location.segment)) else {
                return false
            }
            return try SegmentRecord.decode(bytes).liveBytes == UInt64(alone)
        }
        #expect(isAlone)
        for chunk in 0..<UInt64(40) where chunk != 2 { try read(scratch, volume, chunk) }
        #expect(throws: StoreError.self) { try read(scratch, volume, 2) }
        #expect(try scratch.eventually { try damage(scratch, volume) == [2] })
        try write(scratch, volume, [2: 3])
        try read(scratch, volume, 2)
        #expect(try scratch.eventually { try scratch.shard.makeView().index.get(Key.segment(location.segment)) == nil })
        #expect(try scratch.shard.audit().problems == [])
    }
}

extension ScratchStore {
    /// A whole pass; how it ended.
    func scrub() throws -> ScrubStatus {
        shard.scrubber.begin(bytesPerSecond: 0)
        let end = Date() + 60
        while shard.scrubber.status.isRunning {
            guard Date() < end else { throw NoAnswer() }
            usleep(1000)
        }
        return shard.scrubber.status
    }

    private func file(_ location: RecordLocation) throws -> FileHandle {
        let number = String(location.segment.rawValue)
        let name = String(repeating: "0", count: 8 - number.count) + number + ".seg"
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: "\(folder)/shard-000/segments/\(name)"))
        try file.seek(toOffset: UInt64(location.offset))
        return file
    }

    /// The bytes of a record as they are on the disk.
    func bytes(of location: RecordLocation) throws -> Data {
        let file = try file(location)
        defer { try? file.close() }
        return try file.read(upToCount: 72 + Int(location.length)) ?? Data()
    }

    func write(_ bytes: Data, at location: RecordLocation) throws {
        let file = try file(location)
        try file.write(contentsOf: bytes)
        try file.close()
    }
}
