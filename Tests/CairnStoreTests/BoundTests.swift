import CairnCore
import Dispatch
import Testing

@testable import CairnStore

/// Limits on everything: what one account does costs others, and the server, no more than that.
@Suite struct BoundTests {
    private static let account = ScratchStore.account
    private static let size = ChunkSize(bytes: 64 << 10)!

    private static func volume(_ kind: VolumeKind, from source: SnapshotRecord?, _ transaction: Transaction)
        throws(StoreError) -> VolumeRecord
    {
        try transaction.createVolume(
            account: account,
            kind: kind,
            size: 1 << 20,
            chunkSize: size,
            source: source,
            affinity: [],
            tags: [:]
        )
    }

    @Test("D1: small parts of one large chunk hold no more memory than a few of it", arguments: [true, false])
    func readMemory(patched: Bool) throws {
        let scratch = try ScratchStore(segmentBytes: 32 << 20)
        let volume = try scratch.volume(4 << 20, chunk: 4 << 20)
        let text = BufferPool.shared.buffer(capacity: 4 << 20)
        text.count = 4 << 20
        for index in 0..<text.count { text.memory[index] = UInt8(truncatingIfNeeded: index >> 12) }
        let packed = BufferPool.shared.buffer(capacity: 1 << 20)
        let window = UnsafeMutableRawBufferPointer(rebasing: packed.memory[0..<1 << 20])
        packed.count = try #require(LZ4.compress(text.bytes, into: window))
        let raw = chunkData(text.slice)
        let data = ChunkData(
            fingerprint: raw.fingerprint,
            rawLength: raw.rawLength,
            rawChecksum: raw.rawChecksum,
            codec: .lz4,
            bytes: packed.slice
        )
        try scratch.change(records: 1, bytes: packed.count) { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(0), of: volume, .data(data))
        }
        if patched {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.writeZeros(0..<512, of: WriteTarget(volume))
            }
        }
        let ranges = (0..<4096 as Range<UInt64>).map { $0 * 1024..<$0 * 1024 + 512 }
        let pieces = try scratch.shard.read(ReadSource(volume), ranges, acceptsLZ4: true)
        var held: [ObjectIdentifier: Int] = [:]
        for (range, piece) in zip(ranges, pieces) {
            guard case .plain(let bytes, _) = piece.content else { throw StoreError(.invalid, "not plain bytes") }
            held[ObjectIdentifier(bytes.buffer)] = bytes.buffer.memory.count
            let expected = patched && range.lowerBound == 0 ? 0 : UInt8(truncatingIfNeeded: range.lowerBound >> 12)
            #expect(bytes.count == 512 && bytes.bytes.allSatisfy { $0 == expected })
        }
        #expect(held.values.reduce(0, +) <= 4096 * 4096 + (4 << 20))
    }

    @Test("V4: volumes made from one another's snapshots in turn end at a bound; no other is touched")
    func cloneDepth() throws {
        let scratch = try ScratchStore()
        var last = try scratch.change { (transaction) throws(StoreError) in
            try Self.volume(.remote, from: nil, transaction)
        }
        for _ in 1..<Limits.cloneDepth {
            let below = last
            last = try scratch.change { (transaction) throws(StoreError) in
                try Self.volume(.remote, from: try transaction.snapshot(below.initialSnapshot)!, transaction)
            }
        }
        let deepest = last
        let error = #expect(throws: StoreError.self) {
            try scratch.change { (transaction) throws(StoreError) in
                try Self.volume(.remote, from: try transaction.snapshot(deepest.initialSnapshot)!, transaction)
            }
        }
        #expect(error?.code == .limited)
        _ = try scratch.change { (transaction) throws(StoreError) in try Self.volume(.remote, from: nil, transaction) }
        #expect(try scratch.shard.makeView().volumes(of: Self.account, limit: 1000).count == Limits.cloneDepth + 1)
    }

    @Test("V5, S4: a lineage remembers a bounded number of cancelled versions that clones stand on")
    func cancelledVersions() throws {
        let scratch = try ScratchStore()
        let (volume, snapshot) = try scratch.change { (transaction) throws(StoreError) in
            let volume = try Self.volume(.local, from: nil, transaction)
            return (volume, try transaction.createSnapshot(of: volume, description: "", tags: [:]))
        }
        func clone() throws {
            _ = try scratch.change { (transaction) throws(StoreError) in
                try Self.volume(.remote, from: try transaction.snapshot(snapshot.id)!, transaction)
            }
        }
        try clone()
        try scratch.change(entries: 64) { (transaction) throws(StoreError) in
            var lineage = try transaction.lineage(volume.lineage)
            let count = UInt64(Limits.cancelledVersions)
            lineage.cancelled = (1 << 32..<(1 << 32) + count).map { DataVersion($0) }
            transaction.put(lineage, volume.lineage)
        }
        let error = #expect(throws: StoreError.self) { try clone() }
        #expect(error?.code == .limited)
        // Of the complete ones volumes are made as before.
        _ = try scratch.change { (transaction) throws(StoreError) in
            try Self.volume(.remote, from: try transaction.snapshot(volume.initialSnapshot)!, transaction)
        }
    }

    @Test(
        "A1, S8: an account that asks for more chunks than are remembered keeps its own from being purged, no other's"
    )
    func pins() throws {
        let leases = Leases(time: .seconds(2), StoreOptions().execution, pinsOfOne: 100, pins: 250)
        func chunks(_ account: UInt32, _ count: Int, from first: Int = 0) -> [ChunkKey] {
            (first..<first + count).map { index in
                var bytes = [UInt8](repeating: 0, count: 32)
                (bytes[0], bytes[1]) = (UInt8(index & 255), UInt8(index >> 8))
                return ChunkKey(own: AccountNumber(rawValue: account), Fingerprint(bytes: bytes)!)
            }
        }
        // For one lease time after a start nothing goes.
        #expect(!leases.mayPurge && leases.unheld(chunks(1, 1)).free.isEmpty && !leases.beginPurge(chunks(1, 1)[0]))
        let end = DispatchTime.now() + .seconds(2)
        while DispatchTime.now() <= end {}
        #expect(leases.mayPurge)
        _ = leases.pin(chunks(1, 101))
        _ = leases.pin(chunks(2, 100))
        _ = leases.pin(chunks(3, 100))
        let later = chunks(1, 1, from: 500) + chunks(2, 1, from: 500) + chunks(3, 2, from: 99)
        let (free, next) = leases.unheld(later)
        // Of the first all are kept; of the second and third those that were asked for.
        #expect(free == [later[1], later[3]])
        #expect(next != nil && leases.mayPurge)
        #expect(later.map(leases.beginPurge) == [false, true, false, true])
        #expect(leases.pin(later).leaving == Set(free))
        leases.endPurge(free)
        #expect(leases.pin(later).leaving.isEmpty)
        // No room for all of the fourth's beside the others': it is kept as a whole.
        _ = leases.pin(chunks(4, 60))
        #expect(leases.unheld(chunks(4, 1, from: 500) + chunks(5, 1)).free == chunks(5, 1))
    }

    @Test("D5: an account makes a bounded number of grants, fewer to one other; what it has given it may give again")
    func grants() throws {
        let scratch = try ScratchStore()
        @Sendable func grant(_ number: Int, to grantee: Int) -> Grant {
            Grant(
                grantor: Self.account,
                resource: .volume(VolumeID(UUID128(high: 1, low: UInt64(number)))),
                permission: .use,
                grantee: AccountID("grantee-\(grantee)")!,
                createdAt: 1
            )
        }
        func give(_ grant: Grant) throws {
            _ = try scratch.change { (transaction) throws(StoreError) in try transaction.give(grant) }
        }
        for grantee in 0..<Limits.grants / Limits.grantsToOne {
            try scratch.change(entries: 1024) { (transaction) throws(StoreError) in
                for number in 0..<Limits.grantsToOne { _ = try transaction.give(grant(number, to: grantee)) }
            }
            if grantee == 0 {
                let error = #expect(throws: StoreError.self) { try give(grant(Limits.grantsToOne, to: 0)) }
                #expect(error?.code == .limited)
            }
        }
        let error = #expect(throws: StoreError.self) { try give(grant(0, to: 1000)) }
        #expect(error?.code == .limited)
        try give(grant(0, to: 0))
        _ = try scratch.change { (transaction) throws(StoreError) in try transaction.withdraw(grant(3, to: 2)) }
        try give(grant(0, to: 1000))
    }

    @Test("C2: of another account's volume as much is looked up as of one that is not there")
    func foreignListing() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.change { (transaction) throws(StoreError) in
            let volume = try Self.volume(.remote, from: nil, transaction)
            _ = try transaction.numberAccount(AccountID("stranger")!)
            return volume
        }
        for _ in 0..<50 {
            _ = try scratch.change { (transaction) throws(StoreError) in
                try transaction.createSnapshot(
                    of: try transaction.volume(volume.id)!,
                    description: "",
                    tags: [:]
                )
            }
        }
        for id in [volume.id, VolumeID(.random(shard: ShardIndex(0)))] {
            let view = scratch.shard.makeView()
            #expect(try view.snapshots(of: AccountID("stranger")!, volume: id, limit: 1000).isEmpty)
            #expect(view.lookups == 2)
        }
        let view = scratch.shard.makeView()
        #expect(try view.snapshots(of: Self.account, volume: volume.id, limit: 1000).count == 51)
    }

    @Test("R1, S5: a page of snapshots is full though one on it is still being made")
    func hiddenSnapshot() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.change { (transaction) throws(StoreError) in
            try Self.volume(.local, from: nil, transaction)
        }
        for index in 0..<3 {
            _ = try scratch.change { (transaction) throws(StoreError) in
                try transaction.createSnapshot(
                    of: try transaction.volume(volume.id)!,
                    description: "\(index)",
                    tags: [:],
                    hidden: index == 0
                )
            }
        }
        let view = scratch.shard.makeView()
        for id in [nil, volume.id] {
            let page = try view.snapshots(of: Self.account, volume: id, limit: 2)
            #expect(page.count == 2)
            let last = try #require(page.last)
            let rest = try view.snapshots(of: Self.account, volume: id, after: (last.createdAt, last.id.uuid), limit: 2)
            #expect(Set((page + rest).map(\.description)) == ["initial", "1", "2"] && rest.count == 1)
        }
    }

    @Test("S5: a snapshot that was still being made when the server ended is gone after the next start")
    func unfinishedSnapshot() throws {
        let scratch = try ScratchStore()
        let volume = try scratch.change { (transaction) throws(StoreError) in
            try Self.volume(.local, from: nil, transaction)
        }
        let made = try scratch.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(
                of: try transaction.volume(volume.id)!,
                description: "",
                tags: [:],
                hidden: true
            )
        }
        #expect(made.state == .creating)
        try scratch.reopen()
        let found = try scratch.shard.makeView().snapshot(made.id)
        #expect(found?.state != .creating)
        #expect(try scratch.shard.audit().problems == [])
    }
}
