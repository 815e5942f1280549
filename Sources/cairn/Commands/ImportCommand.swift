import ArgumentParser
import CairnClient
import CairnCore

struct ImportCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Make a volume equal to a file, block device or standard input.",
        discussion: """
            Only what the service lacks is sent: holes and zeros are marks, chunks that the account has anywhere on the server \
            are named, the rest is compressed where that helps. Run again after an interruption, with --volume and not --new, it \
            goes on where it was. What the volume holds beyond the source's end becomes zeros. The volume should not be written by others meanwhile.

            Any machine that has the source can go on: the service knows what it holds, and nothing is kept here. --resume says \
            how much was there already, and finds the volume by its name.

              cairn import disk.img --new --snapshot
              cairn import disk.img --resume --name web1
              cairn import /dev/vg0/root --volume vol-…
              zcat disk.img.gz | cairn import - --new --size 20GiB
            """
    )

    @Argument(help: "A file, a block device, a named pipe, or - for standard input.", completion: .file())
    var source: String

    @Option(help: ArgumentHelp("The volume that becomes equal to the source.", valueName: "vol-…"))
    var volume: VolumeID?

    @Flag(help: "Make a new volume.")
    var new = false

    @Option(help: "The new volume's size. (default: the source's; standard input needs one)")
    var size: ByteSize?

    @Option(help: "A name for the new volume, its label `name`; or the name of the volume to go on with.")
    var name: String?

    @Flag(help: "Go on with an import that was interrupted, here or elsewhere; needs --volume or --name.")
    var resume = false

    @OptionGroup var options: NewVolumeOptions

    @Flag(help: "Make a snapshot afterwards, and compare its seal with that of the source.")
    var snapshot = false

    @Option(help: "The snapshot's description.")
    var description = ""

    @Flag(help: "Wait until the server has computed the snapshot's seal, at most a minute.")
    var verify = false

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if resume {
            guard !new, (volume != nil) != (name != nil) else {
                throw ValidationError("--resume needs either --volume vol-… or --name, and no --new.")
            }
        } else {
            guard new != (volume != nil) else { throw ValidationError("Give either --volume vol-… or --new.") }
        }
        if !new,
            size != nil || name != nil && !resume || options.chunkSize != nil || options.affinity != nil
                || !options.tag.isEmpty
        {
            throw ValidationError("--size, --name, --chunk-size, --affinity and --tag are for --new.")
        }
        if !snapshot, verify || !description.isEmpty {
            throw ValidationError("--verify and --description are for --snapshot.")
        }
        if source == "-", new, size == nil { throw ValidationError("Standard input needs --size for the new volume.") }
    }

    var interruptedHint: String? {
        guard !new else { return nil }
        return "What was sent is kept: run the same command again to go on, here or on another machine."
    }

    func run(with client: Client) async throws(ClientError) {
        let opened = source == "-" ? try ImportSource.standardInput() : try ImportSource.open(source)
        let target = try await target(for: opened, client)
        do throws(ClientError) {
            try await transfer(opened, to: target, client)
        } catch {
            // The user cannot know the volume that this command made.
            if new {
                Session.madeVolume.change { $0 = target }
                if !connection.json {
                    Output.printError("What was sent is kept: go on with cairn import \(source) --volume \(target)")
                }
            }
            throw error
        }
    }

    private func target(for opened: ImportSource, _ client: Client) async throws(ClientError) -> VolumeID {
        if let volume { return volume }
        if resume, let name {
            guard let found = try await VolumeArgument.name(name).find(kind: .remote, client) else {
                throw ClientError(.invalidRequest, "no REMOTE volume is called \(name)")
            }
            return found
        }
        var wanted = NewVolume()
        wanted.size = try opened.newVolumeSize(size?.bytes, source)
        options.apply(to: &wanted)
        if let name { wanted.tags["name"] = name }
        return try await client.createVolume(wanted).id
    }

    private func transfer(_ opened: ImportSource, to target: VolumeID, _ client: Client) async throws(ClientError) {
        let importer = Importer(client: client, source: opened, volume: target)
        let summary = try await ProgressDisplay.during(
            "import",
            quiet: connection.json,
            progress: { importer.progress }
        ) {
            () async throws(ClientError) in try await importer.run()
        }
        var made: CreatedSnapshot?
        var compared: Comparison?
        if snapshot {
            let created = try await client.createSnapshot(of: target, note: description)
            made = created
            compared = await compare(summary.seal, with: created.id, client)
        }
        let report = ImportReport(summary, volume: target, snapshot: made?.id, check: compared?.check)
        Output.print(connection.json ? Output.json(report) : text(summary, report))
        if let failure = compared?.failure { throw failure }
        if compared?.check == .differs {
            throw ClientError(
                .damaged,
                "the snapshot is not what was imported: others wrote to the volume, or it is damaged"
            )
        }
    }

    /// How a snapshot compares with the source.
    enum SealCheck: String, Encodable {
        case matched, pending, differs
        /// The snapshot holds data of accounts that do not grant EXPORT.
        case withheld
    }

    struct Comparison {
        let check: SealCheck
        /// Why the seal is not known: to be thrown when the import, which is done, and its snapshot have been reported.
        var failure: ClientError?
    }

    /// - Parameter limit: how long to wait for the seal, with `--verify`.
    func compare(
        _ seal: Fingerprint,
        with snapshot: SnapshotID,
        _ client: Client,
        within limit: Duration = .seconds(60)
    ) async -> Comparison {
        let described: Snapshot
        do throws(ClientError) {
            described =
                try await verify
                ? client.describeSealed(snapshot, within: limit) : client.describeSnapshot(snapshot)
        } catch {
            return Comparison(check: .pending, failure: error)
        }
        switch described.seal {
        case .value(let value): return Comparison(check: value == seal ? .matched : .differs)
        case .pending: return Comparison(check: .pending)
        case nil:
            let text =
                "the import is not verified: the seal of \(snapshot) is withheld, for it holds data of other accounts"
            return Comparison(check: .withheld, failure: verify ? ClientError(.invalidRequest, text) : nil)
        }
    }

    private func text(_ summary: ImportSummary, _ report: ImportReport) -> String {
        let progress = summary.progress
        var lines = Output.facts([
            ("volume", report.volumeId), ("snapshot", report.snapshotId),
            ("logical", ByteCount.text(summary.volumeSize)), ("zeros and holes", ByteCount.text(progress.zero)),
            (resume ? "was there already" : "in place already", ByteCount.text(progress.inPlace)),
            ("deduplicated", ByteCount.text(progress.deduplicated)),
            ("transferred", "\(ByteCount.text(progress.transferred)), \(ByteCount.text(progress.wire)) sent"),
            ("time", "\(Output.duration(summary.duration)), \(Output.rate(summary.volumeSize, in: summary.duration))"),
            ("seal", report.seal + (report.sealCheck.map { " (\($0.rawValue))" } ?? "")),
        ])
        if summary.padding > 0 {
            lines += "\nNote: \(source) is no multiple of 512 bytes: \(summary.padding) zeros were added."
        }
        return lines
    }
}

