import CairnCore
import CairnWire
import Testing

@testable import CairnService
@testable import CairnStore

/// ListDamage of all that an account has (SPEC D4).
@Suite struct DamageListTests {
    @Test(
        "D4, R3: a page ends after so many volumes and snapshots, whatever they hold; what is damaged behind them is found once"
    )
    func pages() throws {
        let harness = try ServiceHarness(shards: 1) { options, _ in options.scrubPeriod = nil }
        let shard = harness.store.shards[0]
        for index in 0..<140 { _ = try harness.createVolume(.init(kind: index % 2 == 0 ? .remote : .local)) }
        let last = try harness.createVolume().volumeID
        let token = try harness.write(noise(65536, seed: 1), at: 65536, to: last).chunks[0].token
        let snapshot = try harness.begin(last).snapshotID
        // As if a reader had met it.
        shard.damage.setPossible()
        let view = shard.makeView()
        let volume = try #require(try view.volume(VolumeID(bytes: last)!))
        let key = ChunkKey(own: try view.lineage(volume.lineage).account, Fingerprint(bytes: token)!)
        let location = try #require(try view.chunk(key)).location
        let waiter = Waiter<Bool>()
        shard.submit { (transaction) throws(StoreError) in
            try transaction.mark(.chunk(key, location), .checksum, at: 1)
        } completion: {
            waiter.set($0.mapError { ServiceError($0) })
        }
        let isMarked = try waiter.get()
        #expect(isMarked)
        var (found, pages): ([Wire.DamagedBlock], Int) = ([], 0)
        var place: [UInt8] = []
        repeat {
            let request = Wire.ListDamageRequest(page: .init(limit: 1000, pageToken: place))
            let page = try harness.call(harness.service.listDamage, request)
            found += page.blocks
            place = page.nextPageToken
            pages += 1
        } while !place.isEmpty
        // 141 volumes, 141 initial snapshots and one more; 256 on a page.
        #expect(pages == 2)
        #expect(found.map(\.volumeID) == [last, []] && found.map(\.snapshotID) == [[], snapshot])
        #expect(found.allSatisfy { $0.offset == 65536 && $0.token == token })
    }
}
