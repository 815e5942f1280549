import CairnCore
import Foundation
import Testing

@testable import CairnStore

/// Durable leases (SPEC U7) in a shard: references that end.
@Suite struct LeaseTests {
    private static let size = ChunkSize(bytes: 64 << 10)!

    private func stage(_ scratch: ScratchStore, _ data: ChunkData, until end: UInt64) throws {
        try scratch.change(records: 1, bytes: data.bytes.count) { (transaction) throws(StoreError) in
            try transaction.stage(data, chunkSize: Self.size, account: ScratchStore.account, until: end)
        }
    }

    private func holds(_ scratch: ScratchStore, _ data: ChunkData) throws -> Bool {
        try scratch.shard.makeView().holdsChunk(account: ScratchStore.account, data.fingerprint)
    }

    private func check(_ scratch: ScratchStore, leases: Int) throws {
        let report = try scratch.shard.audit()
        #expect(report.problems == [])
        #expect(report.leases == leases)
    }

    @Test("U7: a staged chunk stays until its lease ends, and then its space is freed")
    func expiry() throws {
        let scratch = try ScratchStore()
        let (short, long) = (chunkData(noise(64 << 10, 1)), chunkData(noise(64 << 10, 2)))
        try stage(scratch, short, until: UnixTime.milliseconds + 2000)
        try stage(scratch, long, until: UnixTime.milliseconds + 3_600_000)
        #expect(try holds(scratch, short) && holds(scratch, long))
        try check(scratch, leases: 2)
        #expect(try scratch.eventually { try !holds(scratch, short) })
        #expect(try holds(scratch, long))
        try check(scratch, leases: 1)
    }

    @Test("U7: a lease is prolonged and never shortened; released, it holds nothing")
    func prolonging() throws {
        let scratch = try ScratchStore()
        let data = chunkData(noise(64 << 10, 3))
        let end = UnixTime.milliseconds + 3_600_000
        try stage(scratch, data, until: end)
        for other in [end - 1000, end + 1000] {
            let isLeased = try scratch.change { (transaction) throws(StoreError) in
                try transaction.lease(data.fingerprint, account: ScratchStore.account, until: other)
            }
            #expect(isLeased)
            try check(scratch, leases: 1)
        }
        let chunk = ChunkKey(
            own: try #require(try scratch.shard.makeView().accountNumber(ScratchStore.account)),
            data.fingerprint
        )
        #expect(try scratch.shard.makeView().lease(chunk)?.expiresAt == end + 1000)
        for _ in 0..<2 {
            try scratch.change { (transaction) throws(StoreError) in
                try transaction.releaseLease(data.fingerprint, account: ScratchStore.account)
            }
        }
        #expect(try scratch.eventually { try !holds(scratch, data) })
        try check(scratch, leases: 0)
        let isLeased = try scratch.change { (transaction) throws(StoreError) in
            try transaction.lease(data.fingerprint, account: ScratchStore.account, until: end)
        }
        #expect(!isLeased)
    }

    @Test("U7: a lease and a manifest each hold a chunk for themselves")
    func beside() throws {
        let scratch = try ScratchStore()
        let data = chunkData(noise(64 << 10, 4))
        try stage(scratch, data, until: UnixTime.milliseconds + 3_600_000)
        let volume = try scratch.volume()
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.writeChunk(ChunkIndex(3), of: volume, .token(data.fingerprint))
        }
        try check(scratch, leases: 1)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.releaseLease(data.fingerprint, account: ScratchStore.account)
        }
        try check(scratch, leases: 0)
        #expect(try holds(scratch, data))
        let isLeased = try scratch.change { (transaction) throws(StoreError) in
            try transaction.lease(data.fingerprint, account: ScratchStore.account, until: UnixTime.milliseconds + 9000)
        }
        #expect(isLeased)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.deleteVolume(try transaction.volume(volume.id)!)
        }
        #expect(try scratch.eventually { try scratch.isEmpty(.lineages) })
        try check(scratch, leases: 1)
        #expect(try holds(scratch, data))
    }

    @Test("U7: many leases end in steps")
    func steps() throws {
        let scratch = try ScratchStore()
        let end = UnixTime.milliseconds + 1000
        let all = (0..<600).map { chunkData(noise(512, 100 + UInt64($0))) }
        try scratch.change(records: 600, bytes: 600 * 512, entries: 600) { (transaction) throws(StoreError) in
            for data in all {
                try transaction.stage(data, chunkSize: Self.size, account: ScratchStore.account, until: end)
            }
        }
        #expect(try scratch.eventually { try scratch.isEmpty(.leases) && scratch.isEmpty(.leaseEnds) })
        #expect(try scratch.eventually { try scratch.isEmpty(.chunks) })
        try check(scratch, leases: 0)
    }
}
