import CairnCore
import CairnWire
import Testing

/// SPEC D5 and V8: USE and EXPORT, for snapshots, volumes and accounts; reads, tokens and listings alike.
@Suite(.serialized, .server(shards: 3))
struct GrantTests {
    private let server = ServerProcess.shared
    private let whole: Range<UInt64> = 0..<1 << 20
    private let chunk = 65536

    /// An account with a volume of noise and a snapshot of it.
    private struct Owner {
        let account: String
        let caller: Caller
        let volume: [UInt8]
        let snapshot: Wire.CreateSnapshotResponse
        let bytes: [UInt8]
        var target: Wire.Target.Target { .snapshotID(snapshot.snapshotID) }
    }

    private func owner(_ seed: UInt64) async throws -> Owner {
        let account = freshAccount("owner")
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(seed, 1 << 20)
        try await caller.upload(volume, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(volume)
        return Owner(account: account, caller: caller, volume: volume, snapshot: snapshot, bytes: bytes)
    }

    /// An account that may use what another's snapshot holds.
    private func user(of owner: Owner) async throws -> (account: String, caller: Caller) {
        let account = freshAccount("user")
        let caller = try await server.connect(account)
        try await grant(owner.caller, .use, owner.target, to: account)
        return (account, caller)
    }

    private func grant(
        _ caller: Caller,
        _ permission: Wire.Permission,
        _ resource: Wire.Target.Target?,
        to grantee: String
    ) async throws {
        _ = try await caller.call(Wire.CreateGrantRequest(grant: wire(permission, resource, grantee)))
    }

    private func withdraw(
        _ caller: Caller,
        _ permission: Wire.Permission,
        _ resource: Wire.Target.Target?,
        from grantee: String
    ) async throws {
        _ = try await caller.call(Wire.DeleteGrantRequest(grant: wire(permission, resource, grantee)))
    }

    private func wire(_ permission: Wire.Permission, _ resource: Wire.Target.Target?, _ grantee: String) -> Wire.Grant {
        .init(resource: resource?.wire, grantee: grantee, permission: permission)
    }

    /// A compute host of an account (SPEC C1).
    private func host(_ account: String) async throws -> Caller {
        let name = "host-\(UInt32.random(in: 0 ... .max))"
        return try await server.connect(try server.issue(name, [.uri("cairn://account/\(account)/host")]))
    }

    private func tokens(_ bytes: [UInt8]) -> [[UInt8]] {
        stride(from: 0, to: bytes.count, by: chunk).map { Content.token(Array(bytes[$0..<$0 + chunk])) }
    }

    @Test(
        "D5: USE makes, writes and snapshots volumes; their data is not downloaded, listed or named by token; EXPORT opens it"
    )
    func useAndExport() async throws {
        let owner = try await owner(1)
        let account = freshAccount("user")
        let user = try await server.connect(account)
        try await expectFailure(.invalidSnapshotID) {
            try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID)
        }
        try await grant(owner.caller, .use, owner.target, to: account)
        let described = try await user.describeSnapshot(owner.snapshot.snapshotID)
        #expect(described.account == owner.account)
        #expect(described.seal == nil)
        #expect(described.owners.isEmpty)
        let clone = try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID).volumeID
        // Of somebody else's resource the refusal is C2's.
        try await expectFailure(.invalidSnapshotID) { try await user.download(owner.target, [whole]) }
        try await expectFailure(.invalidSnapshotID) { try await user.blocks(owner.target) }
        // It writes, and reads what it wrote; the rest is refused, and whose permission is missing is told.
        let own = Content.noise(2, chunk)
        try await user.upload(clone, .plain(UInt64(3 * chunk), own), .hole(UInt64(4 * chunk), UInt32(chunk)))
        #expect(
            try await user.download(clone, UInt64(3 * chunk)..<UInt64(5 * chunk)) == own
                + [UInt8](repeating: 0, count: chunk)
        )
        let copy = try await user.createSnapshot(clone).snapshotID
        for target in [Wire.Target.Target.volumeID(clone), .snapshotID(copy)] {
            let error = try await failure { try await user.download(target, [whole]) }
            #expect(error.reason == .permissionDenied, "\(error)")
            #expect(error.text.contains(owner.account), "\(error)")
            let listing = try await failure { try await user.blocks(target) }
            #expect(listing.reason == .permissionDenied, "\(listing)")
            #expect(listing.text.contains(owner.account), "\(listing)")
        }
        try await expectNoTokens(user, owner, clone)
        // The owner sees nothing of the clone.
        try await expectFailure(.invalidVolumeID) { try await owner.caller.download(clone, whole) }
        try await expectFailure(.invalidSnapshotID) { try await owner.caller.describeSnapshot(copy) }

        try await grant(owner.caller, .export, owner.target, to: account)
        let expected = owner.bytes.replacing(3 * chunk, own + [UInt8](repeating: 0, count: chunk))
        #expect(try await user.download(owner.target, [whole]).bytes == owner.bytes)
        #expect(try await user.download(clone, whole) == expected)
        #expect(try await user.download(snapshot: copy, whole) == expected)
        #expect(try await user.seal(copy) == Content.seal(expected, chunkSize: chunk))
        #expect(try await user.seal(owner.snapshot.snapshotID) == Content.seal(owner.bytes, chunkSize: chunk))
        let listed = try await user.blocks(.volumeID(clone)).filter { $0.state == .data }
        #expect(listed.count == 15)
        for block in listed {
            #expect(block.owner == (block.offset == UInt64(3 * chunk) ? account : owner.account))
        }
        let shares = try await user.describeSnapshot(copy).owners.sorted { $0.account < $1.account }
        #expect(shares.map(\.account) == [owner.account, account])
        #expect(shares.map(\.bytes) == [UInt64(14 * chunk), UInt64(chunk)])
        #expect(shares.allSatisfy { $0.exportable })
        let changed = try await user.changed(owner.target, .snapshotID(copy))
        #expect(changed.map(\.offset) == [UInt64(3 * chunk), UInt64(4 * chunk)])
    }

    /// Neither by question nor by use.
    private func expectNoTokens(_ user: Caller, _ owner: Owner, _ volume: [UInt8]) async throws {
        let tokens = tokens(owner.bytes)
        #expect(try await user.present(tokens).allSatisfy { !$0 })
        #expect(try await user.present(tokens, for: volume).allSatisfy { !$0 })
        let own = try await user.createVolume().volumeID
        for target in [volume, own] {
            try await expectFailure(.invalidChunkToken, block: 0) {
                try await user.upload(target, .token(0, tokens[1]))
            }
        }
        try await expectFailure(.invalidChunkToken, block: 0) {
            try await user.call(Wire.RenewLeaseRequest(tokens: [tokens[0]]))
        }
        let local = try await user.createLocal().volumeID
        try await expectFailure(.invalidChunkToken, block: 0) {
            try await user.createSnapshot(local, chunks: [.init(offset: 0, token: tokens[0])])
        }
    }

    @Test(
        "D5: withdrawn, the next call is refused again, of the resource, its clones and its chunks",
        arguments: [0, 1, 2]
    )
    func withdrawal(_ scope: Int) async throws {
        let owner = try await owner(10)
        let resource: Wire.Target.Target? = [owner.target, .volumeID(owner.volume), nil][scope]
        let account = freshAccount("user")
        let user = try await server.connect(account)
        try await grant(owner.caller, .use, resource, to: account)
        try await grant(owner.caller, .export, resource, to: account)
        let clone = try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID).volumeID
        for round in 0..<3 {
            #expect(try await user.download(owner.target, [whole]).bytes == owner.bytes)
            #expect(try await user.download(clone, whole) == owner.bytes)
            try await withdraw(owner.caller, .export, resource, from: account)
            try await expectFailure(.invalidSnapshotID) { try await user.download(owner.target, [0..<512]) }
            let error = try await failure { try await user.download(clone, 0..<512) }
            #expect(error.reason == .permissionDenied)
            #expect(error.text.contains(owner.account))
            if round < 2 { try await grant(owner.caller, .export, resource, to: account) }
        }
        // USE is left; then it goes as well.
        _ = try await user.describeSnapshot(owner.snapshot.snapshotID)
        try await withdraw(owner.caller, .use, resource, from: account)
        try await expectFailure(.invalidSnapshotID) { try await user.describeSnapshot(owner.snapshot.snapshotID) }
        try await expectFailure(.invalidSnapshotID) {
            try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID)
        }
        // What was made stays, and can be written and snapshotted.
        try await user.upload(clone, .plain(0, Content.noise(11, 512)))
        _ = try await user.createSnapshot(clone)
        try await expectNoTokens(user, owner, clone)
    }

    @Test("D5: a grant on a volume covers its snapshots, one on the account everything, one on a snapshot nothing else")
    func scopes() async throws {
        let owner = try await owner(20)
        let second = try await owner.caller.createSnapshot(owner.volume)
        let otherVolume = try await owner.caller.createVolume().volumeID
        try await owner.caller.upload(otherVolume, .plain(0, owner.bytes))
        let third = try await owner.caller.createSnapshot(otherVolume)
        func visible(_ user: Caller) async throws -> [Bool] {
            var seen: [Bool] = []
            for snapshot in [owner.snapshot, second, third] {
                do {
                    _ = try await user.download(.snapshotID(snapshot.snapshotID), [0..<512])
                    seen.append(true)
                } catch let error as CallError {
                    #expect(error.reason == .invalidSnapshotID)
                    seen.append(false)
                }
            }
            return seen
        }
        for (resource, expected) in [
            (owner.target, [true, false, false]), (.volumeID(owner.volume), [true, true, false]),
            (nil, [true, true, true]),
        ] as [(Wire.Target.Target?, [Bool])] {
            let account = freshAccount("user")
            let user = try await server.connect(account)
            #expect(try await visible(user) == [false, false, false])
            try await grant(owner.caller, .export, resource, to: account)
            #expect(try await visible(user) == expected)
            // EXPORT lets use, too; a volume is described where it was granted, and changed by its own account alone.
            _ = try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID)
            if resource == owner.target {
                try await expectFailure(.invalidVolumeID) { try await user.describeVolume(owner.volume) }
            } else {
                #expect(try await user.describeVolume(owner.volume).volumeID == owner.volume)
            }
            try await expectFailure(.invalidVolumeID) { try await user.createSnapshot(owner.volume) }
            try await expectFailure(.invalidVolumeID) { try await user.upload(owner.volume, .zeros(0, 512)) }
            try await expectFailure(.invalidSnapshotID) { try await user.deleteSnapshot(owner.snapshot.snapshotID) }
            // Listings are of one's own.
            let listed = try await user.call(Wire.ListSnapshotsRequest()).message.snapshots
            #expect(listed.allSatisfy { $0.account == account })
        }
    }

    @Test(
        "D5: no laundering: not by clone, by snapshot, by part of a chunk, by merge, by LOCAL volume, nor by a third account"
    )
    func laundering() async throws {
        let owner = try await owner(30)
        let (account, third) = (freshAccount("user"), freshAccount("third"))
        let (user, reader) = (try await server.connect(account), try await server.connect(third))
        try await grant(owner.caller, .use, owner.target, to: account)
        // A sector of its own in each chunk: what it merges to is still the owner's.
        var volume = try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID).volumeID
        for index in 0..<16 {
            try await user.upload(volume, .plain(UInt64(index * chunk) + 1024, Content.noise(UInt64(31 + index), 512)))
        }
        for _ in 0..<3 {
            let copy = try await user.createSnapshot(volume).snapshotID
            volume = try await user.createVolume(size: 0, chunkSize: 0, from: copy).volumeID
        }
        let local = try await user.createLocal(
            size: 0,
            chunkSize: 0,
            from: try await user.createSnapshot(volume).snapshotID
        )
        let backup = try await user.createSnapshot(local.volumeID).snapshotID
        try await user.upload(to: .snapshotID(backup), [.plain(512, Content.noise(60, 512))], progress: 100)
        let last = try await user.createSnapshot(volume).snapshotID
        func expectClosed(_ caller: Caller, _ targets: [Wire.Target.Target], _ reason: Wire.Reason) async throws {
            for target in targets {
                for range in [whole, 0..<512, 1024..<1536, UInt64(15 * chunk)..<1 << 20] as [Range<UInt64>] {
                    let error = try await failure { try await caller.download(target, [range]) }
                    #expect(error.reason == reason, "\(error)")
                }
                #expect(try await failure { try await caller.blocks(target) }.reason == reason)
            }
        }
        let targets: [Wire.Target.Target] = [.volumeID(volume), .snapshotID(last), .snapshotID(backup)]
        try await expectClosed(user, targets, .permissionDenied)
        // Merged by now, or not: the answer is the same, and so it stays.
        try await Task.sleep(for: .seconds(2))
        try await expectClosed(user, targets, .permissionDenied)
        #expect(try await user.describeSnapshot(last).seal?.value.isEmpty ?? true)
        // The user gives away all it has: the third account sees nothing of the owner's.
        try await grant(user, .export, nil, to: third)
        try await expectClosed(reader, [.snapshotID(last), .snapshotID(backup)], .invalidSnapshotID)
        let clone = try await reader.createVolume(size: 0, chunkSize: 0, from: last).volumeID
        try await expectClosed(reader, [.volumeID(clone)], .permissionDenied)
        // A hole over the owner's data is nobody's.
        try await user.upload(volume, .hole(0, 65536))
        #expect(try await user.download(volume, 0..<65536) == [UInt8](repeating: 0, count: chunk))
        // With EXPORT from the owner to the third as well, it reads all of it.
        try await grant(owner.caller, .export, owner.target, to: third)
        var expected = owner.bytes
        for index in 0..<16 {
            expected = expected.replacing(index * chunk + 1024, Content.noise(UInt64(31 + index), 512))
        }
        #expect(try await reader.download(clone, whole) == expected)
        #expect(try await reader.download(snapshot: last, whole) == expected)
        // The user is told who still has to allow it; its own bytes, sent anew, are its own.
        let error = try await failure { try await user.download(.snapshotID(last), [whole]) }
        #expect(error.text.contains(owner.account) && !error.text.contains(third))
        let mine = try await user.createVolume().volumeID
        try await user.upload(mine, .plain(0, owner.bytes))
        #expect(try await user.download(mine, whole) == owner.bytes)
        #expect(try await user.present(tokens(owner.bytes)).allSatisfy { $0 })
    }

    @Test("D5, C3, S5: what is expected of a snapshot tells nothing of data that may only be used, whole or in part")
    func guesses() async throws {
        let owner = try await owner(90)
        let (account, user) = try await user(of: owner)
        let local = try await user.createLocal(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID).volumeID
        // A right guess at a chunk, a wrong one, and a right one at the only sector of a chunk that is the owner's still.
        let (right, mine) = (Array(owner.bytes[0..<chunk]), Content.noise(91, chunk - 512))
        let mixed = Array(owner.bytes[2 * chunk..<2 * chunk + 512]) + mine
        let list: [Wire.ChunkPlacement] = [.of(0, right), .of(1, Content.noise(92, chunk)), .of(2, mixed)]
        let id = try await user.createSnapshot(local, expected: list).snapshotID
        try await user.upload(snapshot: id, .plain(UInt64(2 * chunk) + 512, mine))
        #expect(try await user.missing(id) == list)
        #expect(try await failure { try await user.progress(id, 100) }.text.contains("3"))
        #expect(try await user.describeSnapshot(id).missing == 3)
        // With EXPORT it may know.
        try await grant(owner.caller, .export, owner.target, to: account)
        #expect(try await user.missing(id) == [list[1]])
    }

    @Test("D5: a chunk whose sectors were all made zero but the owner's is data still, whatever it holds")
    func zeroOracle() async throws {
        let account = freshAccount("owner")
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        // Zero but for a sector far behind, so that it is data.
        try await caller.upload(volume, .plain(0, [UInt8](repeating: 0, count: chunk - 512) + Content.noise(95, 512)))
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        let other = freshAccount("user")
        let user = try await server.connect(other)
        try await grant(caller, .use, .snapshotID(snapshot), to: other)
        let clone = try await user.createVolume(size: 0, chunkSize: 0, from: snapshot).volumeID
        // All but the first sector, in so many parts that they are merged.
        for part in 1..<32 as Range<UInt64> {
            let (start, end) = (part == 1 ? 512 : part * 2048, (part + 1) * 2048)
            try await user.upload(clone, .zeros(start, UInt32(end - start)))
        }
        for _ in 0..<10 {
            #expect(try await failure { try await user.blocks(.volumeID(clone)) }.reason == .permissionDenied)
            #expect(try await failure { try await user.download(clone, 0..<512) }.reason == .permissionDenied)
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    @Test("D5, C1: a compute host reads what its account may use, by download alone, and without tokens")
    func computeHosts() async throws {
        let owner = try await owner(40)
        let account = freshAccount("user")
        let (user, node) = (try await server.connect(account), try await host(account))
        try await expectFailure(.invalidSnapshotID) { try await node.download(owner.target, [whole]) }
        try await grant(owner.caller, .use, owner.target, to: account)
        let clone = try await user.createVolume(size: 0, chunkSize: 0, from: owner.snapshot.snapshotID).volumeID
        try await user.upload(clone, .plain(512, Content.noise(41, 512)))
        let expected = owner.bytes.replacing(512, Content.noise(41, 512))
        #expect(try await node.download(clone, whole) == expected)
        let read = try await node.download(owner.target, [whole], known: tokens(owner.bytes))
        #expect(read.bytes == owner.bytes)
        #expect(read.blocks.allSatisfy { $0.token.isEmpty && $0.content != .known(Wire.Empty()) })
        #expect(try await failure { try await node.blocks(.volumeID(clone)) }.reason == .permissionDenied)
        #expect(try await node.present(tokens(owner.bytes)).allSatisfy { !$0 })
        // The account itself does not.
        #expect(try await failure { try await user.download(clone, whole) }.reason == .permissionDenied)
        // Another account's host does not either.
        let stranger = try await host(freshAccount())
        try await expectFailure(.invalidVolumeID) { try await stranger.download(clone, whole) }
        try await expectFailure(.invalidSnapshotID) { try await stranger.download(owner.target, [whole]) }
        try await withdraw(owner.caller, .use, owner.target, from: account)
        let refusal = try await failure { try await node.download(clone, whole) }
        #expect(refusal.reason == .permissionDenied && refusal.text.contains(owner.account), "\(refusal)")
        try await expectFailure(.invalidSnapshotID) { try await node.download(owner.target, [whole]) }
    }

    @Test(
        "D5, C5: grants are listed by who gave and who got them; made twice they are one; bad ones are refused; they outlive kill -9"
    )
    func listing() async throws {
        let server = try await ServerProcess.started(shards: 3)
        let (giver, taker) = (freshAccount("giver"), freshAccount("taker"))
        var (one, other) = (try await server.connect(giver), try await server.connect(taker))
        let volume = try await one.createVolume().volumeID
        let snapshot = try await one.createSnapshot(volume).snapshotID
        let resources: [Wire.Target.Target?] = [.snapshotID(snapshot), .volumeID(volume), nil]
        for resource in resources { for _ in 0..<2 { try await grant(one, .use, resource, to: taker) } }
        try await grant(one, .export, .snapshotID(snapshot), to: taker)
        func list(_ caller: Caller, received: Bool) async throws -> [Wire.Grant] {
            var (found, token): ([Wire.Grant], [UInt8]) = ([], [])
            repeat {
                let page = try await caller.call(
                    Wire.ListGrantsRequest(page: .init(limit: 2, pageToken: token), received: received)
                ).message
                found += page.grants
                token = page.nextPageToken
            } while !token.isEmpty
            return found
        }
        try await server.crash()
        try await server.start()
        (one, other) = (try await server.connect(giver), try await server.connect(taker))
        let given = try await list(one, received: false)
        #expect(Set(given.map(\.resource)) == Set(resources.map { $0?.wire }))
        #expect(given.allSatisfy { $0.grantee == taker && $0.createdAtMs > 0 })
        #expect(given.contains { $0.permission == .export && $0.resource == .init(target: .snapshotID(snapshot)) })
        let received = try await list(other, received: true)
        #expect(received.count == given.count)
        #expect(try await list(other, received: false).isEmpty)
        #expect(try await list(one, received: true).isEmpty)
        #expect(try await list(try await server.connect(freshAccount()), received: true).isEmpty)
        // Whoever gets nothing, or is no account: refused. What is not one's own: C2.
        for bad in [
            Wire.Grant(grantee: "", permission: .use), .init(grantee: "No Account", permission: .use),
            .init(grantee: taker), .init(grantee: giver, permission: .use),
        ] {
            try await expectFailure(.invalidArgument) { try await one.call(Wire.CreateGrantRequest(grant: bad)) }
        }
        try await expectFailure(.invalidSnapshotID) { try await grant(other, .use, .snapshotID(snapshot), to: "x") }
        try await expectFailure(.invalidVolumeID) { try await grant(other, .use, .volumeID(volume), to: "x") }
        // A deleted resource has no grants.
        try await one.deleteSnapshot(snapshot)
        try await eventually("the grants go with the snapshot") {
            let counts = [try await list(one, received: false).count, try await list(other, received: true).count]
            return counts == [2, 2]
        }
    }

    @Test("D5, V8: with data of several owners, each of them has to allow; the account is told who is missing")
    func severalOwners() async throws {
        let first = try await owner(50)
        let (account, second) = try await user(of: first)
        let clone = try await second.createVolume(size: 0, chunkSize: 0, from: first.snapshot.snapshotID).volumeID
        let part = Content.noise(51, 8 * chunk)
        try await second.upload(clone, .plain(0, part))
        let shared = try await second.createSnapshot(clone)
        let readerAccount = freshAccount("reader")
        let reader = try await server.connect(readerAccount)
        try await grant(second, .export, .snapshotID(shared.snapshotID), to: readerAccount)
        // The second's half can be read, the first's not.
        let target = Wire.Target.Target.snapshotID(shared.snapshotID)
        #expect(try await reader.download(target, [0..<UInt64(8 * chunk)]).bytes == part)
        try await expectFailure(.invalidSnapshotID) { try await reader.download(target, [whole]) }
        let copy = try await reader.createVolume(size: 0, chunkSize: 0, from: shared.snapshotID).volumeID
        let error = try await failure { try await reader.download(copy, whole) }
        #expect(error.reason == .permissionDenied)
        #expect(error.text.contains(first.account) && !error.text.contains(account), "\(error)")
        try await grant(first.caller, .export, nil, to: readerAccount)
        #expect(try await reader.download(copy, whole) == part + first.bytes[(8 * chunk)...])
        try await withdraw(second, .export, target, from: readerAccount)
        let other = try await failure { try await reader.download(copy, whole) }
        #expect(other.text.contains(account) && !other.text.contains(first.account), "\(other)")
        // A grant on what lies below opens nothing that was written above it.
        let shares = try await second.describeSnapshot(shared.snapshotID)
        #expect(shares.seal?.value.isEmpty ?? true)
    }
}
