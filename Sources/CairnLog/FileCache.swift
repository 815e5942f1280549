internal import Synchronization

/// Keeps a bounded number of files open. One that is dropped while somebody uses it is closed by its last user.
final class FileCache: Sendable {
    private struct Entries {
        var files: [SegmentID: (file: OpenFile, used: UInt64)] = [:]
        var clock: UInt64 = 0
    }

    private let limit: Int
    private let entries = Mutex(Entries())

    init(limit: Int) { self.limit = limit }

    /// The segment's file: kept, or opened now in place of the one that was not used for longest.
    func file(_ segment: SegmentID, open: () throws(SystemError) -> OpenFile) throws(SystemError) -> OpenFile {
        let kept = entries.withLock { entries -> OpenFile? in
            entries.clock += 1
            entries.files[segment]?.used = entries.clock
            return entries.files[segment]?.file
        }
        if let kept { return kept }
        // Opened without the lock: two that open the same file at once do no harm.
        let file = try open()
        entries.withLock { entries in
            if entries.files[segment] == nil, entries.files.count >= limit,
                let oldest = entries.files.min(by: { $0.value.used < $1.value.used })
            {
                entries.files[oldest.key] = nil
            }
            entries.files[segment] = (file, entries.clock)
        }
        return file
    }

    /// The segment's file, where it is open.
    func openFile(_ segment: SegmentID) -> OpenFile? { entries.withLock { $0.files[segment]?.file } }

    func remove(_ segment: SegmentID) {
        entries.withLock { $0.files[segment] = nil }
    }
}
