import Foundation

/// Folders of models that crash as processes do: no fsync is proved by that, so they may as well be in memory.
extension Torture {
    /// A name that is free, in memory where there is room, else on the disk.
    public static func scratchFolder(_ name: String) -> String {
        let memory = "/dev/shm"
        let facts = try? FileManager.default.attributesOfFileSystem(forPath: memory)
        let free = (facts?[.systemFreeSize] as? NSNumber)?.uint64Value ?? 0
        let root = free > 2 << 30 ? memory + "/" : NSTemporaryDirectory()
        return root + name + "-" + UUID().uuidString
    }
}
