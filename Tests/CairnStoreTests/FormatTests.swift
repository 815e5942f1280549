import CairnCore
import CairnLog
import Testing

@testable import CairnStore

/// FORMAT.md by golden bytes, written by hand from the document.
@Suite struct FormatTests {
    static let one = UUID128(high: 0x0102_0304_0506_8708, low: 0x890a_0b0c_0d0e_0003)
    static let two = UUID128(high: 0x1112_1314_1516_8718, low: 0x991a_1b1c_1d1e_0003)
    static let print = Fingerprint(bytes: (0..<32).map { UInt8($0) })!
    static let printHex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    static let account = AccountID("ab")!
    static let location = RecordLocation(segment: SegmentID(5), offset: 0x1040, length: 0x200, seed: 0xaabb_ccdd)
    static let locationHex = "05000000 40100000 00020000 ddccbbaa"
    static let chunkSize = ChunkSize(bytes: 65536)!

    /// Encodes as told, decodes to the same, and refuses every shorter, longer and newer value.
    private func check<Record: StoredRecord & Equatable>(_ record: Record, _ hex: String) throws {
        let golden = Hex.decode(hex.filter { $0 != " " })!
        #expect(Hex.encode(record.encoded) == Hex.encode(golden))
        #expect(try Record.decode(golden) == record)
        for count in 0..<golden.count {
            #expect(throws: StoreError.self) { try Record.decode(Array(golden.prefix(count))) }
        }
        #expect(throws: StoreError.self) { try Record.decode(golden + [0]) }
        do { _ = try Record.decode([2] + golden.dropFirst()) } catch { #expect(error.code == .newerFormat) }
    }

    @Test func smallRecords() throws {
        try check(
            LogPosition(lsn: LSN(7), epoch: Epoch(2), segment: SegmentID(5), offset: 0x3000),
            "01 0700000000000000 0200000000000000 05000000 00300000"
        )
        try check(
            ChunkRecord(
                location: Self.location,
                rawLength: 0x10000,
                rawChecksum: 0x0102_0304,
                codec: .lz4,
                chunkSize: Self.chunkSize,
                references: 3
            ),
            "01 \(Self.locationHex) 00000100 04030201 01 00000100 0300000000000000"
        )
        try check(LeaseRecord(expiresAt: 0x0102), "01 0201000000000000")
        try check(
            ChunkDamage(since: 0x0102, cause: .unreadable, location: Self.location),
            "01 0201000000000000 04 01 \(Self.locationHex)"
        )
        try check(ChunkDamage(since: 1, cause: .missing, location: nil), "01 0100000000000000 05 00")
        let place = PatchedPlace(lineage: LineageID(2), version: DataVersion(3), chunk: ChunkIndex(4))
        try check(
            PartDamage(since: 1, cause: .checksum, place: place),
            "01 0100000000000000 01 0200000000000000 0300000000000000 0400000000000000"
        )
        var scrub = ScrubRecord()
        (scrub.startedAt, scrub.finishedAt, scrub.isRunning, scrub.rate) = (1, 2, true, 3)
        (scrub.bytes, scrub.total, scrub.found, scrub.position) = (4, 5, 6, [0x63, 1])
        try check(
            scrub,
            """
            01 0100000000000000 0200000000000000 01 00 0300000000000000 0400000000000000 0500000000000000 \
            0600000000000000 02000000 6301
            """
        )
        var segment = SegmentRecord()
        segment.liveBytes = 0x1234
        try check(segment, "01 3412000000000000")
        var retained = RetainedRecord()
        (retained.hasSnapshot, retained.clones) = (true, 2)
        try check(retained, "01 01 02000000 00 00 0000000000000000")
        (retained.isBase, retained.isIncomplete, retained.settledAt) = (true, true, 5)
        try check(retained, "01 01 02000000 01 01 0500000000000000")
        var map = WrittenMap()
        map[ChunkIndex(512 + 1)] = true
        map[ChunkIndex(512 + 511)] = true
        #expect(Hex.encode(map.encoded) == "02" + String(repeating: "00", count: 62) + "80")
        #expect(map.chunks(of: 1) == [ChunkIndex(513), ChunkIndex(1023)])
    }

    @Test("R2, R3: what an account may have, and what it has") func accounts() throws {
        var limits = AccountLimits()
        (limits.volumes, limits.snapshots, limits.logicalBytes) = (1, 2, 3)
        (limits.storedBytes, limits.requestsPerSecond, limits.bytesInFlight) = (4, 5, 0x106)
        try check(
            limits,
            "01 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 0601000000000000"
        )
        var usage = AccountUsage()
        (usage.volumes, usage.snapshots, usage.logicalBytes) = (1, 2, 3)
        (usage.uniqueBytes, usage.storedBytes) = (4, 0x105)
        try check(
            usage,
            "01 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0501000000000000"
        )
    }

    @Test func lineages() throws {
        var lineage = LineageRecord(
            account: AccountNumber(rawValue: 9),
            owner: Self.account,
            chunkSize: Self.chunkSize,
            parent: nil
        )
        try check(lineage, "01 09000000 02000000 6162 00000100 00 01 00000000")
        lineage = LineageRecord(
            account: AccountNumber(rawValue: 9),
            owner: Self.account,
            chunkSize: Self.chunkSize,
            parent: .init(
                lineage: LineageID(4),
                version: DataVersion(6),
                size: 0x100000,
                snapshot: SnapshotID(Self.one),
                volume: VolumeID(Self.two)
            )
        )
        lineage.hasHead = false
        lineage.cancelled = [DataVersion(3), DataVersion(8)]
        try check(
            lineage,
            """
            01 09000000 02000000 6162 00000100 01 0400000000000000 0600000000000000 0000100000000000 \
            0887060504030201 03000e0d0c0b0a89 1887161514131211 03001e1d1c1b1a99 00 \
            02000000 0300000000000000 0800000000000000
            """
        )
    }

    @Test func manifestEntries() throws {
        try check(
            ManifestEntry(.data(Self.print, owner: AccountNumber(rawValue: 9))),
            "02 01 \(Self.printHex) 09000000 0000"
        )
        try check(
            ManifestEntry(.data(Self.print, owner: AccountNumber(rawValue: 9)), hint: Self.location),
            "02 05 \(Self.printHex) 09000000 \(Self.locationHex) 0000"
        )
        // As they were written before there were hints.
        #expect(try ManifestEntry.decode([1, 2, 0, 0]) == ManifestEntry(.zeros))
        let data = [1, 1] + Self.print.bytes + [9, 0, 0, 0, 0, 0]
        #expect(try ManifestEntry.decode(data) == ManifestEntry(.data(Self.print, owner: AccountNumber(rawValue: 9))))
        try check(ManifestEntry(.zeros), "02 02 0000")
        try check(ManifestEntry(.hole), "02 03 0000")
        try check(
            ManifestEntry(.inherit, patches: [Patch(start: 0x600, location: Self.location)]),
            "02 04 0100 00060000 \(Self.locationHex)"
        )
        try check(
            ManifestEntry(.zeros, patches: [Patch(zerosAt: 0x600, length: 0x1200)]),
            "02 02 0100 00060000 ffffffff 00000000 00120000 00000000"
        )
    }

    @Test func workItems() throws {
        try check(WorkItem.releaseVersion(LineageID(4), DataVersion(6)), "01 01 0400000000000000 0600000000000000")
        try check(WorkItem.trimHead(LineageID(4)), "01 02 0400000000000000")
        try check(WorkItem.seal(SnapshotID(Self.one)), "01 03 0887060504030201 03000e0d0c0b0a89")
        try check(WorkItem.cancelVersion(LineageID(4), DataVersion(6)), "01 04 0400000000000000 0600000000000000")
        try check(WorkItem.settle(LineageID(4), DataVersion(6)), "01 05 0400000000000000 0600000000000000")
        try check(WorkItem.forgetExpected(SnapshotID(Self.one)), "01 06 0887060504030201 03000e0d0c0b0a89")
    }

    @Test func volumes() throws {
        let ids = "0887060504030201 03000e0d0c0b0a89"
        let others = "1887161514131211 03001e1d1c1b1a99"
        try check(
            VolumeRecord(
                id: VolumeID(Self.one),
                account: Self.account,
                kind: .local,
                size: 0x200000,
                chunkSize: Self.chunkSize,
                lineage: LineageID(4),
                dataVersion: DataVersion(2),
                initialSnapshot: SnapshotID(Self.two),
                sourceSnapshot: nil,
                affinity: [0xfe],
                tags: ["k": "v"],
                createdAt: 0x1_0000,
                state: .active,
                base: DataVersion(1),
                attachment: 4
            ),
            """
            01 \(ids) 02000000 6162 02 0000200000000000 00000100 0400000000000000 0200000000000000 \(others) 00 \
            0000000000000000 0000000000000000 01000000 fe 01000000 01000000 6b 01000000 76 0000010000000000 01 \
            0100000000000000 0400000000000000
            """
        )
        try check(
            SnapshotRecord(
                id: SnapshotID(Self.two),
                volume: VolumeID(Self.one),
                account: Self.account,
                lineage: LineageID(4),
                version: DataVersion(1),
                size: 0x200000,
                chunkSize: Self.chunkSize,
                state: .complete,
                progress: 100,
                description: "d",
                tags: [:],
                createdAt: 1,
                completedAt: 2,
                seal: Self.print,
                needsRebase: true,
                touchedAt: 3,
                promptedProgress: nil,
                isExpecting: true,
                missing: 4,
                owners: [OwnerBytes(owner: Self.account, bytes: 5)]
            ),
            """
            01 \(others) \(ids) 02000000 6162 0400000000000000 0100000000000000 0000200000000000 00000100 02 64 \
            01000000 64 00000000 0100000000000000 0200000000000000 01 \(Self.printHex) \
            01 0300000000000000 ff 01 0400000000000000 01000000 02000000 6162 0500000000000000
            """
        )
        try check(
            IdempotencyRecord(call: .createSnapshot, parameters: Self.print, answer: [7, 8], createdAt: 3),
            "01 03 \(Self.printHex) 02000000 0708 0300000000000000"
        )
    }

    @Test func keys() {
        func expect(_ key: [UInt8], _ hex: String) { #expect(Hex.encode(key) == hex.filter { $0 != " " }) }
        let (lineage, version, chunk) = (LineageID(4), DataVersion(6), ChunkIndex(7))
        let account = AccountNumber(rawValue: 9)
        let one = "0102030405068708 890a0b0c0d0e0003"
        expect(Key.position, "4c")
        expect(Key.counter(3), "4e 03")
        expect(Key.account(Self.account), "61 6162")
        expect(Key.accountLimits(Self.account), "41 6162")
        expect(Key.usage(account), "75 00000009")
        let merged = ChunkKey(account: account, owner: AccountNumber(rawValue: 2), Self.print)
        expect(Key.chunk(merged), "63 00000009 00000002 \(Self.printHex)")
        expect(Key.lease(merged), "65 00000009 00000002 \(Self.printHex)")
        expect(Key.damaged(merged), "44 00000009 00000002 \(Self.printHex)")
        let place = RecordLocation(segment: SegmentID(1), offset: 2, length: 3, seed: 4)
        expect(Key.damaged(place), "66 00000001 00000002 00000004")
        expect(Key.scrub, "46")
        expect(Key.logBytes, "42")
        expect(Key.leaseEnd(0x102, merged), "45 0000000000000102 00000009 00000002 \(Self.printHex)")
        expect(Key.unreferenced(merged), "7a 00000009 00000002 \(Self.printHex)")
        expect(
            Key.written(WrittenPlace(lineage, version, ChunkIndex(1024))),
            "77 0000000000000004 0000000000000006 0000000000000002"
        )
        expect(Key.outstanding(VolumeID(Self.one), version), "6f \(one) 0000000000000006")
        expect(Key.waiting(lineage, version), "62 0000000000000004 0000000000000006")
        expect(Key.expected(SnapshotID(Self.one), chunk), "78 \(one) 0000000000000007")
        expect(
            Key.child(of: lineage, version, LineageID(9)),
            "79 0000000000000004 0000000000000006 0000000000000009"
        )
        expect(Key.segment(SegmentID(5)), "67 00000005")
        expect(Key.lineage(lineage), "6c 0000000000000004")
        expect(Key.retained(lineage, version), "72 0000000000000004 0000000000000006")
        expect(Key.manifest(lineage, chunk, version), "6d 0000000000000004 0000000000000007 fffffffffffffff9")
        expect(Key.patched(lineage, version, chunk), "70 0000000000000004 0000000000000006 0000000000000007")
        expect(
            Key.dead(lineage, death: DataVersion(8), chunk, birth: version),
            "64 0000000000000004 0000000000000008 0000000000000007 0000000000000006"
        )
        expect(Key.volume(VolumeID(Self.one)), "76 \(one)")
        expect(Key.volumeListing(account, 0x102, Self.one), "56 00000009 0000000000000102 \(one)")
        expect(Key.snapshot(SnapshotID(Self.one)), "73 \(one)")
        expect(Key.snapshotListing(account, 0x102, Self.one), "53 00000009 0000000000000102 \(one)")
        expect(
            Key.volumeSnapshots(VolumeID(Self.one), 0x102, Self.two),
            "54 \(one) 0000000000000102 1112131415168718 991a1b1c1d1e0003"
        )
        expect(Key.idempotency(Self.account, [1, 2]), "6b 02 6162 0102")
        expect(Key.idempotencyAge(0x102, [0x6b, 1]), "4b 0000000000000102 6b01")
        expect(Key.work(5), "71 0000000000000005")
    }

    @Test func storeHeader() throws {
        let header = StoreHeader(id: Self.one, shardCount: 3, segmentBytes: 64 << 20)
        let body = "434149524e53544f 01000000 0102030405068708890a0b0c0d0e0003 0300 0000000400000000".filter {
            $0 != " "
        }
        let sum = Hex.decode(body)!.withUnsafeBytes { CRC32C.extend(0, $0) }
        #expect(Hex.encode(header.encoded) == body + Hex.encode(withUnsafeBytes(of: sum.littleEndian, Array.init)))
        #expect(try StoreHeader.decode(header.encoded, "x") == header)
        for place in 0..<42 {
            var bytes = header.encoded
            bytes[place] ^= 0x40
            #expect(throws: StoreError.self) { try StoreHeader.decode(bytes, "x") }
        }
    }

    @Test func commitRecord() throws {
        let scratch = try ScratchStore()
        let overlay = IndexOverlay(scratch.shard.database)
        overlay.put([0x61, 0x62], [1, 2, 3])
        overlay.delete([0x63])
        overlay.setSavepoint()
        overlay.put([0x64], [])
        overlay.rollback()
        let golden = Hex.decode("01" + "0200" + "6162" + "03000000" + "010203" + "00" + "0100" + "63")!
        #expect(Hex.encode(overlay.encoded) == Hex.encode(golden))
        let again = IndexOverlay(scratch.shard.database)
        #expect(golden.withUnsafeBytes { again.replay($0) })
        #expect(again.encoded == golden)
        #expect(try again.get([0x61, 0x62]) == [1, 2, 3])
        for count in 1..<golden.count where count != 12 {
            let torn = IndexOverlay(scratch.shard.database)
            #expect(!golden.prefix(count).withUnsafeBytes { torn.replay($0) }, "\(count)")
        }
    }
}
