import CairnCore
import CairnCrypto
import CairnTesting
import Foundation
import Testing

@testable import CairnStore

/// Random operations against what they must amount to. A failing run says its seed:
/// `tools/torture model --seed …` repeats it.
@Suite(.serialized) struct ModelTests {
    struct Configuration: CustomTestStringConvertible, Sendable {
        let name: String
        var segmentBytes: UInt64 = 1 << 20
        var checkpointBytes: UInt64 = 512 << 10
        var indexFlushBytes = 1 << 20
        var chunk = 4 << 10
        var testDescription: String { name }
    }

    static let configurations = [
        Configuration(name: "small segments, frequent checkpoints"),
        Configuration(name: "index flushes all the time", indexFlushBytes: 16 << 10),
        Configuration(
            name: "rare checkpoints, long replays",
            segmentBytes: 2 << 20,
            checkpointBytes: 64 << 20,
            indexFlushBytes: 32 << 20
        ),
        Configuration(name: "chunks of 16 KiB", segmentBytes: 4 << 20, chunk: 16 << 10),
    ]

    private static let chosen =
        Torture.only("model").map { only in only < configurations.count ? [configurations[only]] : [] }
        ?? configurations

    @Test("V4, V7, S2, S6, S8, D2, R1, R2: what the store holds is what was done to it", arguments: chosen)
    func randomOperations(_ configuration: Configuration) throws {
        let seed = Torture.seed("model")
        // Of all configurations together.
        let operations = Torture.share(of: "model", .store, otherwise: 1600) / Self.configurations.count
        print("model: seed \(seed), \(operations) operations, \(configuration.name)")
        var options = StoreOptions()
        options.leaseTime = .milliseconds(2)
        options.checkpointBytes = configuration.checkpointBytes
        options.indexBackupBytes = options.checkpointBytes * 2
        options.indexFlushBytes = configuration.indexFlushBytes
        options.spareSegments = 1
        // So that other operations come in between.
        options.releaseStep = 4
        let store = try ModelStore(segmentBytes: configuration.segmentBytes, options: options)
        var run = ModelRun(
            store: store,
            random: SeededRandom(seed: seed),
            chunkSize: ChunkSize(bytes: configuration.chunk)!
        )
        var done = 0
        do {
            while done < operations {
                try run.step()
                done += 1
            }
            try run.checkAll()
            try run.deleteAll()
            Torture.report("model", ["operations": done, "configurations": 1])
        } catch {
            Issue.record("seed \(seed), operation \(done) (\(run.last)): \(error)")
        }
    }
}

struct ModelFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// The reference, and the operations.
struct ModelRun {
    struct Volume {
        let id: VolumeID
        var content: ModelContent
    }
    struct Snapshot {
        let id: SnapshotID
        let content: ModelContent
        let isInitial: Bool
    }
    let store: ModelStore
    var random: SeededRandom
    let chunkSize: ChunkSize
    var volumes: [VolumeID: Volume] = [:]
    var snapshots: [SnapshotID: Snapshot] = [:]
    /// In the order of their making, so that a seed chooses the same.
    var volumeOrder: [VolumeID] = []
    var snapshotOrder: [SnapshotID] = []
    var nextStamp: UInt32 = 1
    var last = ""
    static let account = AccountID("model")!
    /// Past this volumes grow no further: clones of clones would otherwise make each check of everything slower than the last.
    static let mostSectors = 2048

    init(store: ModelStore, random: SeededRandom, chunkSize: ChunkSize) {
        self.store = store
        self.random = random
        self.chunkSize = chunkSize
    }

    mutating func step() throws {
        switch random.below(1000) {
        case _ where volumeOrder.isEmpty: try createVolume(from: nil)
        case 0..<600: try write()
        case 600..<620: if volumeOrder.count < 8 { try createVolume(from: nil) }
        case 620..<670: if volumeOrder.count < 12, let id = pickSnapshot() { try createVolume(from: id) }
        case 670..<760: if snapshotOrder.count < 40 { try createSnapshot() }
        case 760..<810: if let id = pickSnapshot() { try deleteSnapshot(id) }
        case 810..<835: try deleteVolume(volumeOrder[random.below(volumeOrder.count)])
        case 835..<850: try resize()
        case 850..<920: try readSomething()
        case 920..<962: try compareSomething()
        case 962..<970: try freeSomething()
        case 970..<980: try settleAndAudit()
        case 980..<990: try reopen(crashing: false)
        default: try reopen(crashing: true)
        }
    }

    private mutating func pickSnapshot() -> SnapshotID? {
        snapshotOrder.isEmpty ? nil : snapshotOrder[random.below(snapshotOrder.count)]
    }

    // MARK: Volumes and snapshots

