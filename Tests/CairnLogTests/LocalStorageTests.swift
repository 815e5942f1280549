import CairnCore
import Foundation
import Testing

@testable import CairnLog

@Suite struct LocalStorageTests {
    /// Groups over several segments, recycling, reading, recovery: all that the log does, on real files.
    private func exercise(_ path: String, direct: Bool = true) throws -> LocalSegmentStorage {
        var options = LocalSegmentStorage.Options()
        options.direct = direct
        options.readDescriptors = 2
        let storage = try LocalSegmentStorage(path: path, options: options)
        let log = try newLog(storage)
        var locations: [RecordLocation] = []
        for number in 0..<12 {
            locations.append(try write(log, bytes: 300_000 + number, commit: [UInt8(number)]).location)
        }
        for (number, location) in locations.enumerated() {
            #expect(try copy(log.read(location).bytes) == copy(pattern(300_000 + number, 1)))
        }
        var index = ModelIndex(live: Set(locations.dropFirst(6).map(\.segment)))
        let second = try recover(try LocalSegmentStorage(path: path, options: options), &index)
        #expect(index.commits == (0..<12).map { [UInt8($0)] })
        for number in 0..<12 { try write(second, bytes: 400_000, commit: [UInt8(number)]) }
        for (number, location) in locations.enumerated().dropFirst(6) {
            #expect(try copy(second.read(location).bytes) == copy(pattern(300_000 + number, 1)))
        }
        try second.close()
        _ = try recover(try LocalSegmentStorage(path: path, options: options), &index)
        #expect(index.commits.count == 24)
        return storage
    }

    @Test func pastThePageCache() throws {
        let folder = try TemporaryFolder()
        let storage = try exercise(folder.path)
        if !storage.writesDirectly { print("SKIPPED pastThePageCache: \(folder.path) has no O_DIRECT") }
    }

    @Test func throughThePageCache() throws {
        let folder = try TemporaryFolder()
        #expect(try !exercise(folder.path, direct: false).writesDirectly)
    }

    /// ramfs refuses O_DIRECT, and has no fallocate.
    @Test func fallsBackWhereTheFileSystemHasNoDirectWrites() throws {
        let folder = try TemporaryFolder()
        guard mount("ramfs", folder.path, "ramfs", 0, nil) == 0 else {
            print("SKIPPED fallsBackWhereTheFileSystemHasNoDirectWrites: ramfs cannot be mounted here (errno \(errno))")
            return
        }
        defer { umount2(folder.path, Int32(MNT_DETACH)) }
        #expect(try !exercise(folder.path).writesDirectly)
    }

    /// Long reads of whole blocks leave nothing in the page cache; the same bytes come by whichever way, also at the segment's end.
    @Test func longReadsGoPastThePageCache() throws {
        let folder = try TemporaryFolder()
        let storage = try LocalSegmentStorage(path: folder.path)
        let (segment, size, long) = (SegmentID(1), 2 << 20, LocalSegmentStorage.directReadBytes)
        let pool = BufferPool(keepBytes: 0)
        let (source, target) = (pool.buffer(capacity: size), pool.buffer(capacity: size))
        let content = copy(pattern(size, 3))
        source.memory.copyBytes(from: content)
        try storage.create(segment, size: size)
        try storage.write(segment, at: 0, UnsafeRawBufferPointer(rebasing: source.memory[..<size]))
        func read(_ range: Range<Int>, into place: Int = 0) throws -> [UInt8] {
            let memory = UnsafeMutableRawBufferPointer(rebasing: target.memory[place..<place + range.count])
            return Array(memory[..<(try storage.read(segment, at: range.lowerBound, into: memory))])
        }
        guard storage.writesDirectly else {
            print("SKIPPED longReadsGoPastThePageCache: \(folder.path) has no O_DIRECT")
            return
        }
        for start in [0, 4096, size - long, size - long + 4096, size - 4096] {
            #expect(try read(start..<start + long) == Array(content[start..<min(start + long, size)]))
        }
        // Of the last of them, which begins in the last block, the rest was asked of the page cache too.
        #expect(try Self.cachedPages(folder.path + "/segments/00000001.seg", size) <= 1)
        // Neither whole blocks, nor memory so aligned, nor long.
        #expect(try read(512..<512 + long) == Array(content[512..<512 + long]))
        #expect(try read(0..<long, into: 512) == Array(content[..<long]))
        #expect(try read(8192..<12288) == Array(content[8192..<12288]))
        #expect(try Self.cachedPages(folder.path + "/segments/00000001.seg", size) >= long / 4096)
    }

