import CairnCore
import Glibc

/// The few calls that copies of the index are made with; all block.
enum Files {
    /// Bytes read and written at once.
    private static let piece = 1 << 20
    /// Bytes after which what was written is forced out: a flood of dirty pages would make the log's syncs wait.
    private static let syncPiece = 4 << 20

    static func error(_ what: String, _ path: String) -> StoreError {
        let code = errno
        let isFull = code == ENOSPC || code == EDQUOT
        return StoreError(isFull ? .full : .io, "cannot \(what) \(path): errno \(code)")
    }

    /// The names in a folder, without `.` and `..`; empty where there is none.
    static func names(in path: String) throws(StoreError) -> [String] {
        guard let handle = opendir(path) else {
            if errno == ENOENT { return [] }
            throw error("list", path)
        }
        defer { closedir(handle) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(handle) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { name in
                name.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
            errno = 0
        }
        guard errno == 0 else { throw error("list", path) }
        return names
    }

    /// Removes a folder of files, if it is there.
    static func removeFolder(_ path: String) throws(StoreError) {
        for name in try names(in: path) { unlink(path + "/" + name) }
        guard rmdir(path) == 0 || errno == ENOENT else { throw error("remove", path) }
    }

    static func makeFolder(_ path: String) throws(StoreError) {
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw error("make", path) }
    }

    /// Durable on return, as far as the folder itself goes: call ``sync(_:)`` for that which holds it.
    static func rename(_ old: String, _ new: String) throws(StoreError) {
        guard Glibc.rename(old, new) == 0 else { throw error("rename", old) }
    }

    /// Makes a file, or the names in a folder, durable.
    static func sync(_ path: String) throws(StoreError) {
        let file = try Descriptor(path, O_RDONLY)
        guard fsync(file.number) == 0 else { throw error("sync", path) }
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    static func size(_ path: String) throws(StoreError) -> UInt64 {
        var status = stat()
        guard stat(path, &status) == 0 else { throw error("look at", path) }
        return UInt64(status.st_size)
    }

    /// All of a small file.
    static func read(_ path: String, limit: Int) throws(StoreError) -> [UInt8] {
        var bytes: [UInt8] = []
        try scan(path) { (piece) throws(StoreError) in
            guard bytes.count + piece.count <= limit else { throw StoreError(.damaged, "\(path) is too large") }
            bytes.append(contentsOf: piece)
        }
        return bytes
    }

    /// Durable on return, but for its name.
    static func write(_ path: String, _ bytes: [UInt8]) throws(StoreError) {
        let file = try Descriptor(path, O_WRONLY | O_CREAT | O_TRUNC)
        let written = bytes.withUnsafeBytes { bytes in Result { () throws(StoreError) in try file.write(bytes) } }
        try written.get()
        guard fsync(file.number) == 0 else { throw error("sync", path) }
    }

    /// Goes through a file piece by piece.
    static func scan(
        _ path: String,
        _ body: (UnsafeRawBufferPointer) throws(StoreError) -> Void
    ) throws(StoreError) {
        let file = try Descriptor(path, O_RDONLY)
        let buffer = BufferPool.shared.buffer(capacity: piece)
        defer { withExtendedLifetime(buffer) {} }
        while true {
            let count = uninterrupted { Glibc.read(file.number, buffer.memory.baseAddress, piece) }
            guard count >= 0 else { throw error("read", path) }
            if count == 0 { return }
            try body(UnsafeRawBufferPointer(rebasing: buffer.memory[..<count]))
        }
    }

    /// The CRC32C and the length of a file.
    static func checksum(of path: String) throws(StoreError) -> (checksum: UInt32, bytes: UInt64) {
        var (checksum, bytes) = (UInt32(0), UInt64(0))
        try scan(path) { (piece) throws(StoreError) in
            checksum = CRC32C.extend(checksum, piece)
            bytes += UInt64(piece.count)
        }
        return (checksum, bytes)
    }

    /// Copies a file; the copy is durable on return, but for its name.
    /// - Parameter between: called after each piece with the bytes of it: it may wait, or throw to end the copying.
    static func copy(
        _ source: String,
        to target: String,
        between: (Int) throws(StoreError) -> Void
    ) throws(StoreError) -> (checksum: UInt32, bytes: UInt64) {
        let file = try Descriptor(target, O_WRONLY | O_CREAT | O_TRUNC)
        var (checksum, bytes, unsynced) = (UInt32(0), UInt64(0), 0)
        try scan(source) { (piece) throws(StoreError) in
            checksum = CRC32C.extend(checksum, piece)
            bytes += UInt64(piece.count)
            unsynced += piece.count
            try file.write(piece)
            if unsynced >= syncPiece {
                guard fdatasync(file.number) == 0 else { throw error("sync", target) }
                unsynced = 0
            }
            try between(piece.count)
        }
        guard fsync(file.number) == 0 else { throw error("sync", target) }
        // Nobody reads a copy soon.
        posix_fadvise(file.number, 0, 0, Int32(POSIX_FADV_DONTNEED))
        return (checksum, bytes)
    }
}

/// An open file; closed with its last user.
private final class Descriptor {
    let number: Int32
    private let path: String

    init(_ path: String, _ flags: Int32) throws(StoreError) {
        self.path = path
        number = uninterrupted { open(path, flags | O_CLOEXEC, 0o600) }
        guard number >= 0 else { throw Files.error("open", path) }
    }

    deinit { close(number) }

    func write(_ bytes: UnsafeRawBufferPointer) throws(StoreError) {
        var rest = bytes
        while !rest.isEmpty {
            let count = uninterrupted { Glibc.write(number, rest.baseAddress, rest.count) }
            guard count > 0 else { throw Files.error("write", path) }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }
}
