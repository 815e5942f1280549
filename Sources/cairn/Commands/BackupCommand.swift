import ArgumentParser
import CairnClient
import CairnCore

struct BackupCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Make a snapshot of a local disk: only what changed since the last one is sent.",
        discussion: """
            The volume is LOCAL: it stands for the disk here, and only its snapshots live on the service. Each backup begins \
            with what the last one held, sends the chunks that differ, and names those that the account has anywhere on the \
            server; holes of the file system are marks. At the end the service's seal is compared with that of what was read.

            Give the backup something that stands still: a snapshot of the disk, or a disk that is not in use. With --live \
            each chunk is taken as it is when it is read. An interrupted backup leaves its snapshot in progress; --resume goes \
            on with it, from any machine that has the disk.

              cairn backup /dev/vg0/home --volume home --create
              cairn backup /dev/vg0/home --volume home --resume
            """
    )

    @Argument(help: "A file, a block device, a named pipe, or - for standard input.", completion: .file())
    var device: String

    @Option(help: ArgumentHelp("The LOCAL volume, by its ID or its name.", valueName: "vol-…|name"))
    var volume: VolumeArgument

    @Flag(help: "Make the volume, of the device's size, if there is none of that name.")
    var create = false

    @Option(help: "The size of a volume that is made. (default: the device's)")
    var size: ByteSize?

    @Option(help: "The chunks' size of a volume that is made, a power of two from 4KiB to 4MiB.")
    var chunkSize: ChunkSizeArgument?

    @Option(help: "The affinity key of a volume that is made.")
    var affinity: String?

    @Flag(help: "Go on with the snapshot that an interrupted backup left in progress, if there is one.")
    var resume = false

    @Flag(help: "The device is in use: take each chunk as it is when it is read.")
    var live = false

    @Flag(help: "When interrupted, delete a snapshot that is in progress instead of leaving it so.")
    var cancelOnInterrupt = false

    @Option(help: "The snapshot's description; at most 1024 bytes.")
    var description = ""

    @Option(help: ArgumentHelp("A label of the snapshot; may be repeated.", valueName: "key=value"))
    var tag: [TagArgument] = []

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if case .id = volume, create { throw ValidationError("--create needs a name, not an ID.") }
        if !create, size != nil || chunkSize != nil || affinity != nil {
            throw ValidationError("--size, --chunk-size and --affinity are for --create.")
        }
    }

    func run(with client: Client) async throws(ClientError) {
        let source = device == "-" ? try ImportSource.standardInput() : try ImportSource.open(device)
        let target = try await target(for: source, client)
        var options = BackupOptions()
        options.unfinished = resume ? .resume : .refuse
        options.isFrozen = !live
        options.note = description
        options.tags = tag.dictionary
        let backup = Backup(client: client, source: source, volume: target, options: options)
        let summary: BackupSummary
        do throws(ClientError) {
            summary = try await ProgressDisplay.during(
                BackupCommand.verb(backup.phase),
                quiet: connection.json,
                progress: { backup.progress }
            ) {
                () async throws(ClientError) in try await backup.run()
            }
        } catch {
            await leave(backup, error)
            throw error
        }
        Output.print(connection.json ? Output.json(BackupReport(summary, target)) : text(summary, target))
    }

    private static func verb(_ phase: Backup.Phase) -> String {
        switch phase {
        case .scanning: "scan"
        case .preparing, .uploading, .completing, .sealing: "backup"
        }
    }

    private func target(for source: ImportSource, _ client: Client) async throws(ClientError) -> VolumeID {
        if let found = try await volume.find(kind: .local, client) { return found }
        guard case .name(let name) = volume, create else {
            throw ClientError(.invalidRequest, "no LOCAL volume has this name: --create makes one")
        }
        var new = NewVolume()
        new.kind = .local
        new.size = try source.newVolumeSize(size?.bytes, device)
        new.chunkSize = chunkSize?.size
        new.affinity = Array((affinity ?? "").utf8)
        new.tags = ["name": name]
        return try await client.createVolume(new).id
    }

    /// What becomes of the snapshot when the backup ends early.
    private func leave(_ backup: Backup, _ error: ClientError) async {
        guard let snapshot = backup.snapshot else { return }
        if error.code == .cancelled, cancelOnInterrupt {
            do throws(ClientError) {
                let isCancelled = try await backup.cancelSnapshot()
                return tell(isCancelled ? "\(snapshot) was cancelled." : BackupCommand.advice(snapshot, .sealing))
            } catch {
                return tell("\(snapshot) is still there: \(error.text)")
            }
        }
        switch error.code {
        case .cancelled, .connectionLost, .timedOut, .unreachable: tell(BackupCommand.advice(snapshot, backup.phase))
        default: break
        }
    }

    /// What there is to know of the snapshot of a backup that was interrupted in this phase.
    static func advice(_ snapshot: SnapshotID, _ phase: Backup.Phase) -> String {
        switch phase {
        case .preparing, .scanning, .uploading:
            "\(snapshot) stays in progress: --resume goes on, `cairn snapshot delete` cancels it."
        case .completing:
            "\(snapshot) has all its data, and may be complete: see `cairn snapshot show`; if it is not, --resume goes on."
        case .sealing: "\(snapshot) is complete, but its seal was not compared with what was read."
        }
    }

    private func tell(_ text: String) {
        if !connection.json { Output.printError(text) }
    }

    private func text(_ summary: BackupSummary, _ volume: VolumeID) -> String {
        let progress = summary.progress
        let check =
            switch summary.sealCheck {
            case .matched: "matches the snapshot's"
            case .waiting: "the snapshot waits for an earlier one to be complete"
            case .withheld: "the snapshot's is withheld: see `cairn snapshot show --owners`"
            }
        return Output.facts([
            ("snapshot", "\(summary.snapshot)"), ("volume", "\(volume), version \(summary.dataVersion)"),
            ("went on", summary.resumed ? "yes; \(summary.missingAtStart) expected chunks were missing" : nil),
            ("logical", ByteCount.text(summary.volumeSize)), ("zeros and holes", ByteCount.text(progress.zero)),
            (summary.resumed ? "was there already" : "unchanged", ByteCount.text(progress.inPlace)),
            ("deduplicated", ByteCount.text(progress.deduplicated)),
            ("transferred", "\(ByteCount.text(progress.transferred)), \(ByteCount.text(progress.wire)) sent"),
            ("time", "\(Output.duration(summary.duration)), \(Output.rate(summary.volumeSize, in: summary.duration))"),
            ("seal", "\(summary.seal) (\(check))"),
        ])
    }
}

