internal import CLinuxFile
internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A system call that failed.
struct SystemError: Error, Sendable, Equatable {
    let errno: Int32
    let operation: String

    var text: String { "\(operation): \(String(cString: strerror(errno)))" }

    func source(_ name: String) -> ClientError {
        ClientError(.source, "\(name): \(text)", errno: errno)
    }
    func target(_ name: String) -> ClientError {
        ClientError(.target, "\(name): \(text)", errno: errno)
    }
}

/// An open file, device or pipe, closed with its last reference. One thin wrapper for each system call; all may be called
/// from any thread.
final class OpenFile: Sendable {
    enum Kind: Sendable, Equatable { case regular, blockDevice, stream, folder }

    let descriptor: Int32
    private let closes: Bool

    /// Takes over `descriptor`.
    /// - Parameter closes: whether it is closed at the end: not for standard input and output.
    init(descriptor: Int32, closes: Bool = true) {
        self.descriptor = descriptor
        self.closes = closes
    }

    deinit { if closes { close(descriptor) } }

    static let readOnly = O_RDONLY
    static let readWrite = O_RDWR
    static let create = O_CREAT
    /// To look at what a name stands for without touching it: `O_PATH`, which has no name in Swift.
    static let pathOnly: Int32 = 0o10000000
    static let existsError = EEXIST
    static let absentError = ENOENT
    /// Past the page cache: `O_DIRECT`, which differs between architectures and has no name in Swift.
    #if arch(arm64)
        static let direct: Int32 = 0o200000
    #else
        static let direct: Int32 = 0o40000
    #endif

    static func open(_ path: String, _ flags: Int32) throws(SystemError) -> OpenFile {
        let descriptor = uninterrupted { Glibc.open(path, flags | O_CLOEXEC, 0o666) }
        guard descriptor >= 0 else { throw SystemError(errno: errno, operation: "open") }
        return OpenFile(descriptor: descriptor)
    }

    /// The path without symbolic links; as it is where there is no such file.
    static func resolved(_ path: String) -> String {
        guard let real = realpath(path, nil) else { return path }
        defer { free(real) }
        return String(cString: real)
    }

    func kind() throws(SystemError) -> Kind {
        switch try status().st_mode & S_IFMT {
        case S_IFREG: .regular
        case S_IFBLK: .blockDevice
        case S_IFDIR: .folder
        default: .stream
        }
    }

    /// Bytes, of a file or a block device.
    func size() throws(SystemError) -> UInt64 {
        let end = lseek(descriptor, 0, SEEK_END)
        guard end >= 0 else { throw SystemError(errno: errno, operation: "lseek") }
        return UInt64(end)
    }

    /// Names the file itself, whatever path leads to it.
    func identity() throws(SystemError) -> [UInt64] {
        let status = try status()
        return [UInt64(status.st_dev), UInt64(status.st_ino)]
    }

    private func status() throws(SystemError) -> stat {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw SystemError(errno: errno, operation: "stat") }
        return status
    }

    /// Reads from `offset` until `target` is full or the file ends.
    /// - Returns: the bytes read.
    func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        var done = 0
        while done < target.count {
            let count = uninterrupted {
                pread(descriptor, target.baseAddress! + done, target.count - done, off_t(offset) + off_t(done))
            }
            guard count >= 0 else { throw SystemError(errno: errno, operation: "read") }
            if count == 0 { break }
            done += count
        }
        return done
    }

    func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let count = uninterrupted {
                pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
            }
            guard count >= 0 else { throw SystemError(errno: errno, operation: "write") }
            done += count
        }
    }

    /// Reads what a pipe has; 0 at its end, nil when nothing came within `milliseconds`.
    func readStream(
        into target: UnsafeMutableRawBufferPointer,
        within milliseconds: Int32
    ) throws(SystemError) -> Int? {
        guard try isReady(POLLIN, within: milliseconds) else { return nil }
        let count = Glibc.read(descriptor, target.baseAddress, target.count)
        if count < 0 {
            guard errno == EINTR || errno == EAGAIN else { throw SystemError(errno: errno, operation: "read") }
            return nil
        }
        return count
    }

    /// Writes some of `bytes` to a pipe; 0 when it took nothing within `milliseconds`.
    func writeStream(_ bytes: UnsafeRawBufferPointer, within milliseconds: Int32) throws(SystemError) -> Int {
        guard try isReady(POLLOUT, within: milliseconds) else { return 0 }
        let count = Glibc.write(descriptor, bytes.baseAddress, bytes.count)
        if count < 0 {
            guard errno == EINTR || errno == EAGAIN else { throw SystemError(errno: errno, operation: "write") }
            return 0
        }
        return count
    }

    private func isReady(_ events: Int32, within milliseconds: Int32) throws(SystemError) -> Bool {
        var request = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        let count = poll(&request, 1, milliseconds)
        if count < 0, errno != EINTR { throw SystemError(errno: errno, operation: "poll") }
        return count > 0
    }
}

// MARK: - Holes, and what makes data last

extension OpenFile {
    /// The first range of data at or after `offset`; nil where only a hole is left, or the file ends before. A file system without
    /// holes, and a device, answer as if all were data.
    func data(from offset: UInt64, size: UInt64) throws(SystemError) -> Range<UInt64>? {
        // SEEK_DATA and SEEK_HOLE are Linux's 3 and 4.
        guard offset < size else { return nil }
        let start = lseek(descriptor, off_t(offset), 3)
        guard start >= 0 else {
            if errno == ENXIO { return nil }
            if errno == EINVAL || errno == ENOTSUP { return offset..<size }
            throw SystemError(errno: errno, operation: "lseek")
        }
        let end = lseek(descriptor, start, 4)
        guard UInt64(start) < size else { return nil }
        return UInt64(start)..<(end > start ? min(UInt64(end), size) : size)
    }

    /// Sets a file's length; what is added is a hole.
    func setSize(_ size: UInt64) throws(SystemError) {
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw SystemError(errno: errno, operation: "truncate") }
    }

    /// Makes a range read as zeros and gives its space back. False where the file system or device cannot.
    func punch(_ range: Range<UInt64>) throws(SystemError) -> Bool {
        // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE.
        let result = uninterrupted {
            cairn_fallocate(
                descriptor,
                0x01 | 0x02,
                off_t(range.lowerBound),
                off_t(range.upperBound - range.lowerBound)
            )
        }
        if result == 0 { return true }
        if errno == ENOTSUP || errno == EINVAL || errno == ENODEV { return false }
        throw SystemError(errno: errno, operation: "fallocate")
    }

    func synchronize() throws(SystemError) {
        guard fsync(descriptor) == 0 else { throw SystemError(errno: errno, operation: "fsync") }
    }

    /// Locks the file against other processes until it is closed. False where another has it.
    func lock() throws(SystemError) -> Bool {
        guard flock(descriptor, LOCK_EX | LOCK_NB) != 0 else { return true }
        guard errno == EWOULDBLOCK else { throw SystemError(errno: errno, operation: "lock") }
        return false
    }

    /// Tells the system that the file will be read from front to back.
    func willReadInOrder() { posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL) }
}
