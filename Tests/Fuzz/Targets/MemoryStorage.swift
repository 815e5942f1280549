import CairnLog
import Glibc
import Synchronization

/// Segments as arrays: cheap to copy from a template, and as short as what was written to them.
final class MemoryStorage: SegmentStorage {
    struct Image: Sendable {
        var segments: [SegmentID: [UInt8]] = [:]
        /// Two slots.
        var superblock: [UInt8] = []
    }

    private let image: Mutex<Image>

    init(_ image: Image) { self.image = Mutex(image) }

    private static func missing(_ operation: StorageError.Operation, _ segment: SegmentID) -> StorageError {
        StorageError(operation: operation, code: ENOENT, segment: segment)
    }

    func create(_ segment: SegmentID, size: Int) throws(StorageError) {
        image.withLock { image in
            precondition(image.segments[segment] == nil, "segment \(segment) is there already")
            image.segments[segment] = []
        }
    }

    func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        precondition(offset.isMultiple(of: 4096) && bytes.count.isMultiple(of: 4096))
        // Safety: used only while this call lasts.
        nonisolated(unsafe) let bytes = bytes
        try image.withLock { image throws(StorageError) in
            guard let count = image.segments[segment]?.count else { throw Self.missing(.write, segment) }
            let end = offset + bytes.count
            if count < end { image.segments[segment]! += [UInt8](repeating: 0, count: end - count) }
            image.segments[segment]!.replaceSubrange(offset..<end, with: bytes)
        }
    }

    func sync(_ segment: SegmentID) throws(StorageError) {
        try image.withLock { image throws(StorageError) in
            if image.segments[segment] == nil { throw Self.missing(.sync, segment) }
        }
    }

    func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError)
        -> Int
    {
        // Safety: used only while this call lasts.
        nonisolated(unsafe) let target = target
        return try image.withLock { image throws(StorageError) in
            guard let bytes = image.segments[segment] else { throw Self.missing(.read, segment) }
            let count = max(0, min(target.count, bytes.count - offset))
            bytes.withUnsafeBytes { raw in
                if count > 0 { target.copyMemory(from: UnsafeRawBufferPointer(rebasing: raw[offset..<offset + count])) }
            }
            return count
        }
    }

    func list() throws(StorageError) -> [SegmentID] { image.withLock { Array($0.segments.keys) } }
    func delete(_ segment: SegmentID) throws(StorageError) { image.withLock { $0.segments[segment] = nil } }
    func readSuperblock() throws(StorageError) -> [UInt8] { image.withLock { $0.superblock } }

    func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) {
        image.withLock { image in
            let missing = (slot + 1) * 4096 - image.superblock.count
            if missing > 0 { image.superblock += [UInt8](repeating: 0, count: missing) }
            image.superblock.replaceSubrange(slot * 4096..<(slot + 1) * 4096, with: bytes)
        }
    }
}
