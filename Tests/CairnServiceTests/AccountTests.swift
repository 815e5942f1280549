import CairnCore
import CairnWire
import Dispatch
import Synchronization
import Testing

@testable import CairnService
@testable import CairnStore

/// Limits of accounts (SPEC R3), under concurrency and over shards.
@Suite struct AccountTests {
    private let alice = ServiceHarness.alice

    private func set(_ harness: ServiceHarness, _ limits: Wire.AccountLimits?, _ account: CallContext) throws {
        _ = try harness.call(
            harness.service.setAccountLimits,
            Wire.SetAccountLimitsRequest(account: account.account.name, limits: limits),
            as: account
        )
    }

    private func describe(_ harness: ServiceHarness, _ account: CallContext) throws -> Wire.DescribeAccountResponse {
        try harness.call(harness.service.describeAccount, Wire.DescribeAccountRequest(), as: account)
    }

    /// Makes calls all at once; how many of them ended well, and the errors of the others.
    private func race<Response: Sendable>(
        _ count: Int,
        _ call: (Int, @escaping Answer<Response>) -> Void
    ) throws -> (good: Int, errors: [ServiceError]) {
        let results = Mutex<[Result<Response, ServiceError>]>([])
        let done = DispatchGroup()
        for number in 0..<count {
            done.enter()
            call(number) { result in
                results.withLock { $0.append(result) }
                done.leave()
            }
        }
        try #require(done.wait(timeout: .now() + 60) == .success)
        let all = results.withLock { $0 }
        return (
            all.count { if case .success = $0 { true } else { false } },
            all.compactMap { if case .failure(let error) = $0 { error } else { nil } }
        )
    }

