import CairnCore
import Foundation
import Testing

/// A small file system of its own, mounted as long as this lives.
final class SmallDisk: Sendable {
    enum Kind: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case tmpfs, ext4
        var testDescription: String { rawValue }
    }

    let folder: WorkFolder
    /// Where it is mounted.
    let path: String

    /// - Parameter mebibytes: how large it is in all.
    /// - Throws: where this machine, or this user, cannot mount it.
    init(_ kind: Kind, mebibytes: Int) async throws {
        folder = try WorkFolder()
        path = folder.file("disk")
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        switch kind {
        case .tmpfs:
            try await require("/bin/mount", ["-t", "tmpfs", "-o", "size=\(mebibytes)m", "tmpfs", path], in: folder)
        case .ext4:
            let image = folder.file("image")
            try Image.make(image, size: mebibytes << 20, [])
            try await require("/sbin/mke2fs", ["-q", "-t", "ext4", "-m", "0", image], in: folder)
            try await require("/bin/mount", ["-o", "loop", image, path], in: folder)
        }
    }

    deinit {
        // Whoever still has a file of it open keeps it, out of sight.
        let umount = Process()
        umount.executableURL = URL(fileURLWithPath: "/bin/umount")
        umount.arguments = ["-l", path]
        try? umount.run()
        umount.waitUntilExit()
    }

    /// A name for a store on it.
    var store: String { path + "/store" }

    /// Bytes that are free.
    var available: Int {
        var facts = statvfs()
        guard statvfs(path, &facts) == 0 else { return 0 }
        return Int(facts.f_bavail) * Int(facts.f_frsize)
    }

    /// Takes all that is free but `bytes`, as some other program would; gives how much that was.
    @discardableResult
    func fill(leaving bytes: Int = 0) throws -> Int {
        let file = open(path + "/filler", O_WRONLY | O_CREAT, 0o600)
        guard file >= 0 else { throw HarnessError("cannot make the filler: errno \(errno)") }
        defer { close(file) }
        // In small steps at the end: what is free is not all for files.
        var (taken, step) = (0, 1 << 20)
        while step >= 4096 {
            if available - step >= bytes, posix_fallocate(file, off_t(taken), off_t(step)) == 0 {
                taken += step
            } else {
                step /= 2
            }
        }
        return taken
    }

    func unfill() { unlink(path + "/filler") }
}
