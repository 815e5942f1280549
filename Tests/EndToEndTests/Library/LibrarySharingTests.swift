import CairnClient
import CairnCore
import CairnWire
import Testing

/// SPEC D5 through the library: USE and EXPORT, and their withdrawal.
@Suite(.serialized, .server(shards: 3))
struct LibrarySharingTests {
    private let server = ServerProcess.shared
    private let chunk: UInt64 = 65536

    /// An account with a volume of noise and a snapshot of it.
    private func owner(_ seed: UInt64) async throws -> (
        name: String, client: Client, volume: VolumeID, snapshot: SnapshotID, bytes: [UInt8]
    ) {
        let name = freshAccount("owner")
        let client = try server.client(name)
        let (volume, bytes) = (try await client.volume().id, Content.noise(seed, 1 << 20))
        try await client.write(bytes, to: .volume(volume))
        return (name, client, volume, try await client.createSnapshot(of: volume).id, bytes)
    }

    private func exported(_ client: Client, _ target: BlockTarget) async throws -> [UInt8] {
        let path = server.folder.fresh("back")
        var options = ExportOptions()
        options.sealLimit = .seconds(60)
        let summary = try await Exporter(client: client, from: target, to: .path(path), options: options).run()
        if case .snapshot = target { #expect(summary.sealCheck == .matched) }
        return try Image.bytes(path)
    }

    /// An export, a read and the listings of what is the client's own must say that `owner` does not permit it.
    private func expectRefusal(_ client: Client, _ targets: [BlockTarget], naming owner: String) async throws {
        let empty = BlockTarget.volume(try await client.volume().id)
        for target in targets {
            for error in [
                try await failure { try await exported(client, target) },
                try await failure { try await client.read(target, 0..<chunk) },
                try await failure { try await client.blocks(of: target).all() },
                try await failure { try await client.changedBlocks(from: empty, to: target).all() },
                try await failure { try await client.changedBlocks(from: target, to: empty).all() },
            ] { #expect(error.reason == .permissionDenied && error.text.contains(owner), "\(error)") }
        }
    }

    @Test(
        "D5: USE makes and writes volumes, EXPORT downloads; the refusal names the owner to the resource's own account"
    )
    func useAndExport() async throws {
        let owner = try await owner(1)
        let account = freshAccount("user")
        let user = try server.client(account)
        let source = BlockTarget.snapshot(owner.snapshot)
        try await expectFailure(.invalidSnapshotID) { try await user.clone(owner.snapshot) }
        try await owner.client.createGrant(.use, on: .snapshot(owner.snapshot), to: account)
        let clone = try await user.clone(owner.snapshot).id
        // Of somebody else's resource the refusal is C2's.
        try await expectFailure(.invalidSnapshotID) { try await exported(user, source) }
        try await expectFailure(.invalidSnapshotID) { try await user.read(source, 0..<512) }
        try await expectFailure(.invalidSnapshotID) { try await user.blocks(of: source).all() }
        try await expectFailure(.invalidSnapshotID) {
            try await user.changedBlocks(from: source, to: .volume(clone)).all()
        }
        let own = Content.noise(2, 65536)
        try await user.write(own, at: 3 * chunk, to: .volume(clone))
        #expect(try await user.read(.volume(clone), 3 * chunk..<4 * chunk) == own)
        let copy = try await user.createSnapshot(of: clone).id
        try await expectRefusal(user, [.volume(clone), .snapshot(copy)], naming: owner.name)
        let tokens = (0..<16).map { Array(owner.bytes[$0 * 65536..<($0 + 1) * 65536]).token }
        #expect(try await user.queryChunks(tokens, for: clone).isPresent.allSatisfy { !$0 })
        try await expectFailure(.invalidChunkToken, block: 0) {
            try await user.upload([.token(0, tokens[1])], to: .volume(clone))
        }
        let described = try await user.describeSealed(copy)
        let shares = described.owners.sorted { $0.account < $1.account }
        #expect(shares.map(\.account) == [owner.name, account] && shares.map(\.bytes) == [15 * chunk, chunk])
        #expect(shares.map(\.isExportable) == [false, true])
        #expect(described.isSealWithheld)
        let error = await #expect(throws: ClientError.self) { try await user.seal(of: copy) }
        #expect(error?.code == .invalidRequest && error?.text.contains("withheld") == true)

        try await owner.client.createGrant(.export, on: .snapshot(owner.snapshot), to: account)
        let expected = owner.bytes.replacing(3 * 65536, own)
        #expect(try await exported(user, source) == owner.bytes)
        #expect(try await exported(user, .snapshot(copy)) == expected)
        #expect(try await exported(user, .volume(clone)) == expected)
        let listed = try await user.blocks(of: .volume(clone)).all()
        #expect(listed.map(\.owner) == (0..<16).map { $0 == 3 ? account : owner.name })
        #expect(try await user.changedBlocks(from: source, to: .snapshot(copy)).all().map(\.offset) == [3 * chunk])
    }

    @Test("D5: withdrawn, the next call is refused; whom it was given is listed; what was made stays", arguments: 0..<3)
    func withdrawal(_ scope: Int) async throws {
        let owner = try await owner(UInt64(10 + scope))
        let account = freshAccount("user")
        let user = try server.client(account)
        let resource = [GrantResource.snapshot(owner.snapshot), .volume(owner.volume), .account][scope]
        for permission in [Permission.use, .export] {
            try await owner.client.createGrant(permission, on: resource, to: account)
        }
        let received = try await user.grants(received: true).all()
        #expect(Set(received.map(\.permission)) == [.use, .export])
        #expect(received.allSatisfy { $0.resource == resource && $0.grantee == account })
        #expect(try await owner.client.grants().all().count == 2)
        let clone = try await user.clone(owner.snapshot).id
        let copy = try await user.createSnapshot(of: clone).id
        #expect(try await exported(user, .snapshot(copy)) == owner.bytes)
        #expect(try await exported(user, .snapshot(owner.snapshot)) == owner.bytes)
        // The volume itself, where the grant is for more than a snapshot of it.
        let volume = BlockTarget.volume(owner.volume)
        if scope > 0 {
            #expect(try await user.read(volume) == owner.bytes)
            #expect(try await user.blocks(of: volume).all().count == 16)
            try await expectFailure(.invalidVolumeID) { try await user.write(owner.bytes, to: volume) }
        } else {
            try await expectFailure(.invalidVolumeID) { try await user.read(volume) }
        }
        try await owner.client.deleteGrant(.export, on: resource, to: account)
        try await expectRefusal(user, [.volume(clone), .snapshot(copy)], naming: owner.name)
        try await expectFailure(.invalidSnapshotID) { try await user.read(.snapshot(owner.snapshot), 0..<512) }
        try await expectFailure(.invalidVolumeID) { try await user.read(volume, 0..<512) }
        try await expectFailure(.invalidVolumeID) { try await user.blocks(of: volume).all() }
        #expect(try await user.describeSnapshot(owner.snapshot).account == owner.name)
        try await owner.client.deleteGrant(.use, on: resource, to: account)
        try await expectFailure(.failedPrecondition) {
            try await owner.client.deleteGrant(.use, on: resource, to: account)
        }
        try await expectFailure(.invalidSnapshotID) { try await user.describeSnapshot(owner.snapshot) }
        try await expectFailure(.invalidSnapshotID) { try await user.clone(owner.snapshot) }
        try await user.write(Content.noise(20, 512), to: .volume(clone))
        #expect(try await user.createSnapshot(of: clone).state == .complete)
        #expect(try await user.grants(received: true).all().isEmpty)
    }

    @Test("D5: where several owners do not permit it, all of them are named, and each of them has to")
    func severalOwners() async throws {
        let (first, second) = (try await owner(40), freshAccount("second"))
        let account = freshAccount("reader")
        let (middle, reader) = (try server.client(second), try server.client(account))
        try await first.client.createGrant(.use, on: .snapshot(first.snapshot), to: second)
        let part = Content.noise(41, 512)
        let clone = try await middle.clone(first.snapshot).id
        try await middle.write(part, at: 512, to: .volume(clone))
        let shared = try await middle.createSnapshot(of: clone).id
        try await middle.createGrant(.use, on: .snapshot(shared), to: account)
        let copy = BlockTarget.volume(try await reader.clone(shared).id)
        for owner in [first.name, second] { try await expectRefusal(reader, [copy], naming: owner) }
        try await middle.createGrant(.export, on: .snapshot(shared), to: account)
        try await expectRefusal(reader, [copy], naming: first.name)
        #expect(!(try await failure { try await reader.read(copy, 0..<chunk) }.text.contains(second)))
        try await first.client.createGrant(.export, on: .account, to: account)
        #expect(try await exported(reader, copy) == first.bytes.replacing(512, part))
        try await middle.deleteGrant(.export, on: .snapshot(shared), to: account)
        try await expectRefusal(reader, [copy], naming: second)
    }

    @Test("D5, C1: a compute host reads what its account may use; nobody launders it through a third account")
    func hosts() async throws {
        let owner = try await owner(30)
        let (account, third) = (freshAccount("user"), freshAccount("third"))
        let (user, reader) = (try server.client(account), try server.client(third))
        let files = try server.issue("node", [.uri("cairn://account/\(account)/host")])
        let node = try Client(server: server.endpoint, credentials: files)
        #expect(try await node.serverFacts().identity == "\(account)/host")
        try await expectFailure(.invalidSnapshotID) { try await node.read(.snapshot(owner.snapshot)) }
        try await owner.client.createGrant(.use, on: .account, to: account)
        let clone = try await user.clone(owner.snapshot).id
        // A sector of its own: what it merges to is still the owner's.
        let part = Content.noise(31, 512)
        try await user.write(part, at: 512, to: .volume(clone))
        let copy = try await user.createSnapshot(of: clone).id
        #expect(try await node.read(.volume(clone)) == owner.bytes.replacing(512, part))
        let read = try await node.download([(0..<chunk).block], from: .snapshot(owner.snapshot))
        #expect(read.allSatisfy { $0.token == nil })
        #expect(try await failure { try await node.blocks(of: .volume(clone)).all() }.reason == .permissionDenied)
        try await user.createGrant(.export, on: .account, to: third)
        try await expectFailure(.invalidSnapshotID) { try await reader.read(.snapshot(copy), 0..<512) }
        let laundered = try await reader.clone(copy).id
        try await expectRefusal(reader, [.volume(laundered)], naming: owner.name)
        try await owner.client.createGrant(.export, on: .account, to: third)
        #expect(try await exported(reader, .volume(laundered)) == owner.bytes.replacing(512, part))
    }
}
