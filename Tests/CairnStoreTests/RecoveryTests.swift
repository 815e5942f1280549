import CairnCore
import CairnLog
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// A shard that has failed is opened anew while the store goes on.
@Suite struct RecoveryTests {
    private struct NotRecovered: Error {}

    /// The one that took the place of `old`.
    private func next(after old: Shard, _ scratch: ScratchStore) throws -> Shard {
        let index = Int(old.index.rawValue)
        let isDone = scratch.eventually(60) { scratch.store.shards[index] !== old }
        guard isDone else { throw NotRecovered() }
        return scratch.store.shards[index]
    }

    private func write(_ scratch: ScratchStore, _ volume: VolumeRecord, _ chunk: UInt64, _ durability: CommitDurability)
        throws
    {
        let data = chunkData(noise(64 << 10, chunk + 1))
        try scratch.change(durability: durability, records: 1, bytes: 64 << 10) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(chunk), of: volume, .data(data))
        }
    }

    /// A store on a disk that works until it is armed, with a volume that has its first chunk.
    private func onFaultyDisk(
        seed: UInt64,
        _ change: @escaping (inout StoreOptions) -> Void
    ) throws -> (FaultyDisk, ScratchStore, VolumeRecord) {
        let disk = FaultyDisk(seed: seed)
        let scratch = try ScratchStore {
            $0.storage = { _, files in FaultyStorage(files: files, disk: disk) }
            change(&$0)
        }
        let volume = try scratch.volume()
        try write(scratch, volume, 0, .durable)
        return (disk, scratch, volume)
    }

    /// Which of the first chunks hold what was written to them.
    private func held(_ shard: Shard, _ volume: VolumeRecord, _ count: Int) throws -> [Bool] {
        try shard.read(ReadSource(volume), [0..<UInt64(count) << 16], acceptsLZ4: false).enumerated().map {
            guard case .plain(let bytes, _) = $1.content else { return false }
            let wanted = noise(64 << 10, UInt64($0) + 1)
            return withExtendedLifetime((bytes, wanted)) { bytes.bytes.elementsEqual(wanted.bytes) }
        }
    }

    @Test(
        "U8: after a failed sync the shard is recovered in process: flushed data is there, the verifier is another, and the old one reads nothing any more"
    )
    func failedSync() throws {
        let (disk, scratch, volume) = try onFaultyDisk(seed: 1) { $0.leaseTime = .seconds(3600) }
        try write(scratch, volume, 1, .onFlush)
        let old = scratch.shard
        // Whoever reads the old index notices, and lets go of it.
        let reader = Mutex<StoreError.Code?>(nil)
        let isRead = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            let view = old.makeView()
            do throws(StoreError) { while true { _ = try view.volume(volume.id) } } catch {
                reader.withLock { $0 = error.code }
            }
            isRead.signal()
        }
        // The next call is the durable write, then its sync.
        disk.arm(FaultyDisk.Fault(call: 2, length: 1, kind: .error))
        #expect(throws: StoreError.self) { try write(scratch, volume, 2, .durable) }
        let shard = try next(after: old, scratch)
        #expect(shard.verifier != old.verifier)
        #expect(shard.fenceReason == nil && old.fenceReason != nil)
        #expect(disk.hits == 1)
        // The log ends with what is whole: the later of two is not there without the earlier.
        let found = try held(shard, volume, 3)
        #expect(found[0] && (found[1] || !found[2]))
        #expect(try shard.audit().problems == [])
        func code(_ body: () throws(StoreError) -> Void) -> StoreError.Code? {
            do throws(StoreError) { try body() } catch { return error.code }
            return nil
        }
        #expect(code { () throws(StoreError) in _ = try old.makeView().volume(volume.id) } == .fenced)
        #expect(isRead.wait(timeout: .now() + 60) == .success && reader.withLock { $0 } == .fenced)
        #expect(
            code { () throws(StoreError) in
                _ = try old.read(ReadSource(volume), [0..<1 << 16], acceptsLZ4: false)
            } == .fenced
        )
        // Promises that were in memory hold, for nothing is purged.
        #expect(!shard.leases.mayPurge)
        for chunk in 0..<3 { try write(scratch, volume, UInt64(chunk), .durable) }
        #expect(try held(shard, volume, 3) == [true, true, true])
        #expect(scratch.store.recoveries(of: shard.index).done == 1)
    }

    @Test("calls that wait, flushes, and changes of several shards end with an error that says to try again, each once")
    func waiting() throws {
        let scratch = try ScratchStore(shards: 2)
        let volume = try scratch.volume()
        let old = scratch.shard
        let other = scratch.store.shards[1]
        let codes = Mutex<[StoreError.Code?]>([])
        let group = DispatchGroup()
        let note: @Sendable (Result<Void, StoreError>) -> Void = { result in
            codes.withLock { codes in
                if case .failure(let error) = result { codes.append(error.code) } else { codes.append(nil) }
            }
            group.leave()
        }
        old.fence(StoreError(.io, "the test says so"))
        for _ in 0..<100 {
            group.enter()
            old.submit { (transaction) throws(StoreError) in
                _ = try transaction.createSnapshot(of: volume, description: "", tags: [:])
            } completion: {
                note($0)
            }
        }
        group.enter()
        old.flush { note($0) }
        group.enter()
        PointInTime<Void>.submit(to: [old, other], entries: 8) { (_, _) throws(StoreError) in
        } completion: { results in
            note(results[0])
        }
        #expect(group.wait(timeout: .now() + 60) == .success)
        #expect(codes.withLock { $0 } == [StoreError.Code?](repeating: .fenced, count: 102))
        let shard = try next(after: old, scratch)
        #expect(try shard.makeView().snapshots(of: ScratchStore.account, volume: volume.id, limit: 10).count == 1)
        // The other shard was held for a moment, and goes on.
        let done = DispatchSemaphore(value: 0)
        other.submit { (_) throws(StoreError) in
        } completion: { _ in
            done.signal()
        }
        #expect(done.wait(timeout: .now() + 60) == .success)
    }

    @Test(
        "R6: what a call left of a change of several shards is undone after the recovery of a shard, but not while the call is at it"
    )
    func intents() throws {
        let scratch = try ScratchStore(shards: 2)
        let volume = try scratch.volume()
        func leave() throws -> (UUID128, SnapshotID) {
            let intent = UUID128.random(shard: ShardIndex(0))
            let snapshot = SnapshotID(.random(shard: ShardIndex(0)))
            try scratch.change { (transaction) throws(StoreError) in
                transaction.putIntent(intent, snapshots: [snapshot])
                _ = try transaction.createSnapshot(
                    of: try transaction.volume(volume.id)!,
                    id: snapshot,
                    description: "",
                    tags: [:]
                )
            }
            return (intent, snapshot)
        }
        let (left, first) = try leave()
        let (held, second) = try leave()
        scratch.store.begin(intent: held)
        let old = scratch.store.shards[1]
        old.fence(StoreError(.io, "the test says so"))
        _ = try next(after: old, scratch)
        let view = { scratch.shard.makeView() }
        #expect(try scratch.eventually { try view().intents().map(\.id) == [held] })
        #expect(try view().snapshot(first) == nil && view().snapshot(second) != nil)
        scratch.store.end(intent: held, isLeft: true)
        #expect(try scratch.eventually { try view().intents().isEmpty })
        #expect(try view().snapshot(second) == nil)
        #expect(left != held)
    }

    @Test("where the recovery fails too it is tried again, and closing the store does not wait for it to succeed")
    func again() throws {
        let (disk, scratch, volume) = try onFaultyDisk(seed: 2) { $0.recoveryWait = .milliseconds(1) }
        var old = scratch.shard
        disk.arm(FaultyDisk.Fault(call: 1, length: 4, kind: .error))
        #expect(throws: StoreError.self) { try write(scratch, volume, 1, .durable) }
        let shard = try next(after: old, scratch)
        #expect(scratch.store.recoveries(of: shard.index).failed >= 1)
        #expect(try held(shard, volume, 1) == [true])
        try write(scratch, volume, 1, .durable)
        old = scratch.shard
        disk.arm(FaultyDisk.Fault(call: 1, length: .max / 2, kind: .error))
        #expect(throws: StoreError.self) { try write(scratch, volume, 2, .durable) }
        #expect(scratch.eventually { scratch.store.recoveries(of: shard.index).failed >= 3 })
        #expect(scratch.shard === old)
        scratch.store.close()
    }

    @Test("S8: the log leaves room to others: segments are not made beyond it, and are given back when it is used")
    func room() throws {
        let room = Mutex<UInt64>(1 << 40)
        let scratch = try ScratchStore(segmentBytes: 1 << 20) {
            $0.freeBytes = 100 << 20
            $0.storage = { _, files in RoomyStorage(files: files, room: { room.withLock { $0 } }) }
        }
        let volume = try scratch.volume(64 << 20)
        for chunk in 0..<320 { try write(scratch, volume, UInt64(chunk), .durable) }
        // Nothing is left for another segment: what is there is used up, and then the store is full.
        room.withLock { $0 = 100 << 20 }
        var full: StoreError?
        for chunk in 320..<1000 where full == nil {
            do { try write(scratch, volume, UInt64(chunk), .durable) } catch let error as StoreError { full = error }
        }
        #expect(full?.code == .full)
        let count = scratch.shard.log.segments.count
        // The rest is read, and deleted; and then segments go back to those who need room.
        #expect(try held(scratch.shard, volume, 64) == [Bool](repeating: true, count: 64))
        try scratch.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteVolume(try transaction.volume(volume.id)!)
        }
        #expect(scratch.eventually(60) { scratch.shard.log.segments.count < count - 3 })
        room.withLock { $0 = 1 << 40 }
        var isRoom = false
        #expect(
            scratch.eventually(60) {
                isRoom = (try? scratch.volume()) != nil
                return isRoom
            }
        )
    }
}

/// Segments on a disk that tells how much is free as the test has it.
private struct RoomyStorage: SegmentStorage {
    let files: any SegmentStorage
    let room: @Sendable () -> UInt64

    var availableBytes: UInt64? { room() }
    func create(_ segment: SegmentID, size: Int) throws(StorageError) { try files.create(segment, size: size) }
    func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        try files.write(segment, at: offset, bytes)
    }
    func sync(_ segment: SegmentID) throws(StorageError) { try files.sync(segment) }
    func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError)
        -> Int
    {
        try files.read(segment, at: offset, into: target)
    }
    func list() throws(StorageError) -> [SegmentID] { try files.list() }
    func delete(_ segment: SegmentID) throws(StorageError) { try files.delete(segment) }
    func readSuperblock() throws(StorageError) -> [UInt8] { try files.readSuperblock() }
    func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) {
        try files.writeSuperblock(slot: slot, bytes)
    }
}
