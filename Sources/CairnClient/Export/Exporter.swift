public import CairnCore

/// Where an export goes.
public enum ExportTarget: Sendable, Hashable {
    /// A file, made sparse; or a block device or named pipe, if that is what has this name.
    case path(String)
    case standardOutput
}

/// What an export may do and use.
public struct ExportOptions: Sendable {
    /// Whether an existing file may be replaced, and a block device overwritten.
    public var replaces = false
    /// Whether the target must exist, and is made equal in place: what it holds is hashed, and only what differs is fetched
    /// and written (SPEC A4).
    public var isOnto = false
    /// How long to wait for a snapshot's seal that the server has not computed yet.
    public var sealLimit: Duration = .zero
    /// Threads that check and write; nil: two for each processor, for half of them wait for the target.
    public var workers: Int?
    /// Memory for data, in bytes.
    public var memory = 64 << 20
    public init() {}
}

/// What an export did.
public struct ExportSummary: Sendable, Hashable {
    /// How the result was compared with the snapshot's seal.
    public enum SealCheck: Sendable, Hashable {
        /// What was written has the server's seal.
        case matched
        /// The server has not computed it yet.
        case pending
        /// A volume, or a snapshot in progress, has none; of one that holds data of accounts that grant no EXPORT it is not told.
        case none
    }
    /// The sums at the end.
    public let progress: TransferProgress
    /// The image's.
    public let size: UInt64
    public let chunkSize: ChunkSize
    /// The seal of what was written (SPEC S6).
    public let seal: Fingerprint
    public let sealCheck: SealCheck
    public let duration: Duration
}

/// Writes a volume or snapshot to a file, block device or stream.
///
/// Every block is checked against its checksum, every chunk against its fingerprint, and the whole against the snapshot's
/// seal, where it has one. A file appears under its name only when it is complete and on stable storage; until then it is
/// `NAME.cairn-partial`, and an export that is run again goes on from there: chunks that are there are hashed, not fetched.
/// With ``ExportOptions/isOnto`` an existing file or device is changed in place instead.
/// A volume that is written to meanwhile gives no point in time: take a snapshot for that.
public final class Exporter: Sendable {
    private let client: Client
    private let origin: BlockTarget
    private let target: ExportTarget
    private let options: ExportOptions
    private let counter = TransferCounter()

    /// - Parameter origin: a volume or a snapshot, not a snapshot's token.
    public init(
        client: Client,
        from origin: BlockTarget,
        to target: ExportTarget,
        options: ExportOptions = ExportOptions()
    ) {
        self.client = client
        self.origin = origin
        self.target = target
        self.options = options
    }

    /// How far it is; may be asked at any time, from any thread.
    public var progress: TransferProgress { counter.value }

    private struct Facts {
        let size: UInt64
        let chunkSize: ChunkSize
        let isImmutable: Bool
        let seal: SnapshotSeal?
    }

    /// Runs the export. Cancelling the task stops it cleanly and leaves the partial file, to go on from.
    /// - Throws: `target` where it cannot be written, `damaged` where what came is not what it should be, and what calls throw.
    public func run() async throws(ClientError) -> ExportSummary {
        let clock = ContinuousClock()
        let begin = clock.now
        let limits = try await client.serverFacts()
        let facts = try await facts()
        let sink = try openSink(size: facts.size)
        let layout = PieceLayout(
            chunkSize: facts.chunkSize,
            volumeSize: facts.size,
            chunksPerCall: limits.maxBlocksPerCall
        )
        counter.update { $0.total = facts.size }
        let run = ExportRun(
            target: origin,
            isImmutable: facts.isImmutable,
            layout: layout,
            sink: sink,
            counter: counter,
            caller: client.caller,
            checksum: client.options.checksum,
            memory: options.memory
        )
        try await run.run(workers: options.workers ?? 2 * Threads.processors)
        let seal = run.seal
        let check = try await compare(seal, with: facts)
        try sink.finish()
        return ExportSummary(
            progress: counter.value,
            size: facts.size,
            chunkSize: facts.chunkSize,
            seal: seal,
            sealCheck: check,
            duration: clock.now - begin
        )
    }

    private func facts() async throws(ClientError) -> Facts {
        switch origin {
        case .volume(let id):
            let volume = try await client.describeVolume(id)
            return Facts(size: volume.size, chunkSize: volume.chunkSize, isImmutable: false, seal: nil)
        case .snapshot(let id):
            let snapshot = try await client.describeSnapshot(id)
            return Facts(
                size: snapshot.size,
                chunkSize: snapshot.chunkSize,
                isImmutable: snapshot.state == .complete,
                seal: snapshot.seal
            )
        case .snapshotToken:
            throw ClientError(.invalidRequest, "an export needs a volume's or snapshot's ID")
        }
    }

    private func openSink(size: UInt64) throws(ClientError) -> any ExportSink {
        guard case .path(let path) = target else { return StreamSink.standardOutput() }
        switch try? OpenFile.open(path, OpenFile.pathOnly).kind() {
        case .blockDevice:
            guard options.replaces || options.isOnto else {
                throw ClientError(
                    .target,
                    "\(path) is a block device, and would be overwritten",
                    errno: OpenFile.existsError
                )
            }
            return try DeviceSink(path, size: size)
        case .regular where options.isOnto: return try ExistingFileSink(path, size: size)
        case nil where options.isOnto:
            throw ClientError(.target, "\(path) does not exist", errno: OpenFile.absentError)
        case .stream where options.isOnto:
            throw ClientError(.target, "\(path) cannot be read back", errno: OpenFile.existsError)
        case .stream: return StreamSink(path)
        case .folder: throw ClientError(.target, "\(path) is a folder", errno: OpenFile.existsError)
        // A symbolic link stays: the file that it leads to is replaced.
        case .regular: return try FileSink(OpenFile.resolved(path), size: size, replaces: options.replaces)
        case nil: return try FileSink(path, size: size, replaces: options.replaces)
        }
    }

    private func compare(_ seal: Fingerprint, with facts: Facts) async throws(ClientError) -> ExportSummary.SealCheck {
        guard case .snapshot(let id) = origin, var told = facts.seal else { return .none }
        if told == .pending {
            let limit = options.sealLimit
            let now = try await limit > .zero ? client.describeSealed(id, within: limit) : client.describeSnapshot(id)
            // Withheld since a grant was taken back.
            guard let seal = now.seal else { return .none }
            told = seal
        }
        guard case .value(let value) = told else { return .pending }
        guard value == seal else {
            throw ClientError(.damaged, "what was written has the seal \(seal), the snapshot's is \(value)")
        }
        return .matched
    }
}
