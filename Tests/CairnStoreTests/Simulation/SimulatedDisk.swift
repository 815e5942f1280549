import CairnCore
import CairnTesting
import Glibc

@testable import CairnLog
@testable import CairnStore

/// Segments on a disk that does what it may: what was not synced survives a power cut by chance, block by block, in any order, torn at
/// sectors; calls fail; there is an end to its space. Within its calls other things happen first.
// Safety: used by whoever has the simulation's baton.
final class SimulatedDisk: SegmentStorage, @unchecked Sendable {
    private typealias Block = [UInt8]

    private struct Segment {
        /// By number; nil where nothing was ever written: then it is `filler`.
        var durable: [Block?]
        var current: [Block?]
        /// Written since the last sync, in order: blocks may stand here more than once.
        var pending: [(index: Int, block: Block)] = []
        let filler: Block

        mutating func write(_ index: Int, _ block: Block) {
            current[index] = block
            pending.append((index, block))
        }
    }

    /// What goes wrong in one of so many calls of each kind; nil: nothing.
    struct Faults {
        var writing: Int?
        var reading: Int?
    }

    private let simulation: Simulation
    /// Segments that fit.
    var capacity = Int.max
    var faults = Faults()
    /// Says that it has synced, and has not: what the simulation must find out.
    var lies = false
    /// Calls that failed though there was no reason.
    private(set) var injected = 0
    /// Segments that began another life.
    private(set) var recycled = 0
    private var segments: [SegmentID: Segment] = [:]
    private var superblock: [UInt8] = []
    private var graveyard: [SegmentID: [Block?]] = [:]

    init(_ simulation: Simulation) { self.simulation = simulation }

    // MARK: The power goes

    func cutPower() {
        for id in segments.keys.sorted() {
            guard var segment = segments.removeValue(forKey: id) else { continue }
            segment.durable = survivors(of: segment, segment.pending)
            segment.current = segment.durable
            segment.pending = []
            segments[id] = segment
        }
    }

    /// What a power cut leaves: the cache writes blocks when and in what order it likes.
    private func survivors(of segment: Segment, _ pending: [(index: Int, block: Block)]) -> [Block?] {
        var blocks = segment.durable
        let percent = [0, 10, 50, 90, 100][simulation.random.below(5)]
        for (index, block) in pending.shuffled(using: &simulation.random) where simulation.random.chance(percent) {
            guard simulation.random.chance(20) else {
                blocks[index] = block
                continue
            }
            var torn = blocks[index] ?? segment.filler
            for sector in stride(from: 0, to: Format.block, by: 512) where simulation.random.chance(50) {
                torn.replaceSubrange(sector..<sector + 512, with: block[sector..<sector + 512])
            }
            blocks[index] = torn
        }
        return blocks
    }

    /// Of everything that a power cut would leave now.
    var durableHash: UInt32 {
        var sum = superblock.withUnsafeBytes { CRC32C.extend(0, $0) }
        for id in segments.keys.sorted() {
            for block in segments[id]!.durable { block?.withUnsafeBytes { sum = CRC32C.extend(sum, $0) } }
        }
        return sum
    }

    // MARK: Failing

    private func fail(_ operation: StorageError.Operation, _ segment: SegmentID?, _ code: Int32) -> StorageError {
        simulation.note(0xbad, UInt64(code))
        return StorageError(operation: operation, code: code, segment: segment)
    }

    private func checkAlive(_ operation: StorageError.Operation, _ segment: SegmentID?) throws(StorageError) {
        if simulation.machine.isDead { throw StorageError(operation: operation, code: EIO, segment: segment) }
    }

    /// The code with which the call is to fail, though it has no reason to.
    private func fault(_ rate: Int?) -> Int32? {
        guard let rate, simulation.random.below(rate) == 0 else { return nil }
        injected += 1
        return simulation.random.chance(70) ? EIO : ENOSPC
    }

    // MARK: SegmentStorage

    func create(_ segment: SegmentID, size: Int) throws(StorageError) {
        try checkAlive(.create, segment)
        simulation.note(1, UInt64(segment.rawValue))
        simulation.pause()
        try checkAlive(.create, segment)
        let code = fault(faults.writing)
        // Out of space it leaves nothing behind; another failure may come after the name was made.
        if let code, code == ENOSPC || simulation.random.chance(50) { throw fail(.create, segment, code) }
        guard segments.count < capacity else { throw fail(.create, segment, ENOSPC) }
        precondition(segments[segment] == nil, "segment \(segment) is there already")
        let count = size / Format.block
        var blocks = [Block?](repeating: nil, count: count)
        // Its content is undefined: perhaps what the segment of that name held once.
        if let buried = graveyard[segment], simulation.random.chance(50) { blocks = buried }
        let noise = simulation.random.chance(50) ? simulation.random.bytes(Format.block) : nil
        segments[segment] = Segment(
            durable: blocks,
            current: blocks,
            filler: noise ?? Block(repeating: 0, count: Format.block)
        )
        simulation.pause()
        if let code { throw fail(.create, segment, code) }
        try checkAlive(.create, segment)
    }

