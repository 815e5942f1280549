import CairnCore
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import CairnStore

/// What new chunks cost the shard's queue: `CAIRN_MEASURE=1 swift test -c release --filter QueueTimeTests`.
@Suite struct QueueTimeTests {
    @Test(
        "64 new chunks of 64 KiB in a call",
        .enabled(if: ProcessInfo.processInfo.environment["CAIRN_MEASURE"] != nil)
    )
    func newChunks() throws {
        let scratch = try ScratchStore(segmentBytes: 64 << 20)
        let volume = try scratch.volume(64 << 30)
        let bytes = noise(64 << 10, 1)
        let spent = Mutex<UInt64>(0)
        let (calls, perCall) = (200, 64)
        let begin = DispatchTime.now().uptimeNanoseconds
        for call in 0..<calls {
            let chunks = (0..<perCall).map { index in
                let number = UInt64(call * perCall + index)
                // A fingerprint of its own without hashing: random enough for the index.
                let words = (0..<4).map { (number &+ UInt64($0) + 1) &* 0x9e37_79b9_7f4a_7c15 }
                let print = words.withUnsafeBytes { Fingerprint($0) }
                return ChunkData(fingerprint: print, rawLength: 64 << 10, rawChecksum: 0, codec: .raw, bytes: bytes)
            }
            try scratch.change(records: perCall, bytes: perCall * (64 << 10), entries: perCall) {
                (transaction) throws(StoreError) in
                let start = DispatchTime.now().uptimeNanoseconds
                for (index, data) in chunks.enumerated() {
                    try transaction.writeChunk(ChunkIndex(UInt64(call * perCall + index)), of: volume, .data(data))
                }
                spent.withLock { $0 += DispatchTime.now().uptimeNanoseconds - start }
            }
        }
        let wall = DispatchTime.now().uptimeNanoseconds - begin
        let chunks = Double(calls * perCall)
        let perChunk = Double(spent.withLock { $0 }) / chunks / 1000
        print("queue time: \(perChunk) µs a chunk; durable: \(chunks * 65536 / Double(wall)) GB/s, one call at a time")
    }
}
