import CairnClient
import CairnCore
import CairnCrypto
import CairnWire
import Testing

/// SPEC section 1, as a program meets it that uses the library.
@Suite(.serialized, .server(shards: 3))
struct LibraryCallTests {
    private let server = ServerProcess.shared

    /// How a first call ends.
    private func refusal(_ credentials: Credentials) async throws -> ClientError {
        let client = try Client(server: server.endpoint, credentials: credentials, options: .once)
        do throws(ClientError) {
            _ = try await client.serverFacts()
        } catch { return error }
        throw HarnessError("the certificate was accepted")
    }

    @Test("C1: a bad chain ends in TLS, a good one without our name in AUTHENTICATION_FAILURE; a revoked one is out")
    func certificates() async throws {
        let foreign = try CertificateAuthority.create(in: server.folder.fresh("foreign"))
        let issued = try foreign.issueClient(CredentialName("mallory"), identity: .account(AccountID("mallory")!))
        let stranger = Credentials(
            certificate: issued.certificatePath,
            privateKey: issued.keyPath,
            authorities: server.authority.certificatePath
        )
        let name = AlternativeName.uri("cairn://account/late")
        let past = Validity(notBefore: Validity.now - 7200, notAfter: Validity.now - 3600)
        for credentials in [stranger, try server.issue("late", [name], validity: past)] {
            let error = try await refusal(credentials)
            #expect(error.code == .insecure && error.answer == nil, "\(error)")
        }
        let two = ["one", "two"].map { AlternativeName.uri("cairn://account/\($0)") }
        for (file, names) in [("nobody", []), ("both", two), ("odd", [.uri("cairn://account/A")])]
            as [(String, [AlternativeName])]
        {
            let error = try await refusal(try server.issue(file, names))
            #expect(error.code == .refused && error.answer?.reason == .authenticationFailure, "\(error)")
        }
        // And the library does not trust any server.
        var mine = try server.credentials("trusting")
        mine.authorities = foreign.certificatePath
        #expect(try await refusal(mine).code == .insecure)
        let victim = try server.client("revoked-later")
        #expect(try await victim.serverFacts().identity == "revoked-later")
        try await require(Program.cairn, ["pki", "revoke", server.pki, "revoked-later"], in: server.folder)
        try await eventually("the revoked client is out") {
            do throws(ClientError) {
                _ = try await victim.serverFacts()
                return false
            } catch { return error.code == .insecure }
        }
    }

    @Test("C1: a client is out when its certificate has expired")
    func expiry() async throws {
        let end = Validity.now + 4
        let brief = try server.issue(
            "brief",
            [.uri("cairn://account/brief")],
            validity: Validity(notBefore: end - 3600, notAfter: end)
        )
        let client = try Client(server: server.endpoint, credentials: brief)
        #expect(try await client.serverFacts().identity == "brief")
        try await eventually("the client is out") {
            do throws(ClientError) {
                _ = try await client.serverFacts()
                return false
            } catch { return error.code == .insecure }
        }
        #expect(Validity.now >= end)
    }

    @Test("C2: what is not there and what is another account's give the same answer, whatever is asked")
    func absence() async throws {
        let (owner, stranger) = (try server.client(freshAccount()), try server.client(freshAccount()))
        let made = try await owner.volume()
        try await owner.write(Content.noise(1, 65536), to: .volume(made.id))
        let snapshot = try await owner.createSnapshot(of: made.id).id
        let shard = made.id.uuid.shard
        var answers: [[CallError]] = []
        for (volume, snapshot) in [
            (made.id, snapshot), (VolumeID(.random(shard: shard)), SnapshotID(.random(shard: shard))),
        ] {
            answers.append([
                try await failure { try await stranger.describeVolume(volume) },
                try await failure { try await stranger.read(.volume(volume), 0..<512) },
                try await failure { try await stranger.upload([.zeros(0, 512)], to: .volume(volume)) },
                try await failure { try await stranger.createSnapshot(of: volume) },
                try await failure { try await stranger.resizeVolume(volume, to: 2 << 20) },
                try await failure { try await stranger.attachVolume(volume) },
                try await failure { try await stranger.deleteVolume(volume) },
                try await failure { try await stranger.describeSnapshot(snapshot) },
                try await failure { try await stranger.read(.snapshot(snapshot), 0..<512) },
                try await failure { try await stranger.clone(snapshot) },
                try await failure { try await stranger.reportProgress(100, of: snapshot) },
                try await failure { try await stranger.deleteSnapshot(snapshot) },
            ])
        }
        #expect(answers[0] == answers[1])
        #expect(answers[0].map(\.reason).prefix(7).allSatisfy { $0 == .invalidVolumeID }, "\(answers[0])")
        #expect(answers[0].map(\.reason).dropFirst(7).allSatisfy { $0 == .invalidSnapshotID }, "\(answers[0])")
        #expect(try await owner.read(.volume(made.id), 0..<65536) == Content.noise(1, 65536))
    }

