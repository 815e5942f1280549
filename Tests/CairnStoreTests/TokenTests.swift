import CairnCore
import Testing

@testable import CairnStore

@Suite struct TokenTests {
    @Test("a token stands for a chunk of the same size only", arguments: [(64 << 10, 4 << 10), (4 << 10, 64 << 10)])
    func otherChunkSize(sizes: (Int, Int)) throws {
        let scratch = try ScratchStore()
        let origin = try scratch.volume(chunk: sizes.0)
        let target = try scratch.volume(chunk: sizes.1)
        let data = chunkData(noise(sizes.0, 3))
        try scratch.change(records: 1, bytes: sizes.0) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: origin, .data(data))
        }
        let error = #expect(throws: StoreError.self) {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.writeChunk(ChunkIndex(0), of: target, .token(data.fingerprint))
            }
        }
        #expect(error?.code == .invalid)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(1), of: origin, .token(data.fingerprint))
        }
    }
}
