public import CairnCore
internal import Synchronization

/// What a backup may do and use.
public struct BackupOptions: Sendable {
    /// What to do about a snapshot of the volume that an earlier backup, here or on another machine, left in progress.
    public enum Unfinished: Sendable {
        /// Refuse to begin.
        case refuse
        /// Go on with the earliest one; where there is none, begin a new one.
        case resume
    }
    public var unfinished = Unfinished.refuse
    /// Whether the source stays as it is meanwhile, as a snapshot of a disk does. Then it is first looked through for what
    /// changed, and the service is told what to expect, where that is not too much. If not, each chunk is read once, and taken
    /// as it is then.
    public var isFrozen = true
    /// The snapshot's description; at most 1,024 bytes.
    public var note = ""
    /// The snapshot's labels.
    public var tags: [String: String] = [:]
    /// How often the service is told how far the upload is, also while nothing is to be sent (SPEC S9, S11).
    public var reportInterval: Duration = .seconds(30)
    /// How long to wait for the server's seal.
    public var sealLimit: Duration = .seconds(600)
    /// Threads that read, hash and compress; nil: one for each processor.
    public var workers: Int?
    /// Memory for data, in bytes.
    public var memory = 64 << 20
    public init() {}
}

/// What a backup did.
public struct BackupSummary: Sendable, Hashable {
    /// How the server's seal compares with that of what was read.
    public enum SealCheck: String, Sendable, Hashable {
        case matched
        /// There is none yet: the snapshot waits for an incomplete ancestor (SPEC V5).
        case waiting
        /// It is not told: the snapshot holds data of accounts that do not grant EXPORT (SPEC D5).
        case withheld
    }
    public let snapshot: SnapshotID
    public let dataVersion: DataVersion
    /// Whether it went on with a snapshot that was in progress.
    public let resumed: Bool
    /// Chunks that the service was told to expect.
    public let expected: Int
    /// Chunks of them that were missing when this run went on.
    public let missingAtStart: UInt64
    /// Whether it was declared that what changed since the last complete snapshot is in (SPEC S4).
    public let rebased: Bool
    /// The sums at the end.
    public let progress: TransferProgress
    public let volumeSize: UInt64
    public let chunkSize: ChunkSize
    public let sourceBytes: UInt64
    /// The seal of what was read (SPEC S6).
    public let seal: Fingerprint
    public let sealCheck: SealCheck
    public let duration: Duration
}

/// Makes a snapshot of a LOCAL volume equal to a source: a disk, a file or a stream on this machine (SPEC S3, G1).
///
/// The snapshot starts from the volume's previous one, so that only what changed is sent, and of that only the chunks that
/// the account has nowhere on the server. It is complete when ``run()`` returns, and its seal has been compared with what was
/// read: one that is something else is deleted. An interrupted backup leaves the snapshot in progress; another run, from any
/// machine that has the source, goes on with ``BackupOptions/Unfinished/resume``: it compares the source with what the service
/// holds. Of a volume that was made of a snapshot in progress all of the source is sent, as ``Importer`` says, and the backup's
/// snapshot waits for that one (SPEC V5).
public final class Backup: Sendable {
    /// What a backup is doing.
    public enum Phase: Sendable, Hashable {
        case preparing, scanning, uploading
        /// 100 is being reported.
        case completing
        /// The snapshot is complete, and the server's seal of it is waited for.
        case sealing
    }

    let client: Client
    let source: ImportSource
    let volume: VolumeID
    let options: BackupOptions
    private let state = Mutex((phase: Phase.preparing, counter: TransferCounter(), snapshot: SnapshotID?.none))

    public init(client: Client, source: ImportSource, volume: VolumeID, options: BackupOptions = BackupOptions()) {
        self.client = client
        self.source = source
        self.volume = volume
        self.options = options
    }

    public var phase: Phase { state.withLock { $0.phase } }

    /// How far the present phase is; may be asked at any time, from any thread.
    public var progress: TransferProgress { state.withLock { $0.counter }.value }

    /// The snapshot that is in the making, once there is one: what an interrupted backup leaves behind.
    public var snapshot: SnapshotID? { state.withLock { $0.snapshot } }

    /// Begins a phase, whose sums start at nothing.
    func begin(_ phase: Phase) -> TransferCounter {
        let counter = TransferCounter()
        state.withLock { state in
            state.phase = phase
            state.counter = counter
        }
        return counter
    }

    /// Enters a phase that goes on with the last one's sums.
    func enter(_ phase: Phase) { state.withLock { $0.phase = phase } }

    func made(_ snapshot: SnapshotID?) { state.withLock { $0.snapshot = snapshot } }

    /// Deletes the snapshot that an interrupted backup leaves in progress. Also from a task that was cancelled.
    /// - Returns: false where the snapshot has all its data, and so was left as it is.
    @discardableResult
    public func cancelSnapshot() async throws(ClientError) -> Bool { try await deleteSnapshot(unlessWhole: true) }

    /// Deletes the snapshot; see ``cancelSnapshot()``.
    @discardableResult
    func deleteSnapshot(unlessWhole: Bool) async throws(ClientError) -> Bool {
        guard let snapshot else { return true }
        let client = client
        let result = await Task.detached { () async -> Result<Bool, ClientError> in
            do throws(ClientError) {
                if unlessWhole, try await client.describeSnapshot(snapshot).progress == 100 { return .success(false) }
                try await client.deleteSnapshot(snapshot)
                return .success(true)
            } catch {
                return .failure(error)
            }
        }.value
        let isDeleted = try result.get()
        if isDeleted { made(nil) }
        return isDeleted
    }
}
