import CairnCore
import Foundation
import Testing

@testable import CairnLog
@testable import CairnStore

/// What a crash leaves of the log's last group, and what the store makes of it.
@Suite struct CrashTests {
    /// A copy of a store whose last group wrote chunk 1; the one before it, chunk 0. And where the last group begins.
    private func image() throws -> (folder: String, volume: VolumeRecord, last: Range<Int>, segment: String) {
        let scratch = try ScratchStore(segmentBytes: 1 << 20)
        let volume = try scratch.volume()
        var ends: [Int] = []
        scratch.shard.background.stop()
        for chunk in 0..<2 {
            let data = chunkData(noise(64 << 10, UInt64(chunk) + 1))
            try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data))
            }
            ends.append(Int(scratch.shard.log.position!.offset))
        }
        let number = String(scratch.shard.log.position!.segment.rawValue)
        let name = String(repeating: "0", count: 8 - number.count) + number + ".seg"
        let folder = NSTemporaryDirectory() + "cairn-crash-" + UUID().uuidString
        try FileManager.default.copyItem(atPath: scratch.folder, toPath: folder)
        return (folder, volume, ends[0]..<ends[1], folder + "/shard-000/segments/" + name)
    }

    private func change(_ path: String, _ body: (FileHandle) throws -> Void) throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try body(file)
        try file.close()
    }

    /// What chunks 0 and 1 hold after a recovery.
    private func recovered(_ folder: String, _ volume: VolumeRecord) throws -> (
        first: Bool, second: Bool, problems: [String], verifier: UInt64
    ) {
        let store = try Store.open(at: folder)
        defer { store.close() }
        let shard = store.shards[0]
        let pieces = try shard.read(ReadSource(volume), [0..<128 << 10], acceptsLZ4: false)
        let holds = pieces.enumerated().map { index, piece in
            guard case .plain(let bytes, _) = piece.content else { return false }
            return withExtendedLifetime(bytes) { Array(bytes.bytes) == Array(noise(64 << 10, UInt64(index) + 1).bytes) }
        }
        return (holds[0], holds[1], try shard.audit().problems, shard.verifier)
    }

    @Test("a torn or garbled last group is lost as a whole, and nothing else; a second recovery gives the same")
    func tornGroup() throws {
        var seen = Set<UInt64>()
        for cut in 0..<6 {
            let image = try image()
            defer { try? FileManager.default.removeItem(atPath: image.folder) }
            let place = image.last.lowerBound + (image.last.count - 512) * cut / 5 / 512 * 512
            try change(image.segment) { file in
                try file.seek(toOffset: UInt64(place))
                let torn =
                    cut.isMultiple(of: 2)
                    ? Data(count: image.last.upperBound - place) : Data(repeating: 0xee, count: 512)
                try file.write(contentsOf: torn)
            }
            // The garbled end may be the padding behind the commit record: then the group is whole, and stays.
            let first = try recovered(image.folder, image.volume)
            let second = try recovered(image.folder, image.volume)
            #expect(first.first && first.problems.isEmpty, "cut \(cut): \(first.problems)")
            #expect(cut == 5 || !first.second, "cut \(cut)")
            #expect(
                second.first && second.second == first.second && second.problems.isEmpty,
                "cut \(cut): \(second.problems)"
            )
            #expect(seen.insert(first.verifier).inserted && seen.insert(second.verifier).inserted)
        }
    }

    @Test("an image as it is holds everything that was answered")
    func wholeImage() throws {
        let image = try image()
        defer { try? FileManager.default.removeItem(atPath: image.folder) }
        let result = try recovered(image.folder, image.volume)
        #expect(result.first && result.second && result.problems.isEmpty)
    }

    @Test("opening twice, a newer format, a damaged header, no store: each has its own error")
    func refusals() throws {
        let scratch = try ScratchStore()
        #expect(throws: StoreError.self) { try Store.create(at: scratch.folder) }
        func code(_ folder: String) -> StoreError.Code? {
            do throws(StoreError) { try Store.open(at: folder).close() } catch { return error.code }
            return nil
        }
        #expect(code(scratch.folder) == .locked)
        #expect(code(scratch.folder + "/missing") == .notAStore)
        let header = try StoreHeader.read(from: scratch.folder)
        var bytes = header.encoded
        bytes[8] = 9
        #expect(throws: StoreError.self) { try StoreHeader.decode(bytes, "x") }
        do { _ = try StoreHeader.decode(bytes, "x") } catch { #expect(error.code == .newerFormat) }
        bytes = header.encoded
        bytes[20] ^= 1
        do { _ = try StoreHeader.decode(bytes, "x") } catch { #expect(error.code == .damaged) }
        do { _ = try StoreHeader.decode([1, 2, 3], "x") } catch { #expect(error.code == .notAStore) }
    }

    @Test("S8: ten rounds of filling and deleting leave nothing behind, and the disk does not grow")
    func spaceComesBack() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20) {
            $0.checkpointBytes = 1 << 20
            $0.spareSegments = 2
        }
        for round in 0..<10 {
            let volume = try scratch.volume()
            for chunk in 0..<64 {
                let data = chunkData(noise(64 << 10, UInt64(round * 64 + chunk) + 1))
                try scratch.change(records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
                    try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data))
                }
            }
            let version = try scratch.shard.makeView().volume(volume.id)!
            let snapshot = try scratch.change { (transaction) throws(StoreError) in
                try transaction.createSnapshot(of: version, description: "", tags: [:])
            }
            try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
                try transaction.deleteVolume(try transaction.volume(volume.id)!)
            }
            // The snapshot still holds it all.
            #expect(try scratch.shard.audit().liveBytes == 64 * (64 << 10))
            try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
                try transaction.deleteSnapshot(try transaction.snapshot(snapshot.id)!)
            }
            #expect(try scratch.eventually { try scratch.shard.audit().liveBytes == 0 })
            #expect(scratch.eventually { scratch.shard.log.segments.count { $0.use == .closed } <= 1 })
            #expect(try scratch.shard.audit().problems == [])
            // The open one, its successor, a reserve of 3 and one more, 2 to spare, and one closed.
            let isSmall = scratch.eventually { scratch.shard.log.segments.count <= 9 }
            #expect(isSmall, "round \(round): \(scratch.shard.log.segments.count)")
        }
    }
}