    func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        precondition(
            offset.isMultiple(of: Format.block) && bytes.count.isMultiple(of: Format.block)
                && UInt(bitPattern: bytes.baseAddress) % UInt(Format.block) == 0
        )
        try checkAlive(.write, segment)
        guard segments[segment] != nil else { throw fail(.write, segment, ENOENT) }
        simulation.note(2, UInt64(segment.rawValue), UInt64(offset), UInt64(CRC32C.extend(0, bytes)))
        if offset == 0, segments[segment]?.current[0] != nil { recycled += 1 }
        let count = bytes.count / Format.block
        let part = simulation.random.below(count + 1)
        let code = fault(faults.writing)
        for index in 0..<count {
            if index == part {
                simulation.pause()
                try checkAlive(.write, segment)
                if let code { throw fail(.write, segment, code) }
            }
            let start = index * Format.block
            let block = Block(UnsafeRawBufferPointer(rebasing: bytes[start..<start + Format.block]))
            segments[segment]?.write(offset / Format.block + index, block)
        }
        simulation.pause()
        try checkAlive(.write, segment)
        if let code { throw fail(.write, segment, code) }
    }

    func sync(_ segment: SegmentID) throws(StorageError) {
        try checkAlive(.sync, segment)
        guard var state = segments[segment] else { throw fail(.sync, segment, ENOENT) }
        simulation.note(3, UInt64(segment.rawValue), UInt64(state.pending.count))
        // What is written while it lasts is not among it.
        let covered = state.pending.count
        let code = fault(faults.writing)
        simulation.pause(80)
        try checkAlive(.sync, segment)
        guard let now = segments.removeValue(forKey: segment) else { throw fail(.sync, segment, ENOENT) }
        state = now
        let rest = Array(state.pending[covered...])
        if code != nil {
            // Some of it is on the disk, and the rest nowhere any more.
            state.durable = survivors(of: state, Array(state.pending[..<covered]))
            state.current = state.durable
            for (index, block) in rest { state.current[index] = block }
        } else if !lies {
            for (index, block) in state.pending[..<covered] { state.durable[index] = block }
        }
        if !lies || code != nil { state.pending = rest }
        segments[segment] = state
        simulation.pause()
        if let code { throw fail(.sync, segment, code) }
        try checkAlive(.sync, segment)
    }

    func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError)
        -> Int
    {
        try checkAlive(.read, segment)
        simulation.pause(5)
        try checkAlive(.read, segment)
        if fault(faults.reading) != nil { throw fail(.read, segment, EIO) }
        guard let state = segments[segment] else { throw fail(.read, segment, ENOENT) }
        let count = max(0, min(target.count, state.current.count * Format.block - offset))
        var done = 0
        while done < count {
            let (index, start) = ((offset + done) / Format.block, (offset + done) % Format.block)
            let length = min(Format.block - start, count - done)
            (state.current[index] ?? state.filler).withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: target[done..<done + length])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + length]))
            }
            done += length
        }
        return count
    }

    func list() throws(StorageError) -> [SegmentID] {
        try checkAlive(.list, nil)
        if fault(faults.reading) != nil { throw fail(.list, nil, EIO) }
        return segments.keys.sorted().shuffled(using: &simulation.random)
    }

    func delete(_ segment: SegmentID) throws(StorageError) {
        try checkAlive(.delete, segment)
        simulation.note(4, UInt64(segment.rawValue))
        simulation.pause()
        try checkAlive(.delete, segment)
        let code = fault(faults.writing)
        if let code, simulation.random.chance(50) { throw fail(.delete, segment, code) }
        guard let state = segments.removeValue(forKey: segment) else { throw fail(.delete, segment, ENOENT) }
        graveyard[segment] = state.current
        simulation.pause()
        if let code { throw fail(.delete, segment, code) }
        try checkAlive(.delete, segment)
    }

    func readSuperblock() throws(StorageError) -> [UInt8] {
        try checkAlive(.readSuperblock, nil)
        if fault(faults.reading) != nil { throw fail(.readSuperblock, nil, EIO) }
        return superblock
    }

    func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) {
        try checkAlive(.writeSuperblock, nil)
        simulation.note(5, UInt64(slot))
        let start = slot * Format.block
        if superblock.count < start + Format.block {
            superblock += [UInt8](repeating: 0, count: start + Format.block - superblock.count)
        }
        let code = fault(faults.writing)
        // While it is written, any sector is the old or the new one.
        for sector in stride(from: 0, to: Format.block, by: 512) where simulation.random.chance(50) {
            superblock.replaceSubrange(start + sector..<start + sector + 512, with: bytes[sector..<sector + 512])
        }
        simulation.pause()
        try checkAlive(.writeSuperblock, nil)
        if let code, simulation.random.chance(50) { throw fail(.writeSuperblock, nil, code) }
        superblock.replaceSubrange(start..<start + Format.block, with: bytes)
        simulation.pause()
        if let code { throw fail(.writeSuperblock, nil, code) }
        try checkAlive(.writeSuperblock, nil)
    }
}
