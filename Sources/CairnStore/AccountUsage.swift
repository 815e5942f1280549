public import CairnCore

/// What an account has on one shard (SPEC R2), kept with every change.
public struct AccountUsage: Sendable, Hashable {
    /// Volumes, and snapshots but the initial ones.
    public var volumes: UInt64 = 0
    public var snapshots: UInt64 = 0
    /// The sum of the volumes' sizes.
    public var logicalBytes: UInt64 = 0
    /// Distinct chunks, uncompressed.
    public var uniqueBytes: UInt64 = 0
    /// What those take in the log, and the parts of chunks.
    public var storedBytes: UInt64 = 0

    public init() {}

    public static func += (sum: inout AccountUsage, more: AccountUsage) {
        sum.volumes += more.volumes
        sum.snapshots += more.snapshots
        sum.logicalBytes += more.logicalBytes
        sum.uniqueBytes += more.uniqueBytes
        sum.storedBytes += more.storedBytes
    }
}

extension AccountUsage: StoredRecord {
    func write(to writer: inout ByteWriter) {
        writer.put(volumes)
        writer.put(snapshots)
        writer.put(logicalBytes)
        writer.put(uniqueBytes)
        writer.put(storedBytes)
    }

    init?(_ reader: inout ByteReader) {
        guard let volumes = reader.take(UInt64.self), let snapshots = reader.take(UInt64.self),
            let logicalBytes = reader.take(UInt64.self), let uniqueBytes = reader.take(UInt64.self),
            let storedBytes = reader.take(UInt64.self)
        else { return nil }
        (self.volumes, self.snapshots, self.logicalBytes) = (volumes, snapshots, logicalBytes)
        (self.uniqueBytes, self.storedBytes) = (uniqueBytes, storedBytes)
    }
}

extension ManifestReader {
    /// What the account has on this shard; zeros where it has nothing.
    public func usage(of account: AccountID) throws(StoreError) -> AccountUsage {
        guard let number = try accountNumber(account), let bytes = try index.get(Key.usage(number)) else {
            return AccountUsage()
        }
        return try AccountUsage.decode(bytes)
    }
}