    /// The pages of a file that the page cache has.
    private static func cachedPages(_ path: String, _ size: Int) throws -> Int {
        let descriptor = open(path, O_RDONLY)
        defer { close(descriptor) }
        let memory = mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0)!
        defer { munmap(memory, size) }
        var pages = [UInt8](repeating: 0, count: size / 4096)
        try #require(mincore(memory, size, &pages) == 0)
        return pages.count { $0 & 1 == 1 }
    }

    /// What is in memory is read without waiting, whole or not at all; what is not, or cannot be told, is refused.
    @Test func readsWhatIsInMemory() throws {
        let folder = try TemporaryFolder()
        let storage = try LocalSegmentStorage(path: folder.path)
        let log = try newLog(storage)
        var locations: [RecordLocation] = []
        for number in 0..<8 {
            locations.append(try write(log, bytes: 100_000 + number, commit: [UInt8(number)]).location)
        }
        let refusal = LogError.io(StorageError(operation: .read, code: EAGAIN, segment: locations[0].segment))
        // Nobody has opened the file for reading yet.
        #expect(throws: refusal) { try log.read([locations[0]], inMemory: true) }
        for (number, location) in locations.enumerated() {
            #expect(try log.read(location).bytes.count == 100_000 + number)
        }
        var found = 0
        for (number, location) in locations.enumerated() {
            do {
                let record = try log.read([location], inMemory: true)[0]
                #expect(copy(record.bytes) == copy(pattern(100_000 + number, 1)))
                found += 1
            } catch {
                guard case .io(let failure) = error, failure.code == EAGAIN else { throw error }
            }
        }
        if found == 0 { print("SKIPPED readsWhatIsInMemory: \(folder.path) cannot tell, or nothing stays in memory") }
        // A location that leads astray: why, is told by who may wait.
        let astray = RecordLocation(
            segment: locations[0].segment,
            offset: locations[0].offset + 8,
            length: locations[0].length,
            seed: locations[0].seed
        )
        #expect(throws: refusal) { try log.read([astray], inMemory: true) }
        #expect(throws: LogError.damaged(.record(astray))) { try log.read(astray) }
    }

    @Test func verbs() throws {
        let folder = try TemporaryFolder()
        let storage = try LocalSegmentStorage(path: folder.path + "/shard-000")
        #expect(try storage.list().isEmpty && storage.readSuperblock().isEmpty)
        try storage.create(SegmentID(7), size: segmentSize)
        try storage.create(SegmentID(123_456_789), size: segmentSize)
        let segments = folder.path + "/shard-000/segments/"
        try Data().write(to: URL(fileURLWithPath: segments + "00000009.seg.new"))
        try Data().write(to: URL(fileURLWithPath: segments + "notes.txt"))
        let reopened = try LocalSegmentStorage(path: folder.path + "/shard-000")
        #expect(try Set(reopened.list()) == [SegmentID(7), SegmentID(123_456_789)])
        #expect(
            try Set(FileManager.default.contentsOfDirectory(atPath: segments)) == [
                "00000007.seg", "123456789.seg", "notes.txt",
            ]
        )

        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 4096)
        defer { target.deallocate() }
        target.initializeMemory(as: UInt8.self, repeating: 9)
        try reopened.write(SegmentID(7), at: segmentSize - 8192, UnsafeRawBufferPointer(target))
        try reopened.sync(SegmentID(7))
        target.initializeMemory(as: UInt8.self, repeating: 0)
        #expect(try reopened.read(SegmentID(7), at: segmentSize - 4096, into: target) == 4096)
        #expect(target.prefix(4096).allSatisfy { $0 == 9 } && target.dropFirst(4096).allSatisfy { $0 == 0 })
        try reopened.delete(SegmentID(7))
        #expect(throws: StorageError(operation: .read, code: ENOENT, segment: SegmentID(7))) {
            try reopened.read(SegmentID(7), at: 0, into: target)
        }
        #expect(throws: StorageError(operation: .delete, code: ENOENT, segment: SegmentID(7))) {
            try reopened.delete(SegmentID(7))
        }
        try storage.writeSuperblock(slot: 1, [UInt8](repeating: 3, count: 4096))
        #expect(try storage.readSuperblock() == [UInt8](repeating: 0, count: 4096) + [UInt8](repeating: 3, count: 4096))
    }
}
