public import CairnCore

/// What a grant is made for (SPEC D5).
public enum GrantResource: Sendable, Hashable {
    /// All that the account has, and will have.
    case account
    /// A volume and its snapshots.
    case volume(VolumeID)
    case snapshot(SnapshotID)
}

/// What a grant allows (SPEC D5).
public enum GrantPermission: UInt8, Sendable, Hashable {
    /// Make volumes from it, write and snapshot them, have compute hosts read them.
    case use = 1
    /// Download it, name its chunks, see them in listings.
    case export = 2
}

/// One permission that one account gave another.
public struct Grant: Sendable, Hashable {
    public let grantor: AccountID
    public let resource: GrantResource
    public let permission: GrantPermission
    public let grantee: AccountID
    /// Milliseconds since 1970-01-01 UTC.
    public let createdAt: UInt64

    public init(
        grantor: AccountID,
        resource: GrantResource,
        permission: GrantPermission,
        grantee: AccountID,
        createdAt: UInt64
    ) {
        self.grantor = grantor
        self.resource = resource
        self.permission = permission
        self.grantee = grantee
        self.createdAt = createdAt
    }
}

extension GrantResource {
    fileprivate var kind: UInt8 {
        switch self {
        case .account: 0
        case .volume: 1
        case .snapshot: 2
        }
    }
    fileprivate var id: UUID128 {
        switch self {
        case .account: UUID128(high: 0, low: 0)
        case .volume(let id): id.uuid
        case .snapshot(let id): id.uuid
        }
    }
    fileprivate init?(_ kind: UInt8, _ id: UUID128) {
        switch kind {
        case 0: self = .account
        case 1: self = .volume(VolumeID(id))
        case 2: self = .snapshot(SnapshotID(id))
        default: return nil
        }
    }
}

extension Key {
    private consuming func thenName(_ account: AccountID) -> Key {
        then(UInt8(account.name.utf8.count)).then(bytes: account.name.utf8)
    }

    /// By who gave it. All that is given is in the key, so a question is one lookup.
    static func grant(_ grant: Grant) -> [UInt8] {
        Key(.grants).thenName(grant.grantor).then(grant.resource.kind).then(grant.resource.id)
            .then(grant.permission.rawValue).thenName(grant.grantee).bytes
    }

    /// By whom it was given to.
    static func received(_ grant: Grant) -> [UInt8] {
        Key(.receivedGrants).thenName(grant.grantee).thenName(grant.grantor).then(grant.resource.kind)
            .then(grant.resource.id).then(grant.permission.rawValue).bytes
    }

    static func grants(by grantor: AccountID, for resource: GrantResource) -> [UInt8] {
        Key(.grants).thenName(grantor).then(resource.kind).then(resource.id).bytes
    }
    static func grants(by grantor: AccountID) -> [UInt8] { Key(.grants).thenName(grantor).bytes }
    static func grants(to grantee: AccountID) -> [UInt8] { Key(.receivedGrants).thenName(grantee).bytes }
    static func grants(to grantee: AccountID, by grantor: AccountID) -> [UInt8] {
        Key(.receivedGrants).thenName(grantee).thenName(grantor).bytes
    }
}

extension KeyReader {
    fileprivate mutating func takeName() -> AccountID? {
        guard let count = take(UInt8.self) else { return nil }
        var name: [UInt8] = []
        for _ in 0..<count {
            guard let byte = take(UInt8.self) else { return nil }
            name.append(byte)
        }
        return AccountID(String(decoding: name, as: UTF8.self))
    }

    fileprivate mutating func takeResource() -> GrantResource? {
        guard let kind = take(UInt8.self), let id = takeID() else { return nil }
        return GrantResource(kind, id)
    }

    fileprivate mutating func takePermission() -> GrantPermission? { take(UInt8.self).flatMap(GrantPermission.init) }

    fileprivate mutating func takeGrant(createdAt: UInt64) -> Grant? {
        guard let grantor = takeName(), let resource = takeResource(), let permission = takePermission(),
            let grantee = takeName()
        else { return nil }
        return Grant(
            grantor: grantor,
            resource: resource,
            permission: permission,
            grantee: grantee,
            createdAt: createdAt
        )
    }

    fileprivate mutating func takeReceived(createdAt: UInt64) -> Grant? {
        guard let grantee = takeName(), let grantor = takeName(), let resource = takeResource(),
            let permission = takePermission()
        else { return nil }
        return Grant(
            grantor: grantor,
            resource: resource,
            permission: permission,
            grantee: grantee,
            createdAt: createdAt
        )
    }
}