    @Test(
        "R3: merging parts into whole chunks does not bring an account beyond what it may store; its snapshots are sealed all the same"
    )
    func merging() throws {
        let harness = try ServiceHarness(shards: 2)
        let chunks = 20
        let base = try harness.createVolume(.init(size: 4 << 20))
        var random = SystemRandomNumberGenerator()
        var content = (0..<chunks * 65536).map { _ in UInt8.random(in: 1...255, using: &random) }
        try harness.write(content, at: 0, to: base.volumeID)
        let source = try harness.begin(base.volumeID).snapshotID
        let clone = try harness.createVolume(.init(snapshotID: source)).volumeID
        let stored = try #require(try describe(harness, alice).usage?.storedBytes)
        try set(harness, Wire.AccountLimits(storedBytes: stored + 100_000), alice)
        // They take nothing yet; each chunk that is made whole takes 64 KiB.
        _ = try harness.call(
            harness.service.writeZeroes,
            .init(
                target: .init(target: .volumeID(clone)),
                ranges: (0..<chunks).map { .init(offset: UInt64($0) * 65536, length: 512) }
            )
        )
        for chunk in 0..<chunks {
            content.replaceSubrange(chunk * 65536..<chunk * 65536 + 512, with: [UInt8](repeating: 0, count: 512))
        }
        let snapshot = try harness.begin(clone).snapshotID
        func seal() throws -> Wire.Seal? {
            try harness.call(harness.service.describeSnapshot, .init(target: .snapshotID(snapshot))).snapshot?.seal
        }
        #expect(try harness.eventually { try seal()?.pending == false })
        let after = try #require(try describe(harness, alice).usage?.storedBytes)
        #expect(after > stored && after <= stored + 100_000)
        #expect(try harness.read(.snapshotID(snapshot), 0, UInt64(content.count)) == content)
        // The seal is that of the content, however it is kept.
        let plain = try harness.createVolume(.init(size: 4 << 20), as: ServiceHarness.bob).volumeID
        var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(plain)))
        request.blocks = [ServiceHarness.block(content, at: 0)]
        _ = try harness.upload(request, payload: content, as: ServiceHarness.bob)
        let same = try harness.call(harness.service.createSnapshot, .init(volumeID: plain), as: ServiceHarness.bob)
            .snapshotID
        func otherSeal() throws -> Wire.Seal? {
            try harness.call(harness.service.describeSnapshot, .init(target: .snapshotID(same)), as: ServiceHarness.bob)
                .snapshot?.seal
        }
        #expect(try harness.eventually { try otherSeal()?.pending == false })
        #expect(try seal()?.value == otherSeal()?.value)
    }

    @Test("R3: of many volumes that are made at once on several shards exactly as many are as the limit lets")
    func volumesAtOnce() throws {
        let harness = try ServiceHarness(shards: 4)
        try set(harness, Wire.AccountLimits(volumes: 10), alice)
        let (good, errors) = try race(60) { _, answer in
            harness.service.createVolume(.init(), alice, answer: answer)
        }
        #expect(good == 10)
        #expect(errors.count == 50)
        #expect(errors.allSatisfy { $0.code == .quotaExceeded })
        #expect(errors.contains { $0.text == "volumes: the account may have 10, has 10, and wants 1 more" })
        let account = try describe(harness, alice)
        #expect((account.volumes, account.usage?.logicalBytes) == (10, 10 * 4 << 20))
        // Others have limits of their own.
        _ = try harness.createVolume(as: ServiceHarness.bob)
        // What is deleted makes room at once.
        let volumes = try harness.call(harness.service.listVolumes, Wire.ListVolumesRequest()).volumes
        _ = try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: volumes[0].volumeID))
        _ = try harness.createVolume()
        #expect(throws: ServiceError.self) { try harness.createVolume() }
    }

    @Test("R3: snapshots and logical bytes, exactly; initial snapshots do not count; a repeated call is no second wish")
    func snapshotsAndSizes() throws {
        let harness = try ServiceHarness(shards: 3)
        let volume = try harness.createVolume(Wire.CreateVolumeRequest(size: 4 << 20, idempotencyKey: [1]))
        _ = try harness.createVolume(Wire.CreateVolumeRequest(size: 4 << 20))
        try set(harness, Wire.AccountLimits(snapshots: 5, logicalBytes: 10 << 20), alice)
        let (good, errors) = try race(30) { number, answer in
            let request = Wire.CreateSnapshotRequest(volumeID: volume.volumeID, idempotencyKey: [2, UInt8(number)])
            harness.service.createSnapshot(request, alice, answer: answer)
        }
        #expect(good == 5)
        #expect(errors.allSatisfy { $0.code == .quotaExceeded && $0.text.hasPrefix("snapshots: ") })
        // The first answer again, though there is no room.
        #expect(
            try harness.createVolume(Wire.CreateVolumeRequest(size: 4 << 20, idempotencyKey: [1])).volumeID
                == volume.volumeID
        )
        let error = #expect(throws: ServiceError.self) {
            try harness.createVolume(Wire.CreateVolumeRequest(size: 3 << 20))
        }
        #expect(error?.text == "logical bytes: the account may have 10485760, has 8388608, and wants 3145728 more")
        let resize = Wire.ResizeVolumeRequest(volumeID: volume.volumeID, size: 7 << 20)
        #expect(throws: ServiceError.self) { try harness.call(harness.service.resizeVolume, resize) }
        _ = try harness.call(
            harness.service.resizeVolume,
            Wire.ResizeVolumeRequest(volumeID: volume.volumeID, size: 6 << 20)
        )
        // Lowered below the use: nothing may be added, all may be taken away.
        try set(harness, Wire.AccountLimits(volumes: 1, snapshots: 1), alice)
        let list = try harness.call(harness.service.listSnapshots, Wire.ListSnapshotsRequest(volumeID: volume.volumeID))
        let snapshot = try #require(list.snapshots.first { $0.dataVersion != 1 })
        _ = try harness.call(
            harness.service.deleteSnapshot,
            Wire.DeleteSnapshotRequest(snapshotID: snapshot.snapshotID)
        )
        #expect(throws: ServiceError.self) {
            try harness.call(harness.service.createSnapshot, Wire.CreateSnapshotRequest(volumeID: volume.volumeID))
        }
    }

    @Test("R3, R6: snapshots of several volumes at once count, all or none") func snapshotSets() throws {
        let harness = try ServiceHarness(shards: 4)
        let volumes = try (0..<8).map { _ in try harness.createVolume().volumeID }
        try set(harness, Wire.AccountLimits(snapshots: 12), alice)
        let request = Wire.CreateSnapshotsRequest(volumeIDs: volumes)
        _ = try harness.call(harness.service.createSnapshots, request)
        let error = #expect(throws: ServiceError.self) { try harness.call(harness.service.createSnapshots, request) }
        #expect(error?.code == .quotaExceeded)
        #expect(try describe(harness, alice).snapshots == 8)
        _ = try harness.call(
            harness.service.createSnapshots,
            Wire.CreateSnapshotsRequest(volumeIDs: Array(volumes.prefix(4)))
        )
        #expect(try describe(harness, alice).snapshots == 12)
    }

    @Test(
        "R3: what is deleted and not free yet makes the limit of stored bytes THROTTLED; nobody else's is changed by it"
    )
    func pendingDeletion() throws {
        let harness = try ServiceHarness(shards: 2)
        let volumes = try (0..<2).map { number in
            try harness.createVolume(.init(affinity: [UInt8(number)]), as: alice).volumeID
        }
        for (index, volume) in volumes.enumerated() {
            try harness.write(noise(4 * 65536, seed: UInt64(index) + 1), at: 0, to: volume)
        }
        try set(harness, Wire.AccountLimits(storedBytes: 8 * 65536), alice)
        let more = noise(65536, seed: 9)
        let code = { () -> ServiceError.Code? in
            do { try harness.write(more, at: 1 << 20, to: volumes[0]) } catch let error as ServiceError {
                #expect((error.retryAfter != nil) == (error.code == .throttled))
                return error.code
            }
            return nil
        }
        #expect(try code() == .quotaExceeded)
        let gate = DispatchSemaphore(value: 0)
        for shard in harness.store.shards { shard.background.queue.async { gate.wait() } }
        var isOpen = false
        let open = {
            if !isOpen { for _ in harness.store.shards { gate.signal() } }
            isOpen = true
        }
        defer { open() }
        // Another account's deletions are no reason.
        let bob = ServiceHarness.bob
        let other = try harness.createVolume(as: bob).volumeID
        _ = try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: other), as: bob)
        #expect(try code() == .quotaExceeded)
        _ = try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: volumes[1]))
        #expect(try code() == .throttled)
        // What will never fit is refused all the same.
        #expect(throws: ServiceError.self) { try harness.write(noise(9 * 65536, seed: 8), at: 2 << 20, to: volumes[0]) }
        open()
        #expect(try harness.eventually { try code() == nil })
    }

    @Test("R3: stored bytes: of uploads at once, on several shards, none goes beyond, and what fits is let in")
    func storedBytes() throws {
        let harness = try ServiceHarness(shards: 4)
        let volumes = try (0..<8).map { _ in try harness.createVolume().volumeID }
        try set(harness, Wire.AccountLimits(storedBytes: 10 * 65536), alice)
        let contents = (0..<40).map { noise(65536, seed: UInt64($0) + 1) }
        let (good, errors) = try race(40) { number, answer in
            var request = Wire.UploadBlockRequest()
            request.target = Wire.Target(target: .volumeID(volumes[number % 8]))
            request.blocks = [ServiceHarness.block(contents[number], at: UInt64(number / 8) * 65536)]
            harness.service.uploadBlock(
                request,
                payload: Buffer(copying: contents[number]).slice,
                alice,
                answer: answer
            )
        }
        #expect(good == 10)
        #expect(errors.allSatisfy { $0.code == .quotaExceeded && $0.text.hasPrefix("stored bytes: ") })
        #expect(try describe(harness, alice).usage?.storedBytes == 10 * 65536)
        // What is there already takes nothing more: by its bytes or by its token.
        let written = try #require(
            contents.indices.first { index in
                let chunk = UInt64(index / 8) * 65536
                return (try? harness.read(.volumeID(volumes[index % 8]), chunk, 65536)) == contents[index]
            }
        )
        try harness.write(contents[written], at: UInt64(written / 8) * 65536, to: volumes[written % 8])
        // Zeros take nothing.
        try harness.write([UInt8](repeating: 0, count: 65536), at: 20 * 65536, to: volumes[0])
        // A part does.
        #expect(throws: ServiceError.self) { try harness.write(noise(512, seed: 99), at: 30 * 65536, to: volumes[0]) }
    }

    @Test("R3: limits hold at once and as a whole, survive a restart, and can be taken away") func own() throws {
        let harness = try ServiceHarness(shards: 3) { _, options in options.accountLimits.volumes = 1 }
        _ = try harness.createVolume()
        #expect(throws: ServiceError.self) { try harness.createVolume() }
        // Not what the server says beside it.
        try set(harness, Wire.AccountLimits(snapshots: 7), alice)
        _ = try harness.createVolume()
        #expect(try describe(harness, alice).limits == Wire.AccountLimits(snapshots: 7))
        #expect(try describe(harness, ServiceHarness.bob).limits == Wire.AccountLimits(volumes: 1))
        let again = try ServiceHarness(restarting: harness) { _, options in options.accountLimits.volumes = 1 }
        #expect(try describe(again, alice).limits == Wire.AccountLimits(snapshots: 7))
        try set(again, nil, alice)
        #expect(try describe(again, alice).limits == Wire.AccountLimits(volumes: 1))
        #expect(throws: ServiceError.self) { try again.createVolume() }
        // No limit at all is a limit of its own.
        try set(again, Wire.AccountLimits(), alice)
        _ = try again.createVolume()
    }

    @Test("R3: every account that has a volume or limits on any shard is listed once, in pages") func list() throws {
        let harness = try ServiceHarness(shards: 4)
        var names: Set<String> = []
        for number in 0..<25 {
            let context = CallContext(account: AccountID("acct-\(number)")!)
            names.insert(context.account.name)
            for _ in 0..<3 where number < 20 { _ = try harness.createVolume(as: context) }
            if number >= 15 { try set(harness, Wire.AccountLimits(volumes: 9), context) }
        }
        var (found, token, pages): ([String], [UInt8], Int) = ([], [], 0)
        repeat {
            let waiter = Waiter<Wire.ListAccountsResponse>()
            let page = Wire.PageRequest(limit: 7, pageToken: token)
            harness.service.listAccounts(Wire.ListAccountsRequest(page: page)) { waiter.set($0) }
            let answer = try waiter.get()
            found += answer.accounts
            token = answer.nextPageToken
            pages += 1
        } while !token.isEmpty && pages < 10
        #expect(found == names.sorted())
        #expect(pages == 4)
        for wrong: [UInt8] in [[1], [3, 0, 0, 0, 0], Array(repeating: 3, count: 40)] {
            let waiter = Waiter<Wire.ListAccountsResponse>()
            harness.service.listAccounts(
                Wire.ListAccountsRequest(page: Wire.PageRequest(limit: 7, pageToken: wrong))
            ) { waiter.set($0) }
            #expect(throws: ServiceError.self) { try waiter.get() }
        }
    }
}
