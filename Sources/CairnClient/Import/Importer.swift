public import CairnCore
internal import CairnWire

/// What an import may use.
public struct ImportOptions: Sendable {
    /// Threads that read, hash and compress; nil: one for each processor.
    public var workers: Int?
    /// Memory for data, in bytes.
    public var memory = 64 << 20
    public init() {}
}

/// What an import did.
public struct ImportSummary: Sendable, Hashable {
    /// The sums at the end.
    public let progress: TransferProgress
    /// The volume's.
    public let volumeSize: UInt64
    public let chunkSize: ChunkSize
    /// Bytes that the source holds.
    public let sourceBytes: UInt64
    /// Zeros that were added because a volume is made of sectors of 512 bytes.
    public let padding: UInt64
    /// The seal that a snapshot of the volume, as it was imported, has (SPEC S6).
    public let seal: Fingerprint
    public let duration: Duration
}

/// Makes a volume equal to a source: a file, a block device or a stream.
///
/// It sends only what the service lacks. What the volume holds already is asked for first (ListBlocks), so an import that was
/// interrupted, by whatever, goes on where it was when it is simply run again; chunks in place are only read and hashed.
/// Holes of the source are not read. Where the volume is larger than the source the rest becomes zeros. All that was
/// answered is durable; the volume is equal to the source when ``run()`` returns, provided that nobody else writes to it.
///
/// Where data can still show through in the volume, from a snapshot in progress that it was made of (SPEC V5), what it holds
/// is not relied on: all of the source is sent, equal chunks by their tokens, holes and zeros as marks, so that it hides what
/// comes to that snapshot later.
public final class Importer: Sendable {
    private let client: Client
    private let source: ImportSource
    private let volume: VolumeID
    private let options: ImportOptions
    private let counter = TransferCounter()

    public init(client: Client, source: ImportSource, volume: VolumeID, options: ImportOptions = ImportOptions()) {
        self.client = client
        self.source = source
        self.volume = volume
        self.options = options
    }

    /// How far it is; may be asked at any time, from any thread.
    public var progress: TransferProgress { counter.value }

    /// Runs the import. Cancelling the task stops it cleanly; the volume then holds a part of the source.
    /// - Throws: `invalidRequest` where the source is larger than the volume, `source` where it cannot be read, and what
    ///   calls throw.
    public func run() async throws(ClientError) -> ImportSummary {
        let clock = ContinuousClock()
        let begin = clock.now
        let facts = try await client.serverFacts()
        let target = try await client.describeVolume(volume)
        if let needed = source.volumeSize, needed > target.size {
            throw SourceCursor.tooLong(source.name, volume: target.size)
        }
        let layout = PieceLayout(
            chunkSize: target.chunkSize,
            volumeSize: target.size,
            chunksPerCall: min(facts.maxBlocksPerCall, facts.maxTokensPerCall)
        )
        let destination = UploadDestination(volume: volume, isSettled: try await client.isSettled(target))
        counter.update { $0.total = target.size }
        let run = ImportRun(
            source: source,
            destination: destination,
            layout: layout,
            counter: counter,
            caller: client.caller,
            checksum: client.options.checksum,
            memory: options.memory
        )
        try await run.run(workers: options.workers ?? Threads.processors)
        let end = run.sourceEnd
        return ImportSummary(
            progress: counter.value,
            volumeSize: target.size,
            chunkSize: target.chunkSize,
            sourceBytes: end,
            padding: ImportSource.padded(end) - end,
            seal: run.seal,
            duration: clock.now - begin
        )
    }
}
