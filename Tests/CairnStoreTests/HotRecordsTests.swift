import CairnCore
import CairnTesting
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// What is kept decoded is what the index says.
@Suite struct HotRecordsTests {
    private static let ids = (0..<4).map { _ in VolumeID(.random(shard: ShardIndex(0))) }

    /// Opens an index in a folder of its own.
    private func withIndex(_ body: (IndexDatabase) throws -> Void) throws {
        let folder = Torture.scratchFolder("hot-records")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let database = try IndexDatabase(path: folder, IndexDatabase.Options())
        defer { #expect(database.close(within: .seconds(60))) }
        try body(database)
    }

    private static func volume(_ id: VolumeID, size: UInt64, tags: [String: String] = [:]) -> VolumeRecord {
        VolumeRecord(
            id: id,
            account: AccountID("hot")!,
            kind: .remote,
            size: size,
            chunkSize: ChunkSize(bytes: 64 << 10)!,
            lineage: LineageID(7),
            dataVersion: DataVersion(1),
            initialSnapshot: SnapshotID(id.uuid),
            sourceSnapshot: nil,
            affinity: [],
            tags: tags,
            createdAt: 1,
            state: .active
        )
    }

    private static func put(_ database: IndexDatabase, _ volumes: [VolumeRecord]) throws {
        let overlay = IndexOverlay(database)
        for volume in volumes { overlay.put(Key.volume(volume.id), volume.encoded) }
        try database.apply(overlay)
    }

    private static func reader(_ source: any IndexReading) -> ManifestReader {
        ManifestReader(source, mayHaveDamage: false)
    }

    @Test("a view shows what was there when it was made, whatever was kept before and since")
    func views() throws {
        try withIndex { database in
            let id = Self.ids[0]
            let before = Self.reader(database.makeView())
            try Self.put(database, [Self.volume(id, size: 1)])
            let first = Self.reader(database.makeView())
            #expect(try first.volume(id)?.size == 1)
            #expect(try Self.reader(IndexPeek(database)).volume(id)?.size == 1)
            #expect(try before.volume(id) == nil, "kept later than this view was made")
            try Self.put(database, [Self.volume(id, size: 2)])
            #expect(try first.volume(id)?.size == 1)
            #expect(try Self.reader(IndexPeek(database)).volume(id)?.size == 2, "an old view kept what it found")
            #expect(try Self.reader(database.makeView()).volume(id)?.size == 2)
            let overlay = IndexOverlay(database)
            overlay.delete(Key.volume(id))
            #expect(try Self.reader(overlay).volume(id) == nil, "a change does not show to who makes it")
            #expect(try Self.reader(IndexPeek(database)).volume(id)?.size == 2)
            try database.apply(overlay)
            #expect(try Self.reader(IndexPeek(database)).volume(id) == nil)
            #expect(try first.volume(id)?.size == 1)
        }
    }

    @Test("nothing of a closed index is to be had")
    func closed() throws {
        let folder = Torture.scratchFolder("hot-records")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let database = try IndexDatabase(path: folder, IndexDatabase.Options())
        try Self.put(database, [Self.volume(Self.ids[0], size: 1)])
        let (peek, view) = (Self.reader(IndexPeek(database)), Self.reader(database.makeView()))
        #expect(try peek.volume(Self.ids[0])?.size == 1)
        #expect(try view.volume(Self.ids[0])?.size == 1)
        // The view still holds it.
        _ = database.close(within: .milliseconds(1))
        for reader in [peek, view] {
            var failure: StoreError?
            do { _ = try reader.volume(Self.ids[0]) } catch { failure = error }
            #expect(failure?.code == .fenced)
        }
    }

    @Test("large records are not kept, and of small ones only so many")
    func bounds() throws {
        try withIndex { database in
            let many = (0...HotRecords.most).map {
                Self.volume(VolumeID(.random(shard: ShardIndex(0))), size: UInt64($0))
            }
            let large = Self.volume(
                Self.ids[0],
                size: 1,
                tags: ["text": String(repeating: "x", count: HotRecords.largest)]
            )
            try Self.put(database, many + [large])
            let hot = try #require(database.makeView().hotRecords)
            let reader = Self.reader(database.makeView())
            #expect(try reader.volume(large.id) == large)
            #expect(hot.volume(large.id) == nil)
            for volume in many { #expect(try reader.volume(volume.id) == volume) }
            #expect(many.count { hot.volume($0.id) != nil } == 1, "the last, after all others were let go")
        }
    }

    @Test(
        "while volumes change, views tell what the index tells them, and peeks never go back",
        .timeLimit(.minutes(5))
    )
    func racing() throws {
        try withIndex { database in
            let rounds: UInt64 = 20_000
            try Self.put(database, Self.ids.map { Self.volume($0, size: 0) })
            let isDone = Atomic(false)
            let wrong = Mutex<[String]>([])
            DispatchQueue.concurrentPerform(iterations: 4) { worker in
                var random = SeededRandom(seed: UInt64(worker))
                do {
                    if worker == 0 {
                        defer { isDone.store(true, ordering: .releasing) }
                        for round in 1...rounds {
                            try Self.put(
                                database,
                                Self.ids.filter { _ in random.chance(60) }.map { Self.volume($0, size: round) }
                            )
                        }
                        return
                    }
                    var last: [VolumeID: UInt64] = [:]
                    while !isDone.load(ordering: .acquiring) {
                        let view = database.makeView()
                        let reader = Self.reader(view)
                        for _ in 0..<4 {
                            let id = Self.ids[random.below(Self.ids.count)]
                            let told = try reader.volume(id)
                            let stored = try view.get(Key.volume(id)).map { try VolumeRecord.decode($0) }
                            if told != stored {
                                wrong.withLock { $0.append("\(told!.size) told, \(stored!.size) stored") }
                            }
                            let seen = try Self.reader(IndexPeek(database)).volume(id)?.size ?? 0
                            if seen < max(last[id] ?? 0, told?.size ?? 0) {
                                wrong.withLock { $0.append("back to \(seen)") }
                            }
                            last[id] = seen
                        }
                    }
                } catch { wrong.withLock { $0.append("\(error)") } }
            }
            wrong.withLock { #expect($0.isEmpty, "\($0.count): \($0.prefix(5))") }
        }
    }
}
