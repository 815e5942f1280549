import CairnCore
import CairnStore
import CairnWire
import Dispatch
import Synchronization
import Testing

@testable import CairnService

/// Limits and races, as the calls meet them.
@Suite struct ServiceBoundTests {
    static let carol = CallContext(account: AccountID("carol")!)

    @Test("R1, D4: a page of snapshots is whole while some of them are deleted, with all that they stood on")
    func listingBesideDeletion() throws {
        let harness = try ServiceHarness(shards: 1)
        for _ in 0..<100 { _ = try harness.createVolume() }
        let isDone = Mutex(false)
        let done = DispatchGroup()
        DispatchQueue.global().async(group: done) {
            while !isDone.withLock({ $0 }) {
                // The first of the page, which are described first, and the last.
                for _ in 0..<4 {
                    guard let volume = try? harness.createVolume().volumeID else { return }
                    _ = try? harness.call(harness.service.deleteVolume, .init(volumeID: volume))
                }
            }
        }
        defer {
            isDone.withLock { $0 = true }
            done.wait()
        }
        for _ in 0..<150 {
            let answer = try harness.call(harness.service.listSnapshots, .init(page: .init(limit: 1000)))
            #expect(answer.snapshots.count >= 100)
        }
    }

    @Test("S7, C3: a snapshot's token names the snapshot, and nothing that counts what others do")
    func token() throws {
        let harness = try ServiceHarness()
        let snapshot = try harness.begin(try harness.localVolume())
        let token = snapshot.snapshotToken
        #expect(token.count == 21 && Array(token[1..<17]) == snapshot.snapshotID)
        for wrong in [
            Array(token.dropLast()), token + [0], [token[0] ^ 1] + token[1...], token.dropLast() + [token[20] ^ 1],
        ] {
            let target = Wire.DescribeSnapshotRequest.Target.snapshotToken(wrong)
            #expect(
                refusal { try harness.call(harness.service.describeSnapshot, .init(target: target)) } == .noSuchSnapshot
            )
        }
    }

    @Test("V5, V9: a volume has a bounded number of snapshots that wait for its ancestor; all go with it")
    func waiting() throws {
        let harness = try ServiceHarness()
        let source = try harness.begin(try harness.localVolume()).snapshotID
        let volume = try harness.createVolume(.init(snapshotID: source)).volumeID
        // The initial one waits as well.
        for _ in 1..<Limits.snapshotsInProgress { _ = try harness.begin(volume) }
        #expect(refusal { try harness.begin(volume) }?.code == .failedPrecondition)
        #expect(
            refusal { try harness.call(harness.service.deleteVolume, .init(volumeID: volume)) }?.code
                == .failedPrecondition
        )
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: volume, cancelSnapshots: true))
        #expect(try harness.snapshotCount(volume) == 0)
        try harness.audit()
    }

    @Test("U3, D5: where three accounts meet in a chunk, more parts of it than are ever merged are written and read")
    func partsOfThreeAccounts() throws {
        let harness = try ServiceHarness(shards: 1)
        let service = harness.service
        func share(_ snapshot: [UInt8], with grantee: String, as context: CallContext) throws {
            var grant = Wire.Grant(resource: .init(target: .snapshotID(snapshot)))
            (grant.grantee, grant.permission) = (grantee, .use)
            _ = try harness.call(service.createGrant, .init(grant: grant), as: context)
        }
        func snapshot(_ volume: [UInt8], as context: CallContext) throws -> [UInt8] {
            try harness.call(service.createSnapshot, .init(volumeID: volume), as: context).snapshotID
        }
        let chunk = 4 << 20
        let bytes = wideNoise(4, seed: 1)
        let first = try harness.createVolume(.init(size: UInt64(chunk), chunkSize: UInt32(chunk))).volumeID
        try harness.write(bytes, at: 0, to: first)
        let ofAlice = try snapshot(first, as: ServiceHarness.alice)
        try share(ofAlice, with: "bob", as: ServiceHarness.alice)
        let second = try harness.createVolume(.init(snapshotID: ofAlice), as: ServiceHarness.bob).volumeID
        var part = Wire.UploadBlockRequest(target: .init(target: .volumeID(second)))
        part.blocks = [ServiceHarness.block([UInt8](repeating: 7, count: 512), at: 0)]
        _ = try harness.upload(part, payload: [UInt8](repeating: 7, count: 512), as: ServiceHarness.bob)
        let ofBob = try snapshot(second, as: ServiceHarness.bob)
        // Merged and counted: the chunk is one of Alice's data now, in Bob's dictionary.
        #expect(
            try harness.eventually(60) {
                let target = Wire.DescribeSnapshotRequest.Target.snapshotID(ofBob)
                let told = try harness.call(service.describeSnapshot, .init(target: target), as: ServiceHarness.bob)
                return told.snapshot?.owners.contains { $0.account == "alice" } == true
            }
        )
        try share(ofBob, with: "carol", as: ServiceHarness.bob)
        try share(ofAlice, with: "carol", as: ServiceHarness.alice)
        let third = try harness.createVolume(.init(snapshotID: ofBob), as: Self.carol).volumeID
        // No two side by side. The second round finds more than are merged otherwise, and covers some of them.
        for (count, length) in [(2048, 512), (1, 512), (64, 4096)] as [(UInt64, UInt64)] {
            let ranges = (0..<count).map { Wire.ByteRange(offset: 512 + $0 * (length + 512), length: length) }
            _ = try harness.call(
                service.writeZeroes,
                .init(target: .init(target: .volumeID(third)), ranges: ranges),
                as: Self.carol
            )
        }
        let host = CallContext(account: AccountID("carol")!, isHost: true)
        let request = Wire.DownloadBlockRequest(
            target: .init(target: .volumeID(third)),
            ranges: [.init(offset: 0, length: 2048)]
        )
        let read = try ServiceHarness.bytes(of: try harness.call(service.downloadBlock, request, as: host))
        #expect(read == [UInt8](repeating: 7, count: 512) + [UInt8](repeating: 0, count: 1536))
        try harness.audit()
    }

    @Test("R1, R3: a listing's filter has no more tags than there can be on anything")
    func filters() throws {
        let harness = try ServiceHarness()
        let tags = (0...Limits.tags).map { Wire.Tag(key: "key \($0)", value: "") }
        let service = harness.service
        #expect(refusal { try harness.call(service.listVolumes, .init(tags: tags)) }?.code == .invalidArgument)
        #expect(refusal { try harness.call(service.listSnapshots, .init(tags: tags)) }?.code == .invalidArgument)
        let most = Array(tags.dropLast())
        _ = try harness.createVolume(.init(tags: most))
        #expect(try harness.call(service.listVolumes, .init(tags: most)).volumes.count == 1)
        #expect(try harness.call(service.listSnapshots, .init(tags: most)).snapshots.isEmpty)
    }

    @Test("R1, R3: a page of snapshots that stand on many levels ends early, and the next one goes on behind it")
    func listingDeepSnapshots() throws {
        let harness = try ServiceHarness()
        var volume = try harness.createVolume()
        for _ in 1..<200 { volume = try harness.createVolume(.init(snapshotID: volume.initialSnapshotID)) }
        for _ in 0..<30 { _ = try harness.begin(volume.volumeID) }
        var (pages, place): ([[[UInt8]]], [UInt8]) = ([], [])
        repeat {
            let request = Wire.ListSnapshotsRequest(
                page: .init(limit: 1000, pageToken: place),
                volumeID: volume.volumeID
            )
            let page = try harness.call(harness.service.listSnapshots, request)
            pages.append(page.snapshots.map(\.snapshotID))
            place = page.nextPageToken
        } while !place.isEmpty
        // 7 look-ups for each of 200 levels: 24 snapshots take more than 1 << 15.
        #expect(pages.map(\.count) == [24, 7])
        #expect(Set(pages.joined()).count == 31)
    }
}
