import CairnCore
import Testing

@testable import CairnStore

/// Reads of a little from many chunks.
@Suite struct RangeReadTests {
    private static let chunk = 1 << 20
    private static let chunks = 80

    private func fill(_ scratch: ScratchStore, _ volume: VolumeRecord, seed: UInt64) throws {
        for first in stride(from: 0, to: Self.chunks, by: 2) {
            try scratch.change(records: 2, bytes: 2 * Self.chunk, entries: 64) { (transaction) throws(StoreError) in
                for index in first..<first + 2 {
                    let data = chunkData(noise(Self.chunk, seed + UInt64(index)))
                    try transaction.writeChunk(ChunkIndex(UInt64(index)), of: volume, .data(data))
                }
            }
        }
    }

    /// A sector of each chunk, in no order, and one of them several times.
    private static let ranges: [Range<UInt64>] = {
        var order = (0..<chunks).map { $0 * 37 % chunks }
        order.insert(contentsOf: [3, 3, 4, 3], at: 40)
        return order.enumerated().map { number, index in
            let start = UInt64(index * chunk + number * 512)
            return start..<start + 512
        }
    }()

    private func expect(_ pieces: [ReadPiece], seed: UInt64) {
        #expect(pieces.map { $0.offset..<$0.offset + UInt64($0.length) } == Self.ranges)
        for piece in pieces {
            guard case .plain(let bytes, _) = piece.content else {
                Issue.record("no data at \(piece.offset)")
                continue
            }
            let (index, start) = (Int(piece.offset) / Self.chunk, Int(piece.offset) % Self.chunk)
            let whole = noise(Self.chunk, seed + UInt64(index))
            let isRight = withExtendedLifetime((bytes, whole)) {
                bytes.bytes.elementsEqual(whole.part(start..<start + 512).bytes)
            }
            #expect(isRight, "at \(piece.offset)")
        }
    }

    @Test(
        "D1: a sector of each of many chunks, in any order: few chunks are in memory at a time, and none with the answer"
    )
    func scattered() throws {
        let scratch = try ScratchStore(segmentBytes: 16 << 20)
        let volume = try scratch.volume(UInt64(Self.chunks * Self.chunk), chunk: Self.chunk)
        try fill(scratch, volume, seed: 1000)
        var read = RangeRead(scratch.shard, ReadSource(volume), Self.ranges, acceptsLZ4: true)
        var steps = 1
        while try !read.step() { steps += 1 }
        #expect(steps == (Self.chunks * Self.chunk + RangeRead.stepBytes - 1) / RangeRead.stepBytes)
        expect(read.pieces, seed: 1000)
        let buffers = read.pieces.compactMap(\.content.bytes?.buffer)
        let held = Dictionary(buffers.map { (ObjectIdentifier($0), $0.memory.count) }) { first, _ in first }
        #expect(held.values.reduce(0, +) <= 4 * Self.ranges.count * 512)
    }

    @Test("D1: what is written over and recycled between the steps: all is as it was at one time")
    func recycledBetweenSteps() throws {
        let scratch = try ScratchStore(segmentBytes: 16 << 20) { $0.spareSegments = 1 }
        let volume = try scratch.volume(UInt64(Self.chunks * Self.chunk), chunk: Self.chunk)
        try fill(scratch, volume, seed: 1000)
        var read = RangeRead(scratch.shard, ReadSource(volume), Self.ranges, acceptsLZ4: true)
        #expect(try !read.step())
        try fill(scratch, volume, seed: 5000)
        // What was written over is gone: half of it stays if nothing is recycled.
        let isRecycled = scratch.eventually {
            scratch.shard.log.segments.count { $0.use == .closed } <= Self.chunks / 16 + 2
        }
        #expect(isRecycled, "\(scratch.shard.log.segments.count { $0.use == .closed }) segments")
        while try !read.step() {}
        expect(read.pieces, seed: 5000)
    }
}
