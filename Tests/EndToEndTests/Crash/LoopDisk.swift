import Foundation

/// A file system of its own in a file, whose power can be cut (FS_IOC_SHUTDOWN without a flush of its journal): what was not
/// synced is gone, and whatever is tried from then on fails.
///
/// Its folder is named `cairn-power-PID-…`: what a killed run left mounted is taken away by the next one.
// Safety: of one test at a time.
final class LoopDisk: @unchecked Sendable {
    enum Kind: String, Sendable, CaseIterable { case ext4, xfs }

    private static let prefix = "cairn-power-"
    private static var base: String { ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp" }

    let kind: Kind
    let mountPoint: String
    private let folder: String
    private let image: String
    private let work: WorkFolder
    private var isMounted = false

    /// Makes and mounts it.
    init(_ kind: Kind, megabytes: Int) async throws {
        self.kind = kind
        work = try WorkFolder()
        folder = "\(Self.base)/\(Self.prefix)\(getpid())-\(UInt32.random(in: .min ... .max))"
        mountPoint = folder + "/mount"
        image = folder + "/image"
        try FileManager.default.createDirectory(atPath: mountPoint, withIntermediateDirectories: true)
        guard FileManager.default.createFile(atPath: image, contents: nil),
            truncate(image, off_t(megabytes << 20)) == 0
        else { throw HarnessError("\(image) cannot be made") }
        let quiet = kind == .ext4 ? ["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"] : ["-q", "-f"]
        try await require("/usr/sbin/mkfs.\(kind)", quiet + [image], in: work)
        try await mount()
    }

    deinit {
        if isMounted { Self.unmount(mountPoint) }
        try? FileManager.default.removeItem(atPath: folder)
    }

    func mount() async throws {
        // The loop device goes with the mount.
        try await require("/usr/bin/mount", ["-o", "loop", image, mountPoint], in: work)
        isMounted = true
    }

    func unmount() async throws {
        // What was killed may be on its way out for another moment.
        try await eventually("\(mountPoint) can be unmounted") {
            try await run("/usr/bin/umount", [mountPoint], in: self.work).status == 0
        }
        isMounted = false
    }

    /// Now.
    func cutPower() throws {
        let descriptor = open(mountPoint, O_RDONLY | O_DIRECTORY)
        guard descriptor >= 0 else { throw HarnessError("\(mountPoint) cannot be opened") }
        defer { close(descriptor) }
        var withoutLogFlush: UInt32 = 2
        guard ioctl(descriptor, 0x8004_587d, &withoutLogFlush) == 0 else {
            throw HarnessError("FS_IOC_SHUTDOWN of \(kind): \(String(cString: strerror(errno)))")
        }
    }

    // MARK: What is there

    /// Why there can be none here; nil where there can be.
    static func isMissing(_ kind: Kind) async -> String? {
        guard getuid() == 0 else { return "only root can mount" }
        for program in ["/usr/sbin/mkfs.\(kind)", "/usr/bin/mount", "/usr/bin/umount"]
        where !FileManager.default.isExecutableFile(atPath: program) { return "\(program) is missing" }
        do {
            let disk = try await LoopDisk(kind, megabytes: 320)
            try disk.cutPower()
            try await disk.unmount()
            return nil
        } catch { return "\(error)" }
    }

    /// Takes away what runs left that were killed.
    static func removeStale() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: base)) ?? [] where name.hasPrefix(prefix) {
            let owner = name.dropFirst(prefix.count).prefix { $0 != "-" }
            guard !FileManager.default.fileExists(atPath: "/proc/\(owner)") else { continue }
            unmount("\(base)/\(name)/mount")
            try? FileManager.default.removeItem(atPath: "\(base)/\(name)")
        }
    }

    /// At once, whoever still has a file open there; nothing where nothing is mounted.
    private static func unmount(_ path: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/umount")
        process.arguments = ["-q", "-l", path]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return }
        process.waitUntilExit()
    }
}