/// What `import --json` shows; all but `seconds` in bytes.
struct ImportReport: Encodable {
    let volumeId: String
    let snapshotId: String?
    let logicalBytes: UInt64
    let sourceBytes: UInt64
    let paddingBytes: UInt64
    let zeroBytes: UInt64
    let inPlaceBytes: UInt64
    let deduplicatedBytes: UInt64
    /// Of chunks that were sent with their bytes.
    let transferredBytes: UInt64
    /// The same after compression.
    let payloadBytes: UInt64
    /// The same with messages and frame headers.
    let sentBytes: UInt64
    let chunkSize: Int
    let seconds: Double
    let seal: String
    /// How the snapshot's seal compares; absent without a snapshot.
    let sealCheck: ImportCommand.SealCheck?

    init(_ summary: ImportSummary, volume: VolumeID, snapshot: SnapshotID?, check: ImportCommand.SealCheck?) {
        volumeId = "\(volume)"
        snapshotId = snapshot.map { "\($0)" }
        logicalBytes = summary.volumeSize
        sourceBytes = summary.sourceBytes
        paddingBytes = summary.padding
        zeroBytes = summary.progress.zero
        inPlaceBytes = summary.progress.inPlace
        deduplicatedBytes = summary.progress.deduplicated
        transferredBytes = summary.progress.transferred
        payloadBytes = summary.progress.payload
        sentBytes = summary.progress.wire
        chunkSize = summary.chunkSize.bytes
        seconds = summary.duration / .seconds(1)
        seal = "\(summary.seal)"
        sealCheck = check
    }
}

extension ImportSource {
    /// The size of a volume that is made for it: what `--size` says, which must be enough, or its own.
    /// - Parameter name: what the source is called in messages.
    func newVolumeSize(_ size: UInt64?, _ name: String) throws(ClientError) -> UInt64 {
        guard let bytes = size ?? volumeSize else {
            throw ClientError(.invalidRequest, "\(name) is a pipe: give the new volume's --size")
        }
        if let needed = volumeSize, needed > bytes {
            throw ClientError(.invalidRequest, "\(name) needs \(ByteCount.text(needed)), more than --size says")
        }
        return max(bytes, Limits.volumeSizeMinimum)
    }
}
