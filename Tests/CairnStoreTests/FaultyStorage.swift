import CairnLog
import CairnTesting
import Glibc
import Synchronization

/// What calls of a storage meet: one of them fails, or several in a row. It outlives the storage: a recovery opens the files anew.
///
/// A sync that fails may have lost anything that was written since the last one, and then says no more about it: so do disks, and
/// so does the kernel.
final class FaultyDisk: Sendable {
    struct Fault {
        enum Kind: CaseIterable {
            /// EIO, and nothing was done.
            case error
            /// ENOSPC, and nothing was done.
            case noSpace
            /// EIO, and a write has done its first half; of others nothing was done.
            case short
            /// EIO, though all of it was done.
            case late
        }
        /// They are counted apart: reads are many, and mostly the same again.
        enum Calls {
            case changes
            /// Also of the superblock, and the list of segments. They fail by EIO alone.
            case reads
        }
        /// From 1, counted from ``arm(_:)``.
        let call: Int
        /// How many calls fail, from that one on.
        let length: Int
        let kind: Kind
        var calls = Calls.changes
    }

    fileprivate struct State {
        var changes = 0
        var reads = 0
        var fault: Fault?
        var hits = 0
        var random: SeededRandom
        /// What unsynced writes have overwritten, by segment, the oldest first.
        var overwritten: [SegmentID: [(offset: Int, bytes: [UInt8])]] = [:]
    }

    fileprivate let state: Mutex<State>

    init(seed: UInt64) { state = Mutex(State(random: SeededRandom(seed: seed))) }

    /// How many calls have failed.
    var hits: Int { state.withLock { $0.hits } }

    func arm(_ fault: Fault?) {
        state.withLock { state in
            (state.changes, state.reads, state.fault) = (0, 0, fault)
        }
    }

    /// Counts a call; how it fails, if it does.
    fileprivate func enter(_ calls: Fault.Calls) -> Fault.Kind? {
        state.withLock { state in
            switch calls {
            case .changes: state.changes += 1
            case .reads: state.reads += 1
            }
            let number = calls == .changes ? state.changes : state.reads
            guard let fault = state.fault, fault.calls == calls, number >= fault.call,
                number < fault.call + fault.length
            else { return nil }
            state.hits += 1
            return fault.kind
        }
    }
}

/// Segments on a real disk, seen through a ``FaultyDisk``.
struct FaultyStorage: SegmentStorage {
    private static let block = 4096
    let files: any SegmentStorage
    let disk: FaultyDisk

    private func call(
        _ operation: StorageError.Operation,
        _ segment: SegmentID? = nil,
        short: () throws(StorageError) -> Void = { () throws(StorageError) in },
        _ body: () throws(StorageError) -> Void
    ) throws(StorageError) {
        guard let kind = disk.enter(.changes) else { return try body() }
        switch kind {
        case .error, .noSpace: break
        case .short: try short()
        case .late: try body()
        }
        throw StorageError(operation: operation, code: kind == .noSpace ? ENOSPC : EIO, segment: segment)
    }

    /// A call that changes nothing.
    private func look<Value>(
        _ operation: StorageError.Operation,
        _ segment: SegmentID? = nil,
        _ body: () throws(StorageError) -> Value
    ) throws(StorageError) -> Value {
        guard let kind = disk.enter(.reads) else { return try body() }
        if kind == .late { _ = try body() }
        throw StorageError(operation: operation, code: EIO, segment: segment)
    }

    func create(_ segment: SegmentID, size: Int) throws(StorageError) {
        try call(.create, segment) { () throws(StorageError) in try files.create(segment, size: size) }
    }

    func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        var old = [UInt8](repeating: 0, count: bytes.count)
        let read = old.withUnsafeMutableBytes { target in
            Result { () throws(StorageError) in try files.read(segment, at: offset, into: target) }
        }
        _ = try read.get()
        disk.state.withLock { $0.overwritten[segment, default: []].append((offset, old)) }
        try call(.write, segment) { () throws(StorageError) in
            let half = bytes.count / 2 / Self.block * Self.block
            try files.write(segment, at: offset, UnsafeRawBufferPointer(rebasing: bytes[..<half]))
        } _: { () throws(StorageError) in
            try files.write(segment, at: offset, bytes)
        }
    }

    func sync(_ segment: SegmentID) throws(StorageError) {
        var isDone = false
        do throws(StorageError) {
            try call(.sync, segment) { () throws(StorageError) in
                try files.sync(segment)
                isDone = true
            }
        } catch {
            if !isDone { try lose(segment) }
            throw error
        }
        disk.state.withLock { $0.overwritten[segment] = nil }
    }

    /// Of what was written since the last sync each block is there or not.
    private func lose(_ segment: SegmentID) throws(StorageError) {
        let lost = disk.state.withLock { state in
            defer { state.overwritten[segment] = nil }
            var lost: [(offset: Int, bytes: ArraySlice<UInt8>)] = []
            for (offset, bytes) in (state.overwritten[segment] ?? []).reversed() {
                for start in stride(from: 0, to: bytes.count, by: Self.block) where state.random.chance(50) {
                    lost.append((offset + start, bytes[start..<start + Self.block]))
                }
            }
            return lost
        }
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.block, alignment: Self.block)
        defer { memory.deallocate() }
        for (offset, bytes) in lost {
            memory.copyBytes(from: bytes)
            try files.write(segment, at: offset, UnsafeRawBufferPointer(memory))
        }
        try files.sync(segment)
    }

    func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError)
        -> Int
    {
        try look(.read, segment) { () throws(StorageError) in try files.read(segment, at: offset, into: target) }
    }

    func list() throws(StorageError) -> [SegmentID] {
        try look(.list) { () throws(StorageError) in try files.list() }
    }

    func delete(_ segment: SegmentID) throws(StorageError) {
        try call(.delete, segment) { () throws(StorageError) in
            try files.delete(segment)
            disk.state.withLock { $0.overwritten[segment] = nil }
        }
    }

    func readSuperblock() throws(StorageError) -> [UInt8] {
        try look(.readSuperblock) { () throws(StorageError) in try files.readSuperblock() }
    }

    func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) {
        try call(.writeSuperblock) { () throws(StorageError) in try files.writeSuperblock(slot: slot, bytes) }
    }
}
