import CairnCore
import Glibc
import Synchronization

@testable import CairnLog

/// Segments in memory that behave as a disk does: what was not synced may be lost, sector by sector. It also fails, or
/// stops for good, at a call that the test names.
final class SimulatedStorage: SegmentStorage {
    enum Fault: Sendable {
        /// The call with this number (from 1), of those that change something, fails with a code, having done nothing.
        case fail(call: Int, code: Int32)
        /// The same, but a write has done its first half.
        case tear(call: Int, code: Int32)
        /// From this call on all fail: the process is dead.
        case kill(call: Int)
    }

    private struct Segment {
        var durable: [UInt8]
        var current: [UInt8]
        /// Ranges written since the last sync.
        var pending: [Range<Int>] = []
    }

    private struct Disk {
        var segments: [SegmentID: Segment] = [:]
        var superblock: [UInt8] = []
        var calls = 0
        var fault: Fault?
        var capacity = Int.max
    }

    private let disk = Mutex(Disk())

    /// Calls so far that change something.
    var calls: Int { disk.withLock { $0.calls } }

    func inject(_ fault: Fault?, fromNow: Bool = true) {
        disk.withLock { disk in
            if fromNow { disk.calls = 0 }
            disk.fault = fault
        }
    }

    func limit(bytes: Int) { disk.withLock { $0.capacity = bytes } }

    /// The power goes: each sector of what was not synced is kept or lost.
    func crash(keeping: (SegmentID, Int) -> Bool) {
        disk.withLock { disk in
            disk.fault = nil
            for (id, segment) in disk.segments {
                var durable = segment.durable
                for range in segment.pending {
                    for sector in stride(from: range.lowerBound, to: range.upperBound, by: 512)
                    where keeping(id, sector) {
                        let end = min(sector + 512, range.upperBound)
                        durable.replaceSubrange(sector..<end, with: segment.current[sector..<end])
                    }
                }
                disk.segments[id] = Segment(durable: durable, current: durable)
            }
        }
    }

    /// A disk with the same content, as after a crash that lost nothing.
    func copy() -> SimulatedStorage {
        let copy = SimulatedStorage()
        let (segments, superblock) = disk.withLock { ($0.segments, $0.superblock) }
        copy.disk.withLock { disk in
            disk.segments = segments.mapValues { Segment(durable: $0.current, current: $0.current) }
            disk.superblock = superblock
        }
        return copy
    }

    func bytes(_ segment: SegmentID) -> [UInt8] { disk.withLock { $0.segments[segment]!.current } }
    func superblock() -> [UInt8] { disk.withLock { $0.superblock } }
    func setSuperblock(_ bytes: [UInt8]) { disk.withLock { $0.superblock = bytes } }

    /// Changes bytes behind the log's back.
    func overwrite(_ segment: SegmentID, at offset: Int, _ bytes: [UInt8]) {
        disk.withLock { disk in
            disk.segments[segment]!.current.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            disk.segments[segment]!.durable.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
    }

    /// Counts a call; whether a write does half of its work before it fails.
    private func enter(
        _ disk: inout Disk,
        _ operation: StorageError.Operation,
        _ segment: SegmentID?
    ) throws(StorageError) {
        disk.calls += 1
        switch disk.fault {
        case .fail(let call, let code) where call == disk.calls, .tear(let call, let code) where call == disk.calls:
            throw StorageError(operation: operation, code: code, segment: segment)
        case .kill(let call) where disk.calls >= call:
            throw StorageError(operation: operation, code: EIO, segment: segment)
        default: break
        }
    }

    func create(_ segment: SegmentID, size: Int) throws(StorageError) {
        try disk.withLock { disk throws(StorageError) in
            try enter(&disk, .create, segment)
            guard (disk.segments.count + 1) * size <= disk.capacity else {
                throw StorageError(operation: .create, code: ENOSPC, segment: segment)
            }
            precondition(disk.segments[segment] == nil, "segment \(segment) is there already")
            let zeros = [UInt8](repeating: 0, count: size)
            disk.segments[segment] = Segment(durable: zeros, current: zeros)
        }
    }

    func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        precondition(
            offset.isMultiple(of: 4096) && bytes.count.isMultiple(of: 4096)
                && UInt(bitPattern: bytes.baseAddress) % 4096 == 0
        )
        // Safety: used only while this call lasts.
        nonisolated(unsafe) let bytes = bytes
        try disk.withLock { disk throws(StorageError) in
            guard disk.segments[segment] != nil else {
                throw StorageError(operation: .write, code: ENOENT, segment: segment)
            }
            func put(_ count: Int) {
                disk.segments[segment]!.current.withUnsafeMutableBytes {
                    UnsafeMutableRawBufferPointer(rebasing: $0[offset..<offset + count])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
                }
                disk.segments[segment]!.pending.append(offset..<offset + count)
            }
            do throws(StorageError) { try enter(&disk, .write, segment) } catch {
                if case .tear = disk.fault { put(bytes.count / 1024 * 512) }
                throw error
            }
            put(bytes.count)
        }
    }

    func sync(_ segment: SegmentID) throws(StorageError) {
        try disk.withLock { disk throws(StorageError) in
            try enter(&disk, .sync, segment)
            guard let state = disk.segments[segment] else {
                throw StorageError(operation: .sync, code: ENOENT, segment: segment)
            }
            disk.segments[segment] = nil
            var durable = state.durable
            for range in state.pending { durable.replaceSubrange(range, with: state.current[range]) }
            disk.segments[segment] = Segment(durable: durable, current: state.current)
        }
    }

    func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError)
        -> Int
    {
        // Safety: used only while this call lasts.
        nonisolated(unsafe) let target = target
        return try disk.withLock { disk throws(StorageError) in
            guard let bytes = disk.segments[segment]?.current else {
                throw StorageError(operation: .read, code: ENOENT, segment: segment)
            }
            let count = max(0, min(target.count, bytes.count - offset))
            bytes.withUnsafeBytes { raw in
                if count > 0 { target.copyMemory(from: UnsafeRawBufferPointer(rebasing: raw[offset..<offset + count])) }
            }
            return count
        }
    }

    func list() throws(StorageError) -> [SegmentID] { disk.withLock { Array($0.segments.keys) } }

    func delete(_ segment: SegmentID) throws(StorageError) {
        try disk.withLock { disk throws(StorageError) in
            try enter(&disk, .delete, segment)
            disk.segments[segment] = nil
        }
    }

    func readSuperblock() throws(StorageError) -> [UInt8] { disk.withLock { $0.superblock } }

    func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) {
        try disk.withLock { disk throws(StorageError) in
            let start = slot * 4096
            if disk.superblock.count < start + 4096 {
                disk.superblock += [UInt8](repeating: 0, count: start + 4096 - disk.superblock.count)
            }
            do throws(StorageError) { try enter(&disk, .writeSuperblock, nil) } catch {
                // Worse than a disk with sectors: the middle of the fields.
                if case .fail = disk.fault {
                } else {
                    disk.superblock.replaceSubrange(start..<start + 44, with: bytes[..<44])
                }
                throw error
            }
            disk.superblock.replaceSubrange(start..<start + 4096, with: bytes)
        }
    }
}
