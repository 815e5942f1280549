import CairnLog

/// What `cairnd repair` found in a shard, and did.
public struct ShardRepair: Sendable, Encodable {
    /// What programs switch on.
    public enum Outcome: String, Sendable, Encodable {
        /// There was nothing to do.
        case healthy
        /// Something was damaged, and is not any more.
        case repaired
        /// Of a dry run: a repair would mend it, and lose nothing.
        case repairable
        /// Commits are lost: nothing was done, for that was not allowed.
        case wouldLose
        /// It cannot be mended with what is there.
        case beyondRepair
    }

    /// Commits that were durable and cannot be read any more.
    public struct Loss: Sendable, Encodable, Equatable {
        public let commits: UInt64
        public let firstLSN: UInt64
        public let lastLSN: UInt64
        /// Where the first of them should be.
        public let segment: UInt32?

        init(_ loss: LogTail.Loss) {
            commits = loss.count
            firstLSN = loss.lsns.lowerBound.rawValue
            lastLSN = loss.lsns.upperBound.rawValue
            segment = loss.segment?.rawValue
        }
    }

    public let shard: UInt16
    public internal(set) var outcome = Outcome.healthy
    /// For people, in the order in which it was found; empty where all is well.
    public internal(set) var findings: [String] = []
    /// What was done, or of a dry run would be.
    public internal(set) var actions: [String] = []
    /// The last commit that the index holds in the end.
    public internal(set) var lsn: UInt64 = 0
    /// Commits of the log that were replayed, and the bytes of log read for that.
    public internal(set) var replayedCommits = 0
    public internal(set) var replayedBytes = 0
    /// Commits that were applied though records of their groups are damaged: reading these chunks gives DATA_LOSS.
    public internal(set) var damagedGroups = 0
    public internal(set) var lost: Loss?
    /// What the audit of the index in the end found; empty where everything agrees.
    public internal(set) var audit: [String] = []

    init(_ shard: UInt16) { self.shard = shard }
}

/// How a repair is carried out.
public struct RepairOptions: Sendable {
    /// Nil: all.
    public var shard: UInt16?
    /// Only look, and say.
    public var dryRun = false
    /// Go on without commits that cannot be read any more.
    public var acceptLoss = false
    /// Called before each step that changes something; what it throws ends the repair there.
    var step: @Sendable (String) throws(StoreError) -> Void = { (_) throws(StoreError) in }
    public init() {}
}
