internal import Glibc
internal import Synchronization

/// Segments as files of one folder: `superblock`, and `segments/00000001.seg` and so on.
///
/// Writes go past the page cache (openDirect) where the file system can, and so do long reads: to give them new pages of the cache
/// costs several times as much as the read itself, and takes the cache from the short reads, which go through it. Each kind has
/// descriptors of its own.
public final class LocalSegmentStorage: SegmentStorage {
    public struct Options: Sendable {
        /// Write, and read much, past the page cache where the file system can.
        public var direct = true
        /// Descriptors kept open for reading, and as many again for reading past the page cache.
        public var readDescriptors = 128
        public init() {}
    }

    /// Reads from this many bytes on go past the page cache: they are parts of transfers, which seldom come back soon.
    static let directReadBytes = 256 << 10

    /// Open segments and the next: no more are written to.
    private static let writeDescriptors = 4

    private let folder: String
    private let readers: FileCache
    private let directReaders: FileCache
    private let writers: FileCache
    /// Whether writing is still tried with O_DIRECT.
    private let isDirect: Atomic<Bool>
    /// The same of reading.
    private let readsDirectly: Atomic<Bool>

    /// - Parameter path: the shard's folder; it and `segments/` in it are made where missing.
    public init(path: String, options: Options = Options()) throws(StorageError) {
        folder = path
        readers = FileCache(limit: max(1, options.readDescriptors))
        directReaders = FileCache(limit: max(1, options.readDescriptors))
        writers = FileCache(limit: LocalSegmentStorage.writeDescriptors)
        isDirect = Atomic(options.direct)
        readsDirectly = Atomic(options.direct)
        for folder in [path, path + "/segments"] where mkdir(folder, 0o700) != 0 && errno != EEXIST {
            throw StorageError(operation: .create, code: errno)
        }
        try syncFolder(path, .create)
        // What a crash left of segments that never got their name.
        for name in try names() where name.hasSuffix(".new") { unlink(segmentFolder + name) }
    }

    /// Drops what the page cache holds of the files in a folder, and in the folders in it, so that reads show what is on the disk.
    /// What cannot be opened is passed over: whoever reads it will see why.
    public static func dropCaches(_ folder: String) {
        guard let handle = opendir(folder) else { return }
        defer { closedir(handle) }
        while let entry = readdir(handle) {
            let name = Self.name(of: entry)
            if name == "." || name == ".." { continue }
            let path = folder + "/" + name
            if entry.pointee.d_type != DT_REG { dropCaches(path) }
            try? OpenFile(path, O_RDONLY).dropCache()
        }
    }

    private static func name(of entry: UnsafeMutablePointer<dirent>) -> String {
        withUnsafePointer(to: &entry.pointee.d_name) { name in
            name.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
    }

    /// Whether writes go past the page cache.
    public var writesDirectly: Bool { isDirect.load(ordering: .relaxed) }

    public func create(_ segment: SegmentID, size: Int) throws(StorageError) {
        let path = path(segment)
        let temporary = path + ".new"
        do throws(SystemError) {
            let file = try OpenFile(temporary, O_RDWR | O_CREAT | O_TRUNC)
            try file.allocate(size)
            try file.sync()
            guard rename(temporary, path) == 0 else { throw SystemError.last }
        } catch {
            unlink(temporary)
            throw StorageError(operation: .create, code: error.code, segment: segment)
        }
        try syncFolder(segmentFolder, .create, segment)
    }

    public func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        do throws(SystemError) {
            do throws(SystemError) { try writer(segment).write(bytes, at: offset) } catch {
                // Some file systems take the flag and refuse the write; nothing of it is done then.
                guard error.code == EINVAL, writesDirectly else { throw error }
                isDirect.store(false, ordering: .relaxed)
                writers.remove(segment)
                try writer(segment).write(bytes, at: offset)
            }
        } catch { throw StorageError(operation: .write, code: error.code, segment: segment) }
    }

    public func sync(_ segment: SegmentID) throws(StorageError) {
        do throws(SystemError) {
            let file = try writer(segment)
            do throws(SystemError) { try file.syncData() } catch {
                // The kernel may now call pages clean that never reached the disk: reads must not show them.
                file.dropCache()
                throw error
            }
        } catch { throw StorageError(operation: .sync, code: error.code, segment: segment) }
    }

    public func read(
        _ segment: SegmentID,
        at offset: Int,
        into target: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        do throws(SystemError) {
            let done = try readPastCache(segment, at: offset, into: target)
            guard done < target.count else { return done }
            let file = try readers.file(segment) { () throws(SystemError) in try OpenFile(path(segment), O_RDONLY) }
            return try done
                + file.read(into: UnsafeMutableRawBufferPointer(rebasing: target[done...]), at: offset + done)
        } catch { throw StorageError(operation: .read, code: error.code, segment: segment) }
    }

