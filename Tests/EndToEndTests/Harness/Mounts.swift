import Foundation

/// What the machine lets tests do.
enum Mounts {
    static let isAllowed: Bool = {
        guard getuid() == 0, let folder = try? WorkFolder(),
            succeeds("/bin/mount", ["-t", "tmpfs", "-o", "size=1m", "cairn-e2e", folder.path])
        else { return false }
        return succeeds("/bin/umount", [folder.path])
    }()

    static let hasLoopDevices: Bool = {
        guard getuid() == 0, let folder = try? WorkFolder(),
            (try? Image.make(folder.file("disk"), size: 1 << 20, [])) != nil
        else { return false }
        let script = "device=$(losetup -f --show \"$1\") && losetup -d \"$device\""
        return succeeds("/bin/sh", ["-c", script, "sh", folder.file("disk")])
    }()

    static func attach(_ file: String, in folder: WorkFolder) async throws -> String {
        try await require("/sbin/losetup", ["-f", "--show", file], in: folder).trimmingCharacters(
            in: .whitespacesAndNewlines
        )
    }

    static func detach(_ device: String) { _ = succeeds("/sbin/losetup", ["-d", device]) }

    private static func succeeds(_ program: String, _ arguments: [String]) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}
