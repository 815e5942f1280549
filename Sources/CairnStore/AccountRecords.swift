public import CairnCore

/// What an account may have, and how fast it may ask (SPEC R3). 0 is no limit.
public struct AccountLimits: Sendable, Hashable {
    public var volumes: UInt64 = 0
    /// The initial ones do not count.
    public var snapshots: UInt64 = 0
    /// The sum of the volumes' sizes.
    public var logicalBytes: UInt64 = 0
    /// What the account's chunks, and the parts of chunks, take on disk.
    public var storedBytes: UInt64 = 0
    public var requestsPerSecond: UInt64 = 0
    /// Bytes of requests and of answers that are under way at once.
    public var bytesInFlight: UInt64 = 0

    public init() {}
}

extension AccountLimits: StoredRecord {
    func write(to writer: inout ByteWriter) {
        writer.put(volumes)
        writer.put(snapshots)
        writer.put(logicalBytes)
        writer.put(storedBytes)
        writer.put(requestsPerSecond)
        writer.put(bytesInFlight)
    }

    init?(_ reader: inout ByteReader) {
        guard let volumes = reader.take(UInt64.self), let snapshots = reader.take(UInt64.self),
            let logicalBytes = reader.take(UInt64.self), let storedBytes = reader.take(UInt64.self),
            let requestsPerSecond = reader.take(UInt64.self), let bytesInFlight = reader.take(UInt64.self)
        else { return nil }
        (self.volumes, self.snapshots, self.logicalBytes) = (volumes, snapshots, logicalBytes)
        (self.storedBytes, self.requestsPerSecond, self.bytesInFlight) = (storedBytes, requestsPerSecond, bytesInFlight)
    }
}

extension Key {
    static func accountLimits(_ account: AccountID) -> [UInt8] {
        Key(.accountLimits).then(bytes: account.name.utf8).bytes
    }
}

extension ManifestReader {
    /// The account's own limits, kept on its home shard; nil where the server's defaults hold.
    public func limits(of account: AccountID) throws(StoreError) -> AccountLimits? {
        guard let bytes = try index.get(Key.accountLimits(account)) else { return nil }
        return try AccountLimits.decode(bytes)
    }

    /// Every account whose home shard this is, and that has limits of its own.
    public func ownLimits() throws(StoreError) -> [AccountID: AccountLimits] {
        let cursor = seeker
        cursor.seek(Key(.accountLimits).bytes)
        var limits: [AccountID: AccountLimits] = [:]
        while try cursor.isValid(), cursor.key.first == Table.accountLimits.rawValue {
            limits[try Self.name(in: cursor.key)] = try AccountLimits.decode(cursor.value)
            cursor.next()
        }
        return limits
    }

    private static func name(in key: UnsafeRawBufferPointer) throws(StoreError) -> AccountID {
        guard let account = AccountID(String(decoding: key.dropFirst(), as: UTF8.self)) else {
            throw StoreError(.damaged, "an account's name in the index is none")
        }
        return account
    }

    /// Names of accounts that this shard knows (they have, or had, something here) or that have limits of their own here, in the
    /// order of their bytes, each once.
    /// - Parameter after: goes on behind this name.
    public func accounts(after: AccountID?, limit: Int) throws(StoreError) -> [AccountID] {
        var names = Set(try names(.accounts, after, limit))
        names.formUnion(try self.names(.accountLimits, after, limit))
        return Array(names.sorted().prefix(limit))
    }

    private func names(_ table: Table, _ after: AccountID?, _ limit: Int) throws(StoreError) -> [AccountID] {
        let cursor = seeker
        cursor.seek(Key(table).then(bytes: after.map { Array($0.name.utf8) + [0] } ?? []).bytes)
        var names: [AccountID] = []
        while names.count < limit, try cursor.isValid(), cursor.key.first == table.rawValue {
            names.append(try Self.name(in: cursor.key))
            cursor.next()
        }
        return names
    }
}
