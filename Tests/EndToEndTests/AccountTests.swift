import CairnCore
import CairnCrypto
import CairnWire
import Foundation
import Testing

/// Limits of accounts, and the operator's calls (SPEC R3, R4), over TLS against a real server.
@Suite(.serialized, .server(shards: 4))
struct AccountTests {
    private let server = ServerProcess.shared

    private func operatorCaller() async throws -> Caller {
        try await server.connect(try server.issue("operator-\(UInt32.random(in: 0 ... .max))", [.uri("cairn://admin")]))
    }

    private func set(_ limits: Wire.AccountLimits?, of account: String, by caller: Caller) async throws {
        _ = try await caller.call(Wire.SetAccountLimitsRequest(account: account, limits: limits))
    }

    /// What a refusal for a quota must say.
    private func expectQuota(
        _ name: String,
        limit: UInt64,
        use: UInt64,
        wish: UInt64,
        _ body: () async throws -> Void
    ) async throws {
        let error = try await failure(of: body)
        #expect(error.reason == .quotaExceeded)
        #expect(error.status == .resourceExhausted)
        #expect(!error.isRetryable)
        #expect(error.text == "\(name): the account may have \(limit), has \(use), and wants \(wish) more")
    }

    @Test(
        "R3: volumes, snapshots and logical bytes: refused at the limit, at once after it was set; deleting makes room"
    )
    func quotas() async throws {
        let admin = try await operatorCaller()
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 2 << 20)
        try await set(Wire.AccountLimits(volumes: 2), of: account, by: admin)
        let second = try await caller.createVolume()
        try await expectQuota("volumes", limit: 2, use: 2, wish: 1) { _ = try await caller.createVolume() }
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: second.volumeID))
        _ = try await caller.createVolume()
        try await set(Wire.AccountLimits(snapshots: 1), of: account, by: admin)
        let snapshot = try await caller.createSnapshot(volume.volumeID)
        try await expectQuota("snapshots", limit: 1, use: 1, wish: 1) {
            _ = try await caller.createSnapshot(volume.volumeID)
        }
        _ = try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: snapshot.snapshotID))
        let again = try await caller.createSnapshot(volume.volumeID)
        try await set(Wire.AccountLimits(logicalBytes: 4 << 20), of: account, by: admin)
        // 3 MiB are there.
        try await expectQuota("logical bytes", limit: 4 << 20, use: 3 << 20, wish: 2 << 20) {
            _ = try await caller.createVolume(size: 0, chunkSize: 0, from: again.snapshotID)
        }
        try await expectQuota("logical bytes", limit: 4 << 20, use: 3 << 20, wish: 2 << 20) {
            _ = try await caller.call(Wire.ResizeVolumeRequest(volumeID: volume.volumeID, size: 4 << 20))
        }
        _ = try await caller.call(Wire.ResizeVolumeRequest(volumeID: volume.volumeID, size: 3 << 20))
        let told = try await caller.call(Wire.DescribeAccountRequest()).message
        #expect(told.account == account)
        #expect(told.limits == Wire.AccountLimits(logicalBytes: 4 << 20))
        #expect((told.volumes, told.snapshots, told.usage?.logicalBytes) == (2, 1, 4 << 20))
        #expect(try await admin.call(Wire.DescribeAccountRequest(account: account)).message == told)
    }

    @Test("R3, U2: stored bytes: the upload that goes beyond is refused whole; what is there already costs nothing")
    func storedBytes() async throws {
        let admin = try await operatorCaller()
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        try await set(Wire.AccountLimits(storedBytes: 3 * 65536), of: account, by: admin)
        let chunks = (1...4).map { Content.noise(UInt64($0) + 7000, 65536) }
        try await caller.upload(volume, .plain(0, chunks[0]), .plain(65536, chunks[1]))
        try await expectQuota("stored bytes", limit: 3 * 65536, use: 2 * 65536, wish: 2 * 65536) {
            try await caller.upload(volume, .plain(2 * 65536, chunks[2]), .plain(3 * 65536, chunks[3]))
        }
        #expect(try await caller.download(volume, 0..<1 << 20).suffix(14 * 65536).allSatisfy { $0 == 0 })
        try await caller.upload(volume, .plain(2 * 65536, chunks[2]))
        try await caller.upload(volume, .plain(5 * 65536, chunks[0]), .zeros(6 * 65536, 65536))
        #expect(try await caller.call(Wire.DescribeAccountRequest()).message.usage?.storedBytes == 3 * 65536)
    }

    @Test("R3: what is asked too fast is THROTTLED, nothing is done, and who waits as told is let in")
    func requests() async throws {
        let admin = try await operatorCaller()
        let account = freshAccount()
        let caller = try await server.connect(account)
        try await set(Wire.AccountLimits(requestsPerSecond: 5), of: account, by: admin)
        var (made, refusals): (Int, [CallError]) = (0, [])
        let results = try await withThrowingTaskGroup(of: CallError?.self) { group in
            for _ in 0..<40 {
                group.addTask {
                    do { _ = try await caller.createVolume() } catch let error as CallError { return error }
                    return nil
                }
            }
            var results: [CallError?] = []
            for try await result in group { results.append(result) }
            return results
        }
        for result in results { if let result { refusals.append(result) } else { made += 1 } }
        #expect(made >= 5)
        let first = try #require(refusals.first)
        #expect(refusals.allSatisfy { $0.reason == .throttled && $0.isRetryable && $0.retryAfter != nil })
        #expect(first.text == "the account may make 5 requests each second")
        // Others are not held up, and a limit that is gone is gone at once.
        let other = try await server.connect(freshAccount())
        for _ in 0..<20 { _ = try await other.call(Wire.ListVolumesRequest()) }
        var left = 40 - made
        while left > 0 {
            do {
                _ = try await caller.createVolume()
                made += 1
                left -= 1
                if left == 30 { break }
            } catch let error as CallError {
                #expect(error.reason == .throttled)
                try await Task.sleep(for: try #require(error.retryAfter))
            }
        }
        try await set(Wire.AccountLimits(), of: account, by: admin)
        let volumes = try await caller.call(Wire.ListVolumesRequest()).message.volumes
        #expect(volumes.count == made)
    }

    @Test("R3, R4: the limit of requests holds for every call, also for those that are answered at once")
    func smallCalls() async throws {
        let account = freshAccount()
        let caller = try await server.connect(account)
        try await set(Wire.AccountLimits(requestsPerSecond: 1), of: account, by: try await operatorCaller())
        var refusals = 0
        for _ in 0..<20 {
            do {
                _ = try await caller.call(Wire.GetHealthRequest())
                _ = try await caller.call(Wire.GetServerFactsRequest())
            } catch let error as CallError {
                #expect(error.reason == .throttled)
                refusals += 1
            }
        }
        #expect(refusals > 0)
    }

    @Test("R3: bytes in flight: requests and answers beyond the limit are THROTTLED; one alone is let in")
    func bytesInFlight() async throws {
        let admin = try await operatorCaller()
        let account = freshAccount()
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: 16 << 20).volumeID
        let content = Content.noise(4711, 4 << 20)
        try await caller.upload(volume, .plain(0, content))
        try await set(Wire.AccountLimits(bytesInFlight: 1 << 20), of: account, by: admin)
        // Larger than the limit, and alone.
        try await caller.upload(volume, .plain(0, content))
        #expect(try await caller.download(volume, 0..<4 << 20) == content)
        var (good, throttled) = (0, 0)
        for _ in 0..<20 where throttled == 0 {
            let results = try await withThrowingTaskGroup(of: CallError?.self) { group in
                for _ in 0..<16 {
                    group.addTask {
                        do { _ = try await caller.download(volume, 0..<4 << 20) } catch let error as CallError {
                            return error
                        }
                        return nil
                    }
                }
                var results: [CallError?] = []
                for try await result in group { results.append(result) }
                return results
            }
            good += results.count { $0 == nil }
            for error in results.compactMap({ $0 }) {
                throttled += 1
                #expect(error.reason == .throttled)
                #expect(error.isRetryable && error.retryAfter != nil)
            }
        }
        #expect(good > 0 && throttled > 0)
        // All of it was given back.
        #expect(try await caller.download(volume, 0..<4 << 20) == content)
    }

    @Test("R3, C1: the operator's calls are the operator's alone, and it has no other")
    func permissions() async throws {
        let admin = try await operatorCaller()
        let account = freshAccount()
        let node = try server.issue("node-\(account)", [.uri("cairn://account/\(account)/host")])
        for caller in [try await server.connect(account), try await server.connect(node)] {
            for error in [
                try await failure { try await caller.call(Wire.SetAccountLimitsRequest(account: account)) },
                try await failure { try await caller.call(Wire.ListAccountsRequest()) },
                try await failure { try await caller.call(Wire.GetMetricsRequest()) },
                try await failure { try await caller.call(Wire.DescribeAccountRequest(account: freshAccount())) },
            ] {
                #expect(error.reason == .permissionDenied)
                #expect(error.status == .permissionDenied)
            }
            #expect(try await caller.call(Wire.DescribeAccountRequest(account: account)).message.account == account)
        }
        for error in [
            try await failure { try await admin.call(Wire.ListVolumesRequest()) },
            try await failure { try await admin.call(Wire.CreateVolumeRequest()) },
            try await failure { try await admin.call(Wire.DownloadBlockRequest()) },
        ] { #expect(error.reason == .permissionDenied) }
        for name in ["", "Not-a-name", String(repeating: "a", count: 65)] {
            for error in [
                try await failure { try await admin.call(Wire.DescribeAccountRequest(account: name)) },
                try await failure { try await admin.call(Wire.SetAccountLimitsRequest(account: name)) },
            ] { #expect(error.reason == .invalidArgument) }
        }
    }

    @Test("R3: the operator lists every account, in pages; limits last through kill -9")
    func listing() async throws {
        let server = try await ServerProcess.started(shards: 4, settings: ["limit-volumes=1"])
        func admin() async throws -> Caller {
            try await server.connect(try server.issue("op-\(UInt32.random(in: 0 ... .max))", [.uri("cairn://admin")]))
        }
        var caller = try await admin()
        let names = (0..<7).map { "tenant-\($0)" }
        for name in names { _ = try await server.connect(name).createVolume() }
        _ = try await caller.call(Wire.SetAccountLimitsRequest(account: "zz-new", limits: .init(volumes: 3)))
        _ = try await caller.call(Wire.SetAccountLimitsRequest(account: names[0], limits: .init(volumes: 2)))
        try await server.crash()
        try await server.start()
        caller = try await admin()
        var (found, token): ([String], [UInt8]) = ([], [])
        for _ in 0..<10 {
            let answer = try await caller.call(
                Wire.ListAccountsRequest(page: Wire.PageRequest(limit: 3, pageToken: token))
            ).message
            #expect(answer.accounts.count <= 3)
            found += answer.accounts
            token = answer.nextPageToken
            if token.isEmpty { break }
        }
        #expect(found == names + ["zz-new"])
        let first = try await server.connect(names[0])
        _ = try await first.createVolume()
        #expect(try await failure { try await first.createVolume() }.reason == .quotaExceeded)
        let second = try await server.connect(names[1])
        #expect(try await failure { try await second.createVolume() }.reason == .quotaExceeded)
    }

    @Test("R4, C3: metrics count what was done, and name no account, volume or snapshot")
    func metrics() async throws {
        let admin = try await operatorCaller()
        let account = freshAccount("named")
        func value(_ name: String) async throws -> Int {
            let text = try await admin.call(Wire.GetMetricsRequest()).message.text
            return try sample(name, in: text)
        }
        let good = "cairn_calls_total{method=\"CreateVolume\",status=\"OK\"}"
        let bad = "cairn_calls_total{method=\"DescribeVolume\",status=\"NOT_FOUND\"}"
        let (goodBefore, badBefore) = (try await value(good), try await value(bad))
        let received = try await value("cairn_request_bytes_total")
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume()
        try await caller.upload(volume.volumeID, .plain(0, Content.noise(1, 65536)))
        _ = try await failure { try await caller.describeVolume(volume.volumeID.map { ~$0 }) }
        _ = try await caller.raw(method: 9999, [])
        #expect(try await value(good) == goodBefore + 1)
        #expect(try await value(bad) == badBefore + 1)
        #expect(try await value("cairn_calls_total{method=\"unknown\",status=\"UNIMPLEMENTED\"}") >= 1)
        for (method, size) in [("CreateVolume", "small"), ("UploadBlock", "large")] {
            let labels = "{method=\"\(method)\",size=\"\(size)\""
            #expect(try await value("cairn_call_seconds_count\(labels)}") >= 1)
            #expect(try await value("cairn_call_seconds_bucket\(labels),le=\"+Inf\"}") >= 1)
        }
        #expect(try await value("cairn_request_bytes_total") >= received + 65536)
        #expect(try await value("cairn_connections") >= 2)
        #expect(try await value("cairn_calls_in_flight") >= 1)
        for shard in 0..<4 {
            #expect(try await value("cairn_shard_log_bytes{shard=\"\(shard)\"}") > 0)
            #expect(try await value("cairn_shard_fenced{shard=\"\(shard)\"}") == 0)
        }
        let text = try await admin.call(Wire.GetMetricsRequest()).message.text
        #expect(!text.contains(account) && !text.contains("named") && !text.contains("vol-"))
        // Prometheus' text format: help, type and samples of each family together.
        for line in text.split(separator: "\n") {
            #expect(
                line.wholeMatch(
                    of: /# (HELP|TYPE) cairn_[a-z_]+ .+|cairn_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? \d+(\.\d+)?/
                ) != nil
            )
        }
        let facts = try await caller.call(Wire.GetServerFactsRequest()).message.facts
        #expect(facts?.features.contains("account-limits") == true)
        #expect(facts?.features.contains("metrics") == true)
    }
}
