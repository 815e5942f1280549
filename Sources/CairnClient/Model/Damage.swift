public import CairnCore
internal import CairnWire

/// A chunk of a volume or snapshot that cannot be read (SPEC D4). Uploading the same data again heals it wherever it is.
public struct DamagedBlock: Sendable, Hashable {
    /// The volume or snapshot.
    public let target: BlockTarget
    /// Bytes from its start.
    public let offset: UInt64
    public let length: Int
    /// Nil where a part of the chunk is damaged, or the data is another's that this account may not name (SPEC D5).
    public let token: Fingerprint?
    /// When it was found.
    public let since: Timestamp
    /// For people.
    public let reason: String

    init(_ wire: Wire.DamagedBlock) throws(ClientError) {
        let message = "a damaged block"
        if wire.volumeID.isEmpty {
            target = .snapshot(try Contract.require(SnapshotID(bytes: wire.snapshotID), "snapshot ID", in: message))
        } else {
            target = .volume(try Contract.require(VolumeID(bytes: wire.volumeID), "volume ID", in: message))
        }
        offset = wire.offset
        length = Int(wire.length)
        token = wire.token.isEmpty ? nil : try Contract.require(Fingerprint(bytes: wire.token), "token", in: message)
        since = Timestamp(milliseconds: wire.sinceMs)
        reason = wire.reason
    }
}

/// How the scrub of a server stands: the operator's to know.
public struct ScrubReport: Sendable, Hashable {
    public struct Shard: Sendable, Hashable {
        public let index: Int
        public let isRunning: Bool
        /// Whether the operator asked for the pass.
        public let isOnDemand: Bool
        /// Of the present or the last pass; nil: there was none.
        public let startedAt: Timestamp?
        /// When the last whole pass ended; nil: there was none.
        public let finishedAt: Timestamp?
        /// Bytes of data read in the present or last pass, and about how many there are.
        public let bytes: UInt64
        public let totalBytes: UInt64
        /// Newly found damaged in that pass.
        public let found: UInt64
        /// Chunks, and parts of chunks, that are known to be damaged.
        public let damaged: UInt64
        /// Where the index itself is damaged; nil: nowhere as far as it was read.
        public let indexProblem: String?

        init(_ wire: Wire.ShardScrub) {
            index = Int(wire.shard)
            (isRunning, isOnDemand) = (wire.running, wire.onDemand)
            startedAt = wire.startedAtMs == 0 ? nil : Timestamp(milliseconds: wire.startedAtMs)
            finishedAt = wire.finishedAtMs == 0 ? nil : Timestamp(milliseconds: wire.finishedAtMs)
            (bytes, totalBytes) = (wire.bytes, wire.totalBytes)
            (found, damaged) = (wire.found, wire.damaged)
            indexProblem = wire.indexProblem.isEmpty ? nil : wire.indexProblem
        }
    }

    public struct Account: Sendable, Hashable {
        public let name: String
        /// Damaged chunks, and parts of chunks.
        public let chunks: UInt64
        public let parts: UInt64
    }

    public let shards: [Shard]
    /// Accounts with damaged data.
    public let accounts: [Account]

    init(_ wire: Wire.GetScrubResponse) {
        shards = wire.shards.map { Shard($0) }
        accounts = wire.accounts.map { Account(name: $0.account, chunks: $0.chunks, parts: $0.parts) }
    }
}