/// What `backup --json` shows; all but `seconds` in bytes.
struct BackupReport: Encodable {
    let snapshotId: String
    let volumeId: String
    let dataVersion: UInt64
    let resumed: Bool
    let rebased: Bool
    let expectedChunks: Int
    let missingChunksAtStart: UInt64
    let logicalBytes: UInt64
    let sourceBytes: UInt64
    let zeroBytes: UInt64
    let inPlaceBytes: UInt64
    let deduplicatedBytes: UInt64
    let transferredBytes: UInt64
    let payloadBytes: UInt64
    let sentBytes: UInt64
    let chunkSize: Int
    let seconds: Double
    /// Of what was read.
    let seal: String
    /// "matched", "waiting" for an earlier snapshot, or "withheld".
    let sealCheck: String

    init(_ summary: BackupSummary, _ volume: VolumeID) {
        snapshotId = "\(summary.snapshot)"
        volumeId = "\(volume)"
        dataVersion = summary.dataVersion.rawValue
        resumed = summary.resumed
        rebased = summary.rebased
        expectedChunks = summary.expected
        missingChunksAtStart = summary.missingAtStart
        logicalBytes = summary.volumeSize
        sourceBytes = summary.sourceBytes
        zeroBytes = summary.progress.zero
        inPlaceBytes = summary.progress.inPlace
        deduplicatedBytes = summary.progress.deduplicated
        transferredBytes = summary.progress.transferred
        payloadBytes = summary.progress.payload
        sentBytes = summary.progress.wire
        chunkSize = summary.chunkSize.bytes
        seconds = summary.duration / .seconds(1)
        seal = "\(summary.seal)"
        sealCheck = summary.sealCheck.rawValue
    }
}