    /// - Returns: how many of the bytes it read; the rest is to be read through the cache.
    private func readPastCache(
        _ segment: SegmentID,
        at offset: Int,
        into target: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Int {
        guard target.count >= Self.directReadBytes, readsDirectly.load(ordering: .relaxed),
            offset.isMultiple(of: Format.block), target.count.isMultiple(of: Format.block),
            Int(bitPattern: target.baseAddress).isMultiple(of: Format.block)
        else { return 0 }
        do throws(SystemError) {
            let file = try directReaders.file(segment) { () throws(SystemError) in
                try OpenFile(path(segment), O_RDONLY | openDirect)
            }
            return try file.readDirectly(into: target, at: offset)
        } catch {
            // Some file systems take the flag and refuse the read.
            guard error.code == EINVAL else { throw error }
            readsDirectly.store(false, ordering: .relaxed)
            return 0
        }
    }

    public func readCached(
        _ segment: SegmentID,
        at offset: Int,
        into target: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        do throws(SystemError) {
            guard let file = readers.openFile(segment) else { throw SystemError(code: EAGAIN) }
            return try file.readCached(into: target, at: offset)
        } catch { throw StorageError(operation: .read, code: error.code, segment: segment) }
    }

    public var availableBytes: UInt64? { Self.space(folder)?.available }

    /// The file system that a folder is on: all its bytes, and those that are free. Nil where it does not tell.
    public static func space(_ folder: String) -> (total: UInt64, available: UInt64)? {
        var facts = statvfs()
        guard statvfs(folder, &facts) == 0 else { return nil }
        return (UInt64(facts.f_blocks) * UInt64(facts.f_frsize), UInt64(facts.f_bavail) * UInt64(facts.f_frsize))
    }

    public func list() throws(StorageError) -> [SegmentID] {
        try names().compactMap { name in
            guard name.hasSuffix(".seg"), let number = UInt32(name.dropLast(4)), number > 0 else { return nil }
            return SegmentID(number)
        }
    }

    public func delete(_ segment: SegmentID) throws(StorageError) {
        readers.remove(segment)
        directReaders.remove(segment)
        writers.remove(segment)
        guard unlink(path(segment)) == 0 else { throw StorageError(operation: .delete, code: errno, segment: segment) }
        try syncFolder(segmentFolder, .delete, segment)
    }

    // MARK: superblock

    public func readSuperblock() throws(StorageError) -> [UInt8] {
        do throws(SystemError) {
            let file = try OpenFile(folder + "/superblock", O_RDONLY)
            // Shorter after a crash while the file was made: the other slot was never written then.
            return try file.readBytes(2 * Format.block)
        } catch {
            guard error.code != ENOENT else { return [] }
            throw StorageError(operation: .readSuperblock, code: error.code)
        }
    }

    public func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) {
        precondition((0...1).contains(slot) && bytes.count == Format.block)
        do throws(SystemError) {
            let file = try OpenFile(folder + "/superblock", O_WRONLY | O_CREAT)
            try file.write(bytes, at: slot * Format.block)
            try file.sync()
        } catch { throw StorageError(operation: .writeSuperblock, code: error.code) }
        try syncFolder(folder, .writeSuperblock)
    }

    // MARK: files

    private var segmentFolder: String { folder + "/segments/" }

    private func path(_ segment: SegmentID) -> String {
        let digits = String(segment.rawValue)
        return segmentFolder + String(repeating: "0", count: max(0, 8 - digits.count)) + digits + ".seg"
    }

    private func writer(_ segment: SegmentID) throws(SystemError) -> OpenFile {
        try writers.file(segment) { () throws(SystemError) in
            let path = path(segment)
            guard writesDirectly else { return try OpenFile(path, O_WRONLY) }
            do throws(SystemError) { return try OpenFile(path, O_WRONLY | openDirect) } catch {
                guard error.code == EINVAL else { throw error }
                isDirect.store(false, ordering: .relaxed)
                return try OpenFile(path, O_WRONLY)
            }
        }
    }

    private func names() throws(StorageError) -> [String] {
        guard let handle = opendir(segmentFolder) else { throw StorageError(operation: .list, code: errno) }
        defer { closedir(handle) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(handle) {
            names.append(Self.name(of: entry))
            errno = 0
        }
        guard errno == 0 else { throw StorageError(operation: .list, code: errno) }
        return names
    }

    /// Makes names in a folder durable.
    private func syncFolder(
        _ path: String,
        _ operation: StorageError.Operation,
        _ segment: SegmentID? = nil
    ) throws(StorageError) {
        do { try OpenFile(path, O_RDONLY | O_DIRECTORY).sync() } catch {
            throw StorageError(operation: operation, code: error.code, segment: segment)
        }
    }
}
