import Foundation

/// Folders of models that crash by being copied: no fsync is proved by that, so they may as well be in memory.
extension Torture {
    /// A name that is free, in memory where there is room, else on the disk.
    public static func scratchFolder(_ name: String) -> String {
        let memory = "/dev/shm"
        let facts = try? FileManager.default.attributesOfFileSystem(forPath: memory)
        let free = (facts?[.systemFreeSize] as? NSNumber)?.uint64Value ?? 0
        let root = free > 2 << 30 ? memory + "/" : NSTemporaryDirectory()
        return root + name + "-" + UUID().uuidString
    }

    /// Copies a folder with what is in it; of its files only what is not a hole, and blocks of zeros become holes.
    public static func copySparse(_ folder: String, to copy: String) throws {
        try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
        for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
            let (from, to) = ("\(folder)/\(name)", "\(copy)/\(name)")
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: from, isDirectory: &isFolder) else {
                throw CocoaError(.fileNoSuchFile)
            }
            if isFolder.boolValue { try copySparse(from, to: to) } else { try copyFile(from, to) }
        }
    }

    public struct NeverAtRest: Error {}

    /// ``copySparse(_:to:)`` of a store that nobody changes. RocksDB compacts on its own: a copy counts only if no file came or went
    /// meanwhile.
    /// - Parameter pause: before each further attempt, in microseconds; 50 in all.
    public static func copyAtRest(_ folder: String, to copy: String, pause: UInt32) throws {
        for _ in 0..<50 {
            let before = try FileManager.default.subpathsOfDirectory(atPath: folder)
            let isCopied = (try? copySparse(folder, to: copy)) != nil
            if isCopied, try before == FileManager.default.subpathsOfDirectory(atPath: folder) { return }
            try? FileManager.default.removeItem(atPath: copy)
            usleep(pause)
        }
        throw NeverAtRest()
    }

    /// Of lseek(2), which Glibc's module does not show.
    private static let (seekData, seekHole): (Int32, Int32) = (3, 4)

    private static func copyFile(_ from: String, _ to: String) throws {
        let source = open(from, O_RDONLY | O_CLOEXEC)
        guard source >= 0 else { throw CocoaError(.fileReadUnknown) }
        defer { close(source) }
        let target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard target >= 0 else { throw CocoaError(.fileWriteUnknown) }
        defer { close(target) }
        let size = lseek(source, 0, SEEK_END)
        guard size >= 0, ftruncate(target, size) == 0 else { throw CocoaError(.fileWriteUnknown) }
        var place: off_t = 0
        while place < size {
            let start = lseek(source, place, Self.seekData)
            guard start >= 0 else { break }
            let end = lseek(source, start, Self.seekHole)
            try copyRange(source, target, start..<(end < 0 ? size : end))
            place = end < 0 ? size : end
        }
    }

    private static func copyRange(_ source: Int32, _ target: Int32, _ range: Range<off_t>) throws {
        let step = 64 << 10
        try withUnsafeTemporaryAllocation(byteCount: step, alignment: 4096) { buffer in
            var place = range.lowerBound
            while place < range.upperBound {
                let count = pread(source, buffer.baseAddress!, min(step, Int(range.upperBound - place)), place)
                guard count > 0 else { throw CocoaError(.fileReadUnknown) }
                let words = UnsafeRawBufferPointer(rebasing: buffer[0..<count])
                let isZero = memcmp(words.baseAddress!, words.baseAddress! + 1, max(0, count - 1)) == 0 && words[0] == 0
                if !isZero, pwrite(target, words.baseAddress!, count, place) != count {
                    throw CocoaError(.fileWriteUnknown)
                }
                place += off_t(count)
            }
        }
    }
}
