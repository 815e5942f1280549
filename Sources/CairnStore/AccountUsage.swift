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
        // Thin volumes may add up to more than there is, over many shards.
        sum.logicalBytes = sum.logicalBytes.saturatingSum(more.logicalBytes)
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
        guard let number = try accountNumber(account) else { return AccountUsage() }
        let written = try index.get(Key.usage(number)).map { bytes throws(StoreError) in
            try AccountUsage.decode(bytes)
        }
        guard let usage = (written ?? AccountUsage()).changed(by: pendingUsage(of: number)) else {
            throw StoreError(.damaged, "\(account) would have less than nothing")
        }
        return usage
    }
}

/// By how much calls change what an account has on a shard.
struct UsageDelta: Hashable, Sendable {
    var volumes: Int64 = 0
    var snapshots: Int64 = 0
    var logicalBytes: Int64 = 0
    var uniqueBytes: Int64 = 0
    var storedBytes: Int64 = 0

    var isZero: Bool { self == UsageDelta() }

    /// The most bytes that a commit takes for one account: op, key and its length, value and its length.
    static let changeBytes = 1 + 2 + 5 + 4 + 41

    /// A chunk gets its first reference, or loses its last one.
    mutating func count(_ chunk: ChunkRecord, _ sign: Int64) {
        uniqueBytes += sign * Int64(chunk.rawLength)
        storedBytes += sign * Int64(chunk.location.length)
    }
}

extension AccountUsage {
    /// Nil where something would be less than zero.
    func changed(by delta: UsageDelta) -> AccountUsage? {
        guard let volumes = Self.sum(volumes, delta.volumes), let snapshots = Self.sum(snapshots, delta.snapshots),
            let logicalBytes = Self.sum(logicalBytes, delta.logicalBytes),
            let uniqueBytes = Self.sum(uniqueBytes, delta.uniqueBytes),
            let storedBytes = Self.sum(storedBytes, delta.storedBytes)
        else { return nil }
        var usage = AccountUsage()
        (usage.volumes, usage.snapshots, usage.logicalBytes) = (volumes, snapshots, logicalBytes)
        (usage.uniqueBytes, usage.storedBytes) = (uniqueBytes, storedBytes)
        return usage
    }

    private static func sum(_ value: UInt64, _ delta: Int64) -> UInt64? {
        let (sum, isOver) =
            delta < 0
            ? value.subtractingReportingOverflow(delta.magnitude) : value.addingReportingOverflow(delta.magnitude)
        return isOver ? nil : sum
    }

    /// The most that an account's volumes on one shard may have together: so that no sum of them can overflow.
    static let logicalLimit: UInt64 = 1 << 60
}

extension UInt64 {
    /// The sum, or the greatest number there is.
    public func saturatingSum(_ other: UInt64) -> UInt64 {
        let (sum, isOver) = addingReportingOverflow(other)
        return isOver ? .max : sum
    }
}