    @Test("C3: listings, usage, QueryChunks and uploads by token tell nothing of another account's data")
    func isolation() async throws {
        let (owner, stranger) = (try server.client(freshAccount()), try server.client(freshAccount()))
        let bytes = Content.noise(2, 65536)
        let theirs = try await owner.volume(affinity: [1]).id
        try await owner.write(bytes, to: .volume(theirs))
        _ = try await owner.createSnapshot(of: theirs)
        _ = try await owner.stage([bytes.slice], chunkSize: ChunkSize(bytes: 65536)!)
        let own = try await stranger.volume(affinity: [1])
        #expect(try await stranger.volumes().all().map(\.id) == [own.id])
        #expect(try await stranger.snapshots().all().map(\.id) == [own.initialSnapshot])
        #expect(try await stranger.usage().total.unique == 0)
        let known = try await stranger.queryChunks([bytes.token, bytes.token], for: own.id)
        #expect(known.isPresent == [false, false])
        try await expectFailure(.invalidChunkToken, block: 1) {
            try await stranger.upload([.zeros(65536, 512), .token(0, bytes.token)], to: .volume(own.id))
        }
        try await expectFailure(.invalidChunkToken, block: 0) { try await stranger.renewLease(of: [bytes.token]) }
        // Its own copy is its own.
        try await stranger.write(bytes, to: .volume(own.id))
        try await owner.deleteVolume(theirs)
        #expect(try await stranger.read(.volume(own.id), 0..<65536) == bytes)
        #expect(try await stranger.usage().total.unique == 65536)
    }

    @Test("C4: IDs are UUIDs of 16 bytes, read as vol-… and snap-…, in the library and in the command")
    func identifiers() async throws {
        let account = freshAccount()
        let client = try server.client(account)
        let made = try await client.volume()
        #expect(made.id.bytes.count == 16 && made.initialSnapshot.bytes.count == 16)
        #expect("\(made.id)".hasPrefix("vol-") && VolumeID(text: "\(made.id)") == made.id)
        #expect("\(made.initialSnapshot)".hasPrefix("snap-"))
        #expect(SnapshotID(text: made.initialSnapshot.uuid.text) == made.initialSnapshot)
        let shown = try Report(try await server.cairn(account, ["volume", "show", "\(made.id)", "--json"]))
        #expect(try shown.text("volume_id") == "\(made.id)")
        #expect(try shown.text("initial_snapshot_id") == "\(made.initialSnapshot)")
    }

    @Test("C5: calls that a killed server left unanswered are made again by the library, and done once")
    func retried() async throws {
        let server = try await ServerProcess.started()
        var options = ClientOptions()
        options.callLimit = .seconds(120)
        let client = try server.client("again", options)
        let first = try await client.volume()
        let calls = Task {
            try await withThrowingTaskGroup(of: (VolumeID, DataVersion).self) { group in
                for _ in 0..<24 {
                    group.addTask {
                        (try await client.volume().id, try await client.createSnapshot(of: first.id).dataVersion)
                    }
                }
                return try await group.reduce(into: (Set<VolumeID>(), Set<DataVersion>())) {
                    $0.0.insert($1.0)
                    $0.1.insert($1.1)
                }
            }
        }
        try await Task.sleep(for: .milliseconds(20))
        try await server.crash()
        try await server.start(sameAddress: true)
        let (volumes, versions) = try await calls.value
        #expect(Set(try await client.volumes().all().map(\.id)) == volumes.union([first.id]) && volumes.count == 24)
        #expect(versions == Set((2..<26).map { DataVersion($0) }))
        #expect(try await client.snapshots(of: first.id).all().count == 25)
    }

    /// A client with one connection at a time, which goes over `relay`.
    private func client(_ account: String, over relay: Relay) throws -> Client {
        var options = ClientOptions()
        (options.connections, options.callLimit) = (1, .seconds(120))
        return try Client(server: relay.endpoint, credentials: try server.credentials(account), options: options)
    }

