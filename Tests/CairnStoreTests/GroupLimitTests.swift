import CairnCore
import Testing

@testable import CairnStore

/// One call must never cost another its answer, nor the shard its life, whatever it holds.
@Suite struct GroupLimitTests {
    @Test("U2: a call with thousands of parts of one chunk is carried out, or refused alone; the shard goes on")
    func manyParts() throws {
        let scratch = try ScratchStore(segmentBytes: 64 << 20)
        let volume = try scratch.volume(chunk: 4 << 20)
        let part = noise(512, 1)
        let count = 1000
        try scratch.change(records: count, bytes: 512 * count, entries: count) { (transaction) throws(StoreError) in
            for index in 0..<count { try transaction.writePatch(at: UInt64(index) * 1024, part, of: volume) }
        }
        #expect(scratch.shard.fenceReason == nil)
        let pieces = try scratch.shard.read(ReadSource(volume), [999 * 1024..<1000 * 1024], acceptsLZ4: false)
        guard case .plain(let bytes, _) = pieces[0].content else { throw Unexpected() }
        #expect(Array(bytes.bytes.prefix(512)) == Array(part.bytes))
        #expect(bytes.bytes.suffix(512).allSatisfy { $0 == 0 })
    }

    @Test("a commit beyond every limit is refused alone: no other call fails, the shard is not fenced")
    func hugeCommit() throws {
        let scratch = try ScratchStore(segmentBytes: 1 << 20)
        let volume = try scratch.volume()
        let error = #expect(throws: StoreError.self) {
            try scratch.change { (transaction) throws(StoreError) in
                for key in 0..<400 {
                    let record = IdempotencyRecord(
                        call: .createVolume,
                        parameters: Fingerprint(bytes: Array(repeating: 1, count: 32))!,
                        answer: Array(repeating: 7, count: 1024),
                        createdAt: 1
                    )
                    try transaction.putIdempotencyRecord(
                        record,
                        account: ScratchStore.account,
                        key: [UInt8(key & 255), UInt8(key >> 8)]
                    )
                }
            }
        }
        #expect(error?.code == .invalid && error?.text.contains("fewer blocks") == true)
        #expect(scratch.shard.fenceReason == nil)
        _ = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: volume, description: "", tags: [:])
        }
    }

    @Test("a full payload of chunks that do not compress fits in one call")
    func fullPayload() throws {
        let scratch = try ScratchStore(segmentBytes: 64 << 20)
        let volume = try scratch.volume(32 << 20, chunk: 4 << 10)
        let count = Limits.payloadBytes / 4096
        let chunks = (0..<count).map { chunkData(noise(4096, UInt64($0) + 9)) }
        try scratch.change(records: count, bytes: Limits.payloadBytes, entries: count) {
            (transaction) throws(StoreError) in
            for (index, data) in chunks.enumerated() {
                try transaction.writeChunk(ChunkIndex(UInt64(index)), of: volume, .data(data))
            }
        }
        #expect(try scratch.shard.makeView().holdsChunk(account: ScratchStore.account, chunks[count - 1].fingerprint))
    }

    struct Unexpected: Error {}
}
