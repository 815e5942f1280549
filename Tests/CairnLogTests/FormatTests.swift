import CairnCore
import Testing

@testable import CairnLog

/// The bytes of FORMAT.md, pinned: what one release writes the next must read.
@Suite struct FormatTests {
    let life = SegmentLife(segment: SegmentID(5), incarnation: Incarnation(9))
    var header: SegmentHeader {
        SegmentHeader(
            identity: identity,
            life: life,
            epoch: Epoch(4),
            next: SegmentLife(segment: SegmentID(6), incarnation: Incarnation(2)),
            firstLSN: LSN(0x0102_0304)
        )
    }
    let uuid = "01112131415161718191a1b1c1d1e1f1"

    private func zeros(_ count: Int) -> String { String(repeating: "00", count: count) }

    /// Hexadecimal digits of an integer as stored.
    private func little(_ value: some FixedWidthInteger) -> String {
        withUnsafeBytes(of: value.littleEndian) { Hex.encode($0) }
    }

    private func crc(_ hex: String, _ seed: UInt32 = 0) -> String {
        little(Hex.decode(hex)!.withUnsafeBytes { CRC32C.extend(seed, $0) })
    }

    @Test func segmentHeader() throws {
        let rest =
            "01000000" + uuid + "0300" + zeros(6) + "0500000006000000" + "0900000000000000" + "0400000000000000"
            + "0200000000000000" + "0403020100000000" + zeros(4096 - 80)
        let bytes = header.bytes
        #expect(Hex.encode(bytes) == "434149524e534547" + crc(rest) + rest)
        #expect(Hex.encode(bytes[8..<12]) == "2624ae4d")
        bytes.withUnsafeBytes { raw in
            #expect(SegmentHeader(raw, of: SegmentID(5), identity: identity) == header)
            #expect(SegmentHeader(raw, of: SegmentID(6), identity: identity) == nil)
            #expect(
                SegmentHeader(raw, of: SegmentID(5), identity: LogIdentity(store: identity.store, shard: ShardIndex(4)))
                    == nil
            )
        }
        for place in stride(from: 0, to: 4096, by: 13) {
            var damaged = bytes
            damaged[place] ^= 0x10
            #expect(damaged.withUnsafeBytes { SegmentHeader($0, of: SegmentID(5), identity: identity) } == nil)
        }
    }

    @Test func superblock() throws {
        let superblock = Superblock(
            identity: identity,
            sequence: 7,
            epoch: Epoch(4),
            firstSegment: SegmentID(5),
            segmentSize: 1 << 26,
            firstIncarnation: Incarnation(9),
            firstLSN: LSN(100),
            durable: LSN(99)
        )
        let rest =
            "01000000" + uuid + "0300" + zeros(6) + "0700000000000000" + "0400000000000000" + "0500000000000004"
            + "0900000000000000" + "6400000000000000" + "6300000000000000" + zeros(4096 - 88)
        #expect(Hex.encode(superblock.bytes) == "434149524e535550" + crc(rest) + rest)
        #expect(try Superblock.decode(superblock.bytes) == superblock)
        var newer = ByteWriter()
        newer.put(UInt32(2))
        #expect(throws: LogError.unsupportedFormat(2)) {
            try Superblock.decode(Format.sealedBlock(magic: Format.superblockMagic, body: newer))
        }
    }

    @Test func seedAndGroupHeader() {
        let seed = header.seed
        #expect(little(seed) == crc(uuid + "0300" + zeros(6) + "05000000" + "0900000000000000" + "0400000000000000"))
        #expect(seed == 0xac87_9718)
        let group = GroupHeader(
            length: 0x1234,
            lsn: LSN(11),
            epoch: Epoch(4),
            incarnation: Incarnation(9),
            durable: LSN(10),
            records: 3,
            commitOffset: 0x1000
        )
        let rest =
            "34120000" + "0b00000000000000" + "0400000000000000" + "0900000000000000" + "0a00000000000000"
            + "03000000" + "00100000" + zeros(8)
        let bytes = group.bytes(seed: seed)
        #expect(Hex.encode(bytes) == "434149524e475250" + crc(rest, seed) + rest)
        bytes.withUnsafeBytes { raw in
            #expect(GroupHeader(raw, seed: seed) == group)
            #expect(GroupHeader(raw, seed: seed ^ 1) == nil)
        }
    }

    @Test func records() throws {
        let stored: [UInt8] = [0xde, 0xad, 0xbe]
        let chunk = ChunkHeader(
            account: 0x0a0b,
            owner: 0x0c0d,
            fingerprint: Fingerprint(bytes: (0..<32).map { $0 })!,
            codec: .lz4,
            rawLength: 4096,
            rawChecksum: 0x1122_3344
        )
        let patch = PatchHeader(
            lineage: 1,
            chunk: ChunkIndex(2),
            version: DataVersion(3),
            start: 512,
            rawChecksum: stored.withUnsafeBytes { CRC32C.extend(0, $0) }
        )
        let expected: [(RecordHeader?, String)] = [
            (
                .chunk(chunk),
                "01014800" + "03000000" + "00100000" + "44332211" + zeros(4) + "0b00000000000000"
                    + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" + "0b0a0000" + "0d0c0000"
            ),
            (
                .patch(patch),
                "02004000" + "03000000" + "03000000" + crc("deadbe") + zeros(4) + "0b00000000000000" + "0100000000000000"
                    + "0200000000000000" + "0300000000000000" + "00020000" + zeros(4)
            ),
            (nil, "03002000" + "03000000" + "03000000" + zeros(4) + zeros(4) + "0b00000000000000"),
        ]
        for (header, hex) in expected {
            let bytes = stored.withUnsafeBytes {
                RecordFormat.encode(header, lsn: LSN(11), stored: $0, seed: 0xac87_9718)
            }
            #expect(Hex.encode(bytes) == crc(hex + "deadbe", 0xac87_9718) + hex)
            try (bytes + stored).withUnsafeBytes { raw in
                let decoded = try #require(RecordFormat.decode(raw))
                #expect(decoded.header == header && decoded.storedLength == 3 && decoded.lsn == LSN(11))
                #expect(RecordFormat.isWhole(decoded, raw, seed: 0xac87_9718))
                #expect(!RecordFormat.isWhole(decoded, raw, seed: 0xac87_9719))
                #expect(
                    !RecordFormat.isWhole(decoded, UnsafeRawBufferPointer(rebasing: raw.dropLast()), seed: 0xac87_9718)
                )
            }
        }
    }

    /// A whole group as it stands in its segment.
    @Test func groupInItsSegment() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        let bytes = pattern(9, 1)
        let group = try log.makeGroup(for: .normal, records: 1, bytes: 9, commit: 2)
        let location = group.appendChunk(chunkHeader(bytes), bytes)
        try group.finish(commit: [0xc0, 0xc1])
        let position = try log.write(group, sync: true)
        #expect(location == RecordLocation(segment: SegmentID(1), offset: 4096 + 64, length: 9, seed: location.seed))
        #expect(position == LogPosition(lsn: LSN(1), epoch: Epoch(1), segment: SegmentID(1), offset: 8192))
        let block = storage.bytes(SegmentID(1))[4096..<8192]
        let commitOffset = 64 + 88
        #expect(Hex.encode(block[4096 + 48..<4096 + 56]) == "02000000" + "98000000")
        #expect(Array(block[4096 + 64 + 72..<4096 + 64 + 81]) == copy(bytes))
        #expect(Array(block[4096 + commitOffset + 32..<4096 + commitOffset + 34]) == [0xc0, 0xc1])
        #expect(block[(4096 + commitOffset + 34)...].allSatisfy { $0 == 0 })
    }
}
