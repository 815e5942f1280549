import CairnCore
import CairnWire
import Foundation
import Testing

/// SPEC R3: what an account may have and do, set by the operator.
@Suite(.serialized, .server(shards: 3))
struct QuotaTests {
    private let server = ServerProcess.shared

    private func admin() async throws -> Caller {
        let name = "operator-\(UInt32.random(in: 0 ... .max))"
        return try await server.connect(try server.issue(name, [.uri("cairn://admin")]))
    }

    /// An account with limits.
    private func limited(_ limits: Wire.AccountLimits) async throws -> (caller: Caller, account: String, admin: Caller)
    {
        let (account, admin) = (freshAccount(), try await admin())
        _ = try await admin.call(Wire.SetAccountLimitsRequest(account: account, limits: limits))
        return (try await server.connect(account), account, admin)
    }

    @Test("R3: limits on volumes, snapshots and logical bytes are QUOTA_EXCEEDED beyond, exact also for many at once")
    func counts() async throws {
        let (caller, account, admin) = try await limited(.init(volumes: 3, snapshots: 7, logicalBytes: 20 << 20))
        let made = try await withThrowingTaskGroup(of: [UInt8]?.self) { group in
            for _ in 0..<12 {
                group.addTask {
                    let own = try await server.connect(account)
                    do { return try await own.createVolume().volumeID } catch let error as CallError {
                        #expect(error.reason == .quotaExceeded)
                        #expect(error.status == .resourceExhausted)
                        return nil
                    }
                }
            }
            return try await group.reduce(into: [[UInt8]]()) { found, id in if let id { found.append(id) } }
        }
        #expect(made.count == 3)
        // Deleting makes room.
        try await caller.deleteVolume(made[2])
        let again = try await caller.createVolume().volumeID
        try await expectFailure(.quotaExceeded) { try await caller.createVolume() }
        // The initial ones do not count.
        var snapshots: [[UInt8]] = []
        while snapshots.count < 10 {
            do { snapshots.append(try await caller.createSnapshot(again).snapshotID) } catch let error as CallError {
                #expect(error.reason == .quotaExceeded)
                break
            }
        }
        #expect(try await caller.call(Wire.DescribeAccountRequest()).message.snapshots == 7)
        try await caller.deleteSnapshot(snapshots[0])
        _ = try await caller.createSnapshot(again)
        // Logical bytes: 3 volumes of 1 MiB; growing counts.
        let error = try await failure {
            try await caller.call(Wire.ResizeVolumeRequest(volumeID: again, size: 64 << 20))
        }
        #expect(error.reason == .quotaExceeded)
        #expect(try await caller.describeVolume(again).size == 1 << 20)
        // The operator sees it, and lifts it.
        let described = try await admin.call(Wire.DescribeAccountRequest(account: account)).message
        #expect(described.limits?.volumes == 3)
        #expect(described.volumes == 3)
        #expect(described.usage?.logicalBytes == 3 << 20)
        _ = try await admin.call(Wire.SetAccountLimitsRequest(account: account, limits: .init()))
        _ = try await caller.call(Wire.ResizeVolumeRequest(volumeID: again, size: 64 << 20))
        for _ in 0..<3 { _ = try await caller.createVolume() }
    }