extension Transaction {
    /// Gives a permission, on the grantor's home shard; one that is given already stays as it is.
    /// - Throws: `.limited` where the account has made as many as it may (``Limits/grants``, ``Limits/grantsToOne``).
    public func give(_ grant: Grant) throws(StoreError) -> Grant {
        if let given = try overlay.get(Key.grant(grant)) {
            return Grant(
                grantor: grant.grantor,
                resource: grant.resource,
                permission: grant.permission,
                grantee: grant.grantee,
                createdAt: try created(given)
            )
        }
        guard try !isFull(Key.grants(by: grant.grantor), Limits.grants) else {
            throw StoreError(.limited, "an account may make at most \(Limits.grants) grants")
        }
        guard try !isFull(Key.grants(to: grant.grantee, by: grant.grantor), Limits.grantsToOne) else {
            throw StoreError(.limited, "an account may make at most \(Limits.grantsToOne) grants to one other")
        }
        let value = withUnsafeBytes(of: grant.createdAt.littleEndian, Array.init)
        overlay.put(Key.grant(grant), value)
        overlay.put(Key.received(grant), value)
        return grant
    }

    private func isFull(_ prefix: [UInt8], _ limit: Int) throws(StoreError) -> Bool {
        let cursor = overlay.makeCursor()
        cursor.seek(prefix)
        var count = 0
        while count < limit, try cursor.isValid(), cursor.key.starts(with: prefix) {
            count += 1
            cursor.next()
        }
        return count == limit
    }

    /// Withdraws a permission; false where it was not given.
    public func withdraw(_ grant: Grant) throws(StoreError) -> Bool {
        guard try overlay.get(Key.grant(grant)) != nil else { return false }
        overlay.delete(Key.grant(grant))
        overlay.delete(Key.received(grant))
        return true
    }
}

extension ManifestReader {
    /// Whether a permission is given: one lookup, on the grantor's home shard.
    public func isGiven(
        _ permission: GrantPermission,
        by grantor: AccountID,
        to grantee: AccountID,
        for resource: GrantResource
    ) throws(StoreError) -> Bool {
        let grant = Grant(
            grantor: grantor,
            resource: resource,
            permission: permission,
            grantee: grantee,
            createdAt: 0
        )
        return try look(up: Key.grant(grant)) != nil
    }

    /// What an account gave for one resource; on its home shard.
    public func grants(by grantor: AccountID, for resource: GrantResource, limit: Int) throws(StoreError) -> [Grant] {
        let prefix = Key.grants(by: grantor, for: resource)
        let cursor = seeker
        cursor.seek(prefix)
        var found: [Grant] = []
        while found.count < limit, try cursor.isValid(), cursor.key.starts(with: prefix) {
            guard var key = KeyReader(cursor.key, .grants), let grant = key.takeGrant(createdAt: 0) else {
                throw StoreError(.damaged, "a grant in the index does not decode")
            }
            found.append(grant)
            cursor.next()
        }
        return found
    }

    /// What an account gave, in the order of the keys; on its home shard.
    /// - Parameter after: a key that an earlier page ended with.
    public func grants(by grantor: AccountID, after: [UInt8]?, limit: Int) throws(StoreError) -> [(
        key: [UInt8], grant: Grant
    )] {
        try grants(Key.grants(by: grantor), .grants, after, limit) { $0.takeGrant(createdAt: $1) }
    }

    /// What this shard's accounts gave an account, in the order of the keys.
    public func grants(to grantee: AccountID, after: [UInt8]?, limit: Int) throws(StoreError) -> [(
        key: [UInt8], grant: Grant
    )] {
        try grants(Key.grants(to: grantee), .receivedGrants, after, limit) { $0.takeReceived(createdAt: $1) }
    }

    /// What all of the shard's accounts gave, in the order of the keys.
    public func grants(after: [UInt8]?, limit: Int) throws(StoreError) -> [(key: [UInt8], grant: Grant)] {
        try grants(Key(.grants).bytes, .grants, after, limit) { $0.takeGrant(createdAt: $1) }
    }

    /// Whether anything is left of a volume: itself, or a snapshot of it. On the volume's shard.
    public func isLeft(_ volume: VolumeID) throws(StoreError) -> Bool {
        if try self.volume(volume) != nil { return true }
        let prefix = Key(.volumeSnapshots).then(volume.uuid).bytes
        let cursor = seeker
        cursor.seek(prefix)
        return try cursor.isValid() && cursor.key.starts(with: prefix)
    }

    private func grants(
        _ prefix: [UInt8],
        _ table: Table,
        _ after: [UInt8]?,
        _ limit: Int,
        _ take: (inout KeyReader, UInt64) -> Grant?
    ) throws(StoreError) -> [(key: [UInt8], grant: Grant)] {
        let cursor = seeker
        cursor.seek(after.map { prefix + $0 + [0] } ?? prefix)
        var found: [(key: [UInt8], grant: Grant)] = []
        while found.count < limit, try cursor.isValid(), cursor.key.starts(with: prefix) {
            let createdAt = try created(Array(cursor.value))
            guard var key = KeyReader(cursor.key, table), let grant = take(&key, createdAt) else {
                throw StoreError(.damaged, "a grant in the index does not decode")
            }
            found.append((Array(cursor.key.dropFirst(prefix.count)), grant))
            cursor.next()
        }
        return found
    }

    fileprivate func created(_ value: [UInt8]) throws(StoreError) -> UInt64 {
        guard value.count == 8 else {
            throw StoreError(.damaged, "a grant's time in the index has \(value.count) bytes")
        }
        return value.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
    }
}