    private mutating func createVolume(from id: SnapshotID?) throws {
        last = "create a volume"
        let source = id.flatMap { snapshots[$0] }
        var content =
            source?.content
            ?? ModelContent(sectors: Array(repeating: 0, count: 8 * (8 + random.below(120))), chunkSize: chunkSize)
        // Sometimes no multiple of the chunk size, sometimes larger than the source.
        if source == nil || random.chance(30), content.sectors.count < Self.mostSectors {
            content.sectors += Array(repeating: 0, count: random.below(60))
        }
        let (size, chunkSize) = (content.size, chunkSize)
        let record = try store.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ModelRun.account,
                kind: .remote,
                size: size,
                chunkSize: chunkSize,
                source: try id.flatMap { id throws(StoreError) in try transaction.snapshot(id) },
                affinity: [],
                tags: ["a": "b"]
            )
        }
        add(Volume(id: record.id, content: content))
        add(Snapshot(id: record.initialSnapshot, content: content, isInitial: true))
    }

    private mutating func add(_ volume: Volume) {
        volumes[volume.id] = volume
        volumeOrder.append(volume.id)
    }

    private mutating func add(_ snapshot: Snapshot) {
        snapshots[snapshot.id] = snapshot
        snapshotOrder.append(snapshot.id)
    }

    private mutating func createSnapshot() throws {
        last = "create a snapshot"
        let id = volumeOrder[random.below(volumeOrder.count)]
        let record = try store.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(id)!, description: "d", tags: [:])
        }
        add(Snapshot(id: record.id, content: volumes[id]!.content, isInitial: false))
    }

    private mutating func deleteSnapshot(_ id: SnapshotID) throws {
        // The service leaves initial snapshots to their volumes.
        if snapshots[id]!.isInitial { return }
        last = "delete a snapshot"
        try store.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(id)!)
        }
        forget(id)
    }

    mutating func forget(_ id: SnapshotID) {
        snapshots[id] = nil
        snapshotOrder.removeAll { $0 == id }
    }

    private mutating func deleteVolume(_ id: VolumeID) throws {
        last = "delete a volume"
        let initial = try store.change(reclaims: true) { (transaction) throws(StoreError) in
            let volume = try transaction.volume(id)!
            try transaction.deleteVolume(volume)
            return volume.initialSnapshot
        }
        volumes[id] = nil
        volumeOrder.removeAll { $0 == id }
        if try store.shard.makeView().snapshot(initial) == nil {
            forget(initial)
        } else if let kept = snapshots[initial] {
            // Something was cloned from it: now it is like any other.
            snapshots[initial] = Snapshot(id: initial, content: kept.content, isInitial: false)
        }
    }

    private mutating func resize() throws {
        last = "resize"
        let id = volumeOrder[random.below(volumeOrder.count)]
        guard volumes[id]!.content.sectors.count < Self.mostSectors else { return }
        volumes[id]!.content.sectors += Array(repeating: 0, count: 1 + random.below(40))
        let size = volumes[id]!.content.size
        try store.change { (transaction) throws(StoreError) in
            try transaction.resizeVolume(try transaction.volume(id)!, to: size)
        }
    }

    // MARK: Phases

    mutating func settleAndAudit() throws {
        last = "settle"
        guard try store.settle() else { throw ModelFailure("the background does not come to rest") }
        try audit()
        for id in snapshotOrder {
            guard let record = try store.shard.makeView().snapshot(id) else { throw ModelFailure("\(id) is missing") }
            guard record.seal == snapshots[id]!.content.seal else {
                throw ModelFailure("\(id) has another seal: \(record)")
            }
        }
    }

    func audit() throws {
        let report = try store.shard.audit()
        guard report.problems.isEmpty else { throw ModelFailure("audit: \(report.problems.prefix(5))") }
        guard report.volumes == volumes.count, report.snapshots == snapshots.count else {
            throw ModelFailure("\(report) instead of \(volumes.count) volumes, \(snapshots.count) snapshots")
        }
    }

    private mutating func reopen(crashing: Bool) throws {
        last = crashing ? "crash" : "reopen"
        if crashing { try store.crash(losing: random.chance(40)) } else { try store.reopen() }
        try audit()
        try checkAll()
    }

    mutating func checkAll() throws {
        for id in volumeOrder { try check(.volume(id)) }
        for id in snapshotOrder { try check(.snapshot(id)) }
    }

    /// All goes; nothing must be left of it.
    mutating func deleteAll() throws {
        for id in volumeOrder { try deleteVolume(id) }
        for id in snapshotOrder { try deleteSnapshot(id) }
        try settleAndAudit()
        let report = try store.shard.audit()
        guard report.entries == 0, report.chunks == 0, report.liveBytes == 0 else {
            throw ModelFailure("left over: \(report)")
        }
        let usage = try store.shard.makeView().usage(of: Self.account)
        guard usage == AccountUsage() else { throw ModelFailure("left over: \(usage)") }
        try store.crash()
        try settleAndAudit()
    }
}