    @Test("C5: the library's new connection ends its lost one, whose writes come too late; another client's goes on")
    func lateWrites() async throws {
        let relay = try Relay(to: server.endpoint)
        defer { relay.stop() }
        let account = freshAccount()
        let client = try self.client(account, over: relay)
        let target = BlockTarget.volume(try await client.volume().id)
        let line = relay.lines[0]
        let other = try self.client(account, over: relay)
        #expect(try await other.serverFacts().identity == account)
        // The other client has not ended it: what is only slow arrives.
        line.hold()
        let slow = Task { try await client.write(Content.noise(60, 65536), to: target) }
        try await eventually("a write is on its way") { line.heldBytes > 65536 }
        line.release()
        _ = try await slow.value
        #expect(try await other.read(target, 0..<65536) == Content.noise(60, 65536))
        #expect(relay.lines.count == 2)
        // All but the last of these are held to their last byte: the server could carry them out.
        line.hold()
        let late = (0..<16).map { index in
            Task { try await client.write(Content.noise(UInt64(70 + index), 65536), to: target) }
        }
        try await eventually("writes are on their way") { line.heldBytes > 16 * 65536 }
        #expect(!line.hasServerEnded)
        line.cut()
        for task in late { _ = try await task.value }
        let newer = Content.noise(90, 65536)
        try await client.write(newer, to: target)
        line.release()
        try await eventually("the server has ended the lost connection") { line.hasServerEnded }
        for reader in [client, other] { #expect(try await reader.read(target, 0..<65536) == newer) }
        #expect(!relay.lines[1].hasServerEnded)
    }

    @Test("C5: what a lost connection has left under way is over before the library's repetitions: nothing comes later")
    func underWay() async throws {
        let relay = try Relay(to: server.endpoint)
        defer { relay.stop() }
        let client = try self.client(freshAccount(), over: relay)
        let target = BlockTarget.volume(try await client.volume(size: 2 << 20).id)
        let contents = (0..<10).map { Content.noise(UInt64(100 + $0), 2 << 20) }
        for round in 0..<4 {
            let line = try #require(relay.lines.last)
            let before = line.passedBytes
            let late = contents[0..<8].map { bytes in Task { try await client.write(bytes, to: target) } }
            // From a part of the first to nearly all of them.
            let goal = before + (1 + 4 * round) << 20
            try await eventually("writes are under way") { line.passedBytes > goal }
            line.cut()
            for task in late { _ = try await task.value }
            let last = contents[8 + round % 2]
            try await client.write(last, to: target)
            try await eventually("the server has ended the lost connection") { line.hasServerEnded }
            #expect(try await client.read(target, 0..<2 << 20) == last)
        }
    }

    @Test(
        "C5: a key gives the first answer again, and IDEMPOTENCY_MISMATCH for anything else; 100 gives the seal again"
    )
    func keys() async throws {
        let client = try server.client(freshAccount())
        let (create, snapshot, delete) = (IdempotencyKey(), IdempotencyKey(), IdempotencyKey())
        let made = try await client.volume(.local, key: create)
        #expect(try await client.volume(.local, key: create) == made)
        try await expectFailure(.idempotencyMismatch) { try await client.volume(.remote, key: create) }
        let taken = try await client.createSnapshot(of: made.id, note: "one", key: snapshot)
        #expect(try await client.createSnapshot(of: made.id, note: "one", key: snapshot) == taken)
        try await expectFailure(.idempotencyMismatch) {
            try await client.createSnapshot(of: made.id, note: "two", key: snapshot)
        }
        #expect(try await client.describeVolume(made.id).dataVersion == DataVersion(3))
        try await client.write(Content.noise(3, 1 << 20), to: .snapshot(taken.id))
        try await client.reportProgress(100, of: taken.id)
        let seal = try await client.seal(of: taken.id)
        #expect(seal == Content.noise(3, 1 << 20).seal)
        let again = try await client.reportProgress(100, of: taken.id)
        #expect(again.state == .complete && again.seal == .value(seal))
        let other = try await client.createSnapshot(of: made.id).id
        // The longest key there is.
        let long = try #require(IdempotencyKey([UInt8](repeating: 7, count: 64)))
        for _ in 0..<2 { try await client.deleteSnapshot(taken.id, key: long) }
        try await expectFailure(.idempotencyMismatch) { try await client.deleteSnapshot(other, key: long) }
        try await expectFailure(.idempotencyMismatch) { try await client.deleteVolume(made.id, key: long) }
        #expect(try await client.describeSnapshot(other).state == .inProgress)
        try await client.deleteSnapshot(other)
        for _ in 0..<2 { try await client.deleteVolume(made.id, key: delete) }
        try await expectFailure(.invalidVolumeID) { try await client.deleteVolume(made.id) }
        #expect(IdempotencyKey([UInt8](repeating: 1, count: 65)) == nil && IdempotencyKey([]) == nil)
    }

    @Test("C6: what one client was answered, every other sees with its next call")
    func readYourWrites() async throws {
        let account = freshAccount()
        let (one, other) = (try server.client(account), try server.client(account))
        let volume = try await one.volume().id
        for round in 0..<20 as Range<UInt64> {
            let (writer, reader) = round % 2 == 0 ? (one, other) : (other, one)
            let (bytes, start) = (Content.noise(10 + round, 4096), round % 7 * 1024)
            let durability: Durability = round % 3 == 0 ? .onFlush : .durable
            _ = try await writer.upload([.plain(start, bytes)], to: .volume(volume), durability: durability)
            #expect(try await reader.read(.volume(volume), start..<start + 4096) == bytes)
            let made = try await writer.createSnapshot(of: volume, tags: ["round": "\(round)"])
            #expect(try await reader.snapshots(of: volume, tags: ["round": "\(round)"]).all().map(\.id) == [made.id])
            #expect(try await reader.describeVolume(volume).dataVersion == made.dataVersion.next)
            try await writer.deleteSnapshot(made.id)
            try await expectFailure(.invalidSnapshotID) { try await reader.describeSnapshot(made.id) }
        }
    }
}
