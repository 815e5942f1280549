internal import CLinuxFile
internal import CairnCore
internal import Glibc

/// `O_DIRECT`, which Glibc's module map hides behind _GNU_SOURCE; its value differs between architectures.
#if arch(arm64)
    let openDirect: Int32 = 0o200000
#else
    let openDirect: Int32 = 0o40000
#endif

/// An errno.
struct SystemError: Error {
    let code: Int32
    static var last: SystemError { SystemError(code: errno) }
}

/// One thin wrapper for each system call that the local storage makes: EINTR is repeated, short writes are continued.
/// Never so fdatasync: after a failed one the state of the pages is not known.
final class OpenFile: Sendable {
    let descriptor: Int32

    init(_ path: String, _ flags: Int32) throws(SystemError) {
        descriptor = try OpenFile.repeated { Glibc.open(path, flags | O_CLOEXEC, 0o600) }
    }

    deinit { Glibc.close(descriptor) }

    /// Writes all of `bytes`. With O_DIRECT a short write that ends off a block cannot be continued: EIO.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let count = try OpenFile.repeated {
                pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            }
            guard count > 0, (done + count).isMultiple(of: 512) || done + count == bytes.count else {
                throw SystemError(code: EIO)
            }
            done += count
        }
    }

    func write(_ bytes: [UInt8], at offset: Int) throws(SystemError) {
        try bytes.withUnsafeBytes { raw in Result { () throws(SystemError) in try write(raw, at: offset) } }.get()
    }

    /// The first `count` bytes of the file, or all that there are.
    func readBytes(_ count: Int) throws(SystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = try bytes.withUnsafeMutableBytes { raw in
            Result { () throws(SystemError) in try read(into: raw, at: 0) }
        }.get()
        return Array(bytes.prefix(found))
    }

    /// Reads into `target` up to the end of the file; how many bytes there were.
    func read(into target: UnsafeMutableRawBufferPointer, at offset: Int) throws(SystemError) -> Int {
        var done = 0
        while done < target.count {
            let count = try OpenFile.repeated {
                pread(descriptor, target.baseAddress! + done, target.count - done, off_t(offset + done))
            }
            guard count > 0 else { break }
            done += count
        }
        return done
    }

    /// Reads whole blocks into aligned memory, of a file opened with `openDirect`; how many bytes there were before the file's end,
    /// or before a read that ended within a block and cannot be gone on with.
    func readDirectly(into target: UnsafeMutableRawBufferPointer, at offset: Int) throws(SystemError) -> Int {
        var done = 0
        while done < target.count {
            let count = try OpenFile.repeated {
                pread(descriptor, target.baseAddress! + done, target.count - done, off_t(offset + done))
            }
            done += count
            guard count > 0, count.isMultiple(of: Format.block) else { break }
        }
        return done
    }

    /// As ``read(into:at:)``, of what is in the page cache.
    /// - Throws: EAGAIN where the disk would have to be waited for, or it cannot be told.
    func readCached(into target: UnsafeMutableRawBufferPointer, at offset: Int) throws(SystemError) -> Int {
        var done = 0
        while done < target.count {
            let count: Int
            do throws(SystemError) {
                count = try OpenFile.repeated {
                    cairn_read_cached(descriptor, target.baseAddress! + done, target.count - done, off_t(offset + done))
                }
            } catch { throw SystemError(code: error.code == EOPNOTSUPP ? EAGAIN : error.code) }
            guard count > 0 else { break }
            done += count
        }
        return done
    }

    /// Data, size and whatever else reading the data back takes.
    func syncData() throws(SystemError) {
        guard fdatasync(descriptor) == 0 else { throw .last }
    }

    func sync() throws(SystemError) {
        guard fsync(descriptor) == 0 else { throw .last }
    }

    /// Drops what the page cache holds of the file, so that reads show what is on the disk.
    func dropCache() { posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    /// Gives the file `size` bytes with their space allocated; glibc touches every block where the file system has no fallocate.
    func allocate(_ size: Int) throws(SystemError) {
        while true {
            let code = posix_fallocate(descriptor, 0, off_t(size))
            if code == 0 { return }
            guard code == EINTR else { throw SystemError(code: code) }
        }
    }

    private static func repeated<T: SignedInteger>(_ call: () -> T) throws(SystemError) -> T {
        let result = uninterrupted(call)
        guard result >= 0 else { throw .last }
        return result
    }
}
