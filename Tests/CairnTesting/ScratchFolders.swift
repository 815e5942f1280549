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

    /// Opens a store again: RocksDB is let go of with the last of its users, which may be a moment after the store is.
    public static func reopening<Store>(_ open: () throws -> Store) throws -> Store {
        let end = Date() + 10
        while true {
            do { return try open() } catch {
                guard "\(error)".contains("lock hold by current process"), Date() < end else { throw error }
                usleep(5_000)
            }
        }
    }
}
