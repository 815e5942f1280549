import Testing

@testable import CairnCore

@Suite struct IdentifierTests {
    @Test func volumeIDsReadBack() throws {
        let id = VolumeID(.random(shard: ShardIndex(513)))
        #expect(VolumeID(text: id.description) == id)
        #expect(VolumeID(bytes: id.bytes) == id)
        #expect(id.uuid.shard == ShardIndex(513))
        #expect(id.bytes[6] >> 4 == 8 && id.bytes[8] >> 6 == 2)
        #expect(VolumeID(text: "snap-" + id.uuid.text) == nil)
        #expect(VolumeID(bytes: [1, 2]) == nil)
    }

    @Test func accountNames() {
        #expect(AccountID("acme-1.prod_x") != nil)
        for bad in ["", "-a", "A", "a/b", "a b", String(repeating: "a", count: 65), "é"] {
            #expect(AccountID(bad) == nil)
        }
    }

    @Test func sizes() {
        #expect(ByteCount.parse("20GiB") == 20 << 30)
        #expect(ByteCount.parse("1.5 T") == 3 << 39)
        #expect(ByteCount.parse("10GB") == 10_000_000_000)
        #expect(ByteCount.parse("4096") == 4096)
        for bad in ["", "x", "1.2.3G", "1e3", "20GiBs", "16777216T", "0.3", "-1"] {
            #expect(ByteCount.parse(bad) == nil, "\(bad)")
        }
        #expect(ByteCount.text(1536) == "1.5 KiB")
        #expect(ByteCount.text(1 << 30) == "1 GiB")
        #expect(ByteCount.text(1100) == "1.07 KiB")
        #expect(ChunkSize(bytes: 65536)?.bytes == 65536)
        #expect(ChunkSize(bytes: 65537) == nil && ChunkSize(bytes: 2048) == nil && ChunkSize(bytes: 8 << 20) == nil)
    }

    @Test func poolsLendTheSameMemoryAgain() {
        let pool = BufferPool(keepBytes: 1 << 20)
        let first = pool.buffer(capacity: 5000).memory.baseAddress
        #expect(pool.buffer(capacity: 8192).memory.baseAddress == first)
        #expect(UInt(bitPattern: first) % 4096 == 0)
    }
}
