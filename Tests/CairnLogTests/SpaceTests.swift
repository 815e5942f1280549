import CairnCore
import Glibc
import Testing

@testable import CairnLog

@Suite struct SpaceTests {
    private func options(segments: Int) -> LogOptions {
        var options = LogOptions()
        options.capacity = UInt64(segments * segmentSize)
        return options
    }

    /// Writes until the log is full; the last position.
    private func fill(_ log: SegmentLog, _ index: inout ModelIndex) throws -> Int {
        for number in 0..<100 {
            do {
                index.position = try write(log, bytes: 300_000, commit: [UInt8(number)]).position
                index.commits.append([UInt8(number)])
            } catch LogError.full { return number }
        }
        Issue.record("the log did not become full")
        return 100
    }

    @Test func aFullLogStillTakesWhatFreesSpaceAndGoesOn() throws {
        let storage = SimulatedStorage()
        var index = ModelIndex()
        let log = try newLog(storage, options: options(segments: 8))
        #expect(try fill(log, &index) > 5)
        #expect(log.isFull && !log.isFenced && log.segments.count == 8)
        let calls = storage.calls
        #expect(throws: LogError.full) { try write(log, bytes: 10, commit: [1]) }
        #expect(storage.calls == calls)

        // Deletions: small groups, more of them than the open segment has room for.
        for _ in 0..<5 {
            let group = try log.makeGroup(for: .reclaim, records: 0, bytes: 0, commit: 200_000)
            let commit = [UInt8](repeating: 5, count: 200_000)
            try group.finish(commit: commit)
            index.position = try log.write(group, sync: true)
            index.commits.append(commit)
        }
        #expect(log.isFull)
        for segment in log.segments where segment.use == .closed && segment.id != index.position!.segment {
            log.recycle(segment.id, checkpoint: index.position!)
        }
        #expect(!log.isFull)
        index.position = try write(log, bytes: 300_000, commit: [77]).position
        index.commits.append([77])
        // And it was all in order.
        var replayed = ModelIndex()
        _ = try recover(storage.copy(), &replayed, options: options(segments: 8))
        #expect(replayed.commits == index.commits)
    }

    /// Even when the reserve is used up: a crash, and then another, must not find the log without room to begin an epoch.
    @Test func aFullLogRecoversAgainAndAgain() throws {
        let storage = SimulatedStorage()
        var index = ModelIndex()
        var log = try newLog(storage, options: options(segments: 8))
        _ = try fill(log, &index)
        var written = 0
        while true {
            let commit = [UInt8](repeating: 5, count: 200_000)
            guard let group = try? log.makeGroup(for: .reclaim, records: 0, bytes: 0, commit: 200_000) else { break }
            try group.finish(commit: commit)
            do { index.position = try log.write(group, sync: true) } catch .full { break }
            index.commits.append(commit)
            written += 1
        }
        #expect(written > 8)
        index.live = Set(log.segments.filter { $0.use == .closed || $0.use == .open }.map(\.id))
        for _ in 0..<6 {
            log = try recover(storage, &index, options: options(segments: 8))
            // Nothing was recycled, so there is nothing for others; what frees space has the segment of the epoch.
            #expect(throws: LogError.full) {
                try write(log, bytes: 524_000, commit: [1])
                try write(log, bytes: 524_000, commit: [1])
            }
            let group = try log.makeGroup(for: .reclaim, records: 0, bytes: 0, commit: 100)
            try group.finish(commit: [8])
            index.position = try log.write(group, sync: true)
            index.commits.append([8])
        }
        #expect(try storage.list().count == 8)
    }

    @Test func noSpaceOnTheDiskIsNoFailure() throws {
        let storage = SimulatedStorage()
        var index = ModelIndex()
        let log = try newLog(storage)
        storage.limit(bytes: 7 * segmentSize)
        #expect(try fill(log, &index) > 3)
        #expect(log.isFull && !log.isFenced)
        try log.refill()
        #expect(log.isFull)
        storage.limit(bytes: 20 * segmentSize)
        try log.refill()
        #expect(!log.isFull)
        #expect(throws: Never.self) { try write(log, bytes: 300_000, commit: [1]) }
    }

    @Test func freeSegmentsAreGivenBack() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        var position: LogPosition?
        var locations: [RecordLocation] = []
        for number in 0..<30 {
            let written = try write(log, bytes: 300_000, commit: [UInt8(number)])
            position = written.position
            locations.append(written.location)
        }
        for segment in log.segments where segment.use == .closed { log.recycle(segment.id, checkpoint: position!) }
        try log.trim(spare: 1)
        #expect(log.segments.filter { $0.use == .free }.count == 5)
        #expect(try Set(storage.list()) == Set(log.segments.map(\.id)))
        let left = try Set(storage.list())
        let gone = locations.filter { !left.contains($0.segment) }
        #expect(!gone.isEmpty)
        for location in gone { #expect(throws: LogError.recycled(location)) { try log.read(location) } }
        // IDs are not used again: a new segment could not tell the incarnations of the old one.
        let highest = try storage.list().max()!
        for number in 0..<30 { position = try write(log, bytes: 300_000, commit: [UInt8(number)]).position }
        #expect(position!.segment > highest)
        // An index that is older than what the segments were recycled by cannot be served, and is told so.
        var index = ModelIndex()
        #expect(throws: LogError.self) { try recover(storage, &index) }
    }

    /// A real full disk.
    @Test func aSmallFileSystem() throws {
        let folder = try TemporaryFolder()
        guard mount("tmpfs", folder.path, "tmpfs", 0, "size=7m") == 0 else {
            print("SKIPPED aSmallFileSystem: tmpfs cannot be mounted here (errno \(errno))")
            return
        }
        defer { umount2(folder.path, Int32(MNT_DETACH)) }
        let storage = try LocalSegmentStorage(path: folder.path)
        var index = ModelIndex()
        let log = try newLog(storage)
        #expect(try fill(log, &index) > 0)
        #expect(log.isFull && !log.isFenced)
        let group = try log.makeGroup(for: .reclaim, records: 0, bytes: 0, commit: 200_000)
        try group.finish(commit: [UInt8](repeating: 1, count: 200_000))
        index.position = try log.write(group, sync: true)
        for segment in log.segments where segment.use == .closed && segment.id != index.position!.segment {
            log.recycle(segment.id, checkpoint: index.position!)
        }
        try log.refill()
        #expect(throws: Never.self) { try write(log, bytes: 300_000, commit: [1]) }
        var replayed = ModelIndex()
        _ = try recover(LocalSegmentStorage(path: folder.path), &replayed)
        #expect(replayed.commits.count == index.commits.count + 2)
    }
}
