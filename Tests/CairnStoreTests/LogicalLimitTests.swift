import CairnCore
import Testing

@testable import CairnStore

/// Sizes of thin volumes, whose sums are beyond what there is.
@Suite struct LogicalLimitTests {
    @Test("R2, R3: an account's volumes on one shard end at 1 EiB: no sum of sizes overflows")
    func limit() throws {
        let scratch = try ScratchStore()
        let largest = UInt64(64) << 40
        // 64 at a time, up to the limit.
        for _ in 0..<256 {
            try scratch.change(entries: 512) { (transaction) throws(StoreError) in
                for _ in 0..<64 { try Self.create(largest, transaction) }
            }
        }
        #expect(try scratch.shard.makeView().usage(of: ScratchStore.account).logicalBytes == 1 << 60)
        let error = #expect(throws: StoreError.self) {
            try scratch.change { (transaction) throws(StoreError) in try Self.create(1 << 20, transaction) }
        }
        #expect(error?.code == .limited)
        #expect(UInt64.max.saturatingSum(1) == .max)
    }

    private static func create(_ size: UInt64, _ transaction: Transaction) throws(StoreError) {
        _ = try transaction.createVolume(
            account: ScratchStore.account,
            kind: .remote,
            size: size,
            chunkSize: ChunkSize(bytes: 64 << 10)!,
            source: nil,
            affinity: [],
            tags: [:]
        )
    }
}