    @Test("R3: a limit on stored bytes is QUOTA_EXCEEDED, nothing of the refused call is written, reads go on")
    func stored() async throws {
        let (caller, account, _) = try await limited(.init(storedBytes: 2 << 20))
        let volume = try await caller.createVolume(size: 16 << 20).volumeID
        var written = 0
        var refusal: CallError?
        while written < 16, refusal == nil {
            do {
                try await caller.upload(
                    volume,
                    .plain(UInt64(written) * 262144, Content.noise(UInt64(written), 262144))
                )
                written += 1
            } catch let error as CallError { refusal = error }
        }
        #expect(refusal?.reason == .quotaExceeded)
        #expect((7...8).contains(written))
        #expect(
            try await caller.download(volume, 0..<UInt64(written) * 262144)
                == (0..<written).flatMap { Content.noise(UInt64($0), 262144) }
        )
        #expect(
            try await caller.download(volume, UInt64(written) * 262144..<UInt64(written + 1) * 262144)
                == [UInt8](repeating: 0, count: 262144)
        )
        // What is here already costs nothing.
        try await caller.upload(volume, .token(8 << 20, Content.token(Content.noise(0, 65536))))
        #expect(try await caller.download(volume, 8 << 20..<(8 << 20) + 65536) == Content.noise(0, 65536))
        // Deleting makes room: as much as was freed, and no more.
        let next = Upload.plain(UInt64(written) * 262144, Content.noise(90, 262144))
        try await expectFailure(.quotaExceeded) { try await caller.upload(volume, next) }
        let client = try server.client(account)
        _ = try await caller.call(
            Wire.DiscardRequest(
                target: .init(target: .volumeID(volume)),
                ranges: [.init(offset: 262144, length: 262144)]
            )
        )
        // What is not free yet is THROTTLED at most: the library comes again by itself.
        try await client.write(
            Content.noise(90, 262144),
            at: UInt64(written) * 262144,
            to: .volume(try #require(VolumeID(bytes: volume)))
        )
        try await expectFailure(.quotaExceeded) {
            try await caller.upload(volume, .plain(10 << 20, Content.noise(91, 262144)))
        }
        try await caller.deleteVolume(volume)
        let again = try await client.volume(size: 16 << 20).id
        try await client.write(Content.noise(92, 7 * 262144), to: .volume(again))
    }

    @Test("R3: requests a second, and bytes in flight, are THROTTLED beyond, with the time after which to come again")
    func rates() async throws {
        let (caller, account, admin) = try await limited(.init(requestsPerSecond: 5))
        var throttled: CallError?
        for _ in 0..<200 where throttled == nil {
            do { _ = try await caller.call(Wire.ListVolumesRequest()) } catch let error as CallError {
                throttled = error
            }
        }
        let error = try #require(throttled)
        #expect(error.reason == .throttled)
        #expect(error.status == .resourceExhausted)
        #expect(error.isRetryable)
        let wait = try #require(error.retryAfter)
        #expect(wait > .zero && wait < .seconds(60))
        // Another account is not.
        let other = try await server.connect(freshAccount())
        for _ in 0..<50 { _ = try await other.call(Wire.ListVolumesRequest()) }
        // Whoever waits as told comes in.
        try await eventually("the account comes in again") {
            try await Task.sleep(for: wait)
            return (try? await caller.call(Wire.ListVolumesRequest())) != nil
        }
        // The client library waits by itself.
        let client = try server.client(account)
        for _ in 0..<12 { _ = try await client.serverFacts() }

        _ = try await admin.call(
            Wire.SetAccountLimitsRequest(account: account, limits: .init(bytesInFlight: 1 << 20))
        )
        let volume = try await caller.createVolume(size: 64 << 20).volumeID
        let bytes = Content.noise(1, 786_432)
        let refusals = try await withThrowingTaskGroup(of: Int.self) { group in
            for index in 0..<12 {
                group.addTask {
                    do {
                        try await caller.upload(volume, .plain(UInt64(index) * 1_048_576, bytes))
                        return 0
                    } catch let error as CallError {
                        #expect(error.reason == .throttled)
                        #expect(error.retryAfter != nil)
                        return 1
                    }
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(refusals > 0)
        // One at a time fits.
        try await eventually("the limit lets one in") {
            (try? await caller.upload(volume, .plain(0, bytes))) != nil
        }
        // What is answered is no longer in flight a moment after the answer.
        var found: [UInt8]?
        try await eventually("it is read") {
            found = try? await caller.download(volume, 0..<786_432)
            return found != nil
        }
        #expect(found == bytes)
    }

    @Test("R3, C1: accounts are listed and limited by the operator's certificate alone; limits outlive kill -9")
    func operatorOnly() async throws {
        let server = try await ServerProcess.started(shards: 2)
        let operatorFiles = try server.issue("operator", [.uri("cairn://admin")])
        var admin = try await server.connect(operatorFiles)
        let accounts = (0..<5).map { _ in freshAccount() }.sorted()
        for account in accounts { _ = try await server.connect(account).createVolume() }
        _ = try await admin.call(
            Wire.SetAccountLimitsRequest(account: accounts[2], limits: .init(volumes: 1, requestsPerSecond: 1000))
        )
        try await server.crash()
        try await server.start()
        admin = try await server.connect(operatorFiles)
        var listed: [String] = []
        var page = Wire.ListAccountsRequest(page: .init(limit: 2))
        repeat {
            let answer = try await admin.call(page).message
            listed += answer.accounts
            page.page?.pageToken = answer.nextPageToken
        } while page.page?.pageToken.isEmpty == false
        #expect(Set(listed).isSuperset(of: accounts))
        #expect(listed.count == Set(listed).count)
        let described = try await admin.call(Wire.DescribeAccountRequest(account: accounts[2])).message
        #expect(described.limits == .init(volumes: 1, requestsPerSecond: 1000))
        let caller = try await server.connect(accounts[2])
        try await expectFailure(.quotaExceeded) { try await caller.createVolume() }
        #expect(try await caller.call(Wire.DescribeAccountRequest()).message.limits == described.limits)
        #expect(try await caller.call(Wire.DescribeAccountRequest(account: accounts[2])).message.volumes == 1)
        // The operator has no volumes.
        #expect(try await failure { try await admin.createVolume() }.status == .permissionDenied)
    }

    @Test("C3, R3: another account's facts are the operator's alone; one that is there answers as one that is not")
    func accounts() async throws {
        let name = freshAccount()
        _ = try await server.connect(name).createVolume()
        let stranger = try await server.connect(freshAccount())
        let host = try await server.connect(try server.issue("node", [.uri("cairn://account/tenant/host")]))
        for caller in [stranger, host] {
            var answers: [Set<Caller.RawAnswer>] = [[], [], []]
            for account in [name, freshAccount()] {
                answers[0].insert(try await caller.raw(Wire.DescribeAccountRequest(account: account)))
                answers[1].insert(
                    try await caller.raw(
                        Wire.SetAccountLimitsRequest(account: account, limits: .init(volumes: 1))
                    )
                )
                answers[2].insert(try await caller.raw(Wire.ListAccountsRequest()))
            }
            for answer in answers {
                #expect(answer.count == 1)
                let error = CallError(status: answer.first!.status, detail: answer.first!.message)
                #expect(error.reason == .permissionDenied, "\(error)")
            }
        }
    }
}
