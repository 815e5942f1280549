import ArgumentParser
import CairnClient
import CairnCore

struct ExportCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a snapshot or volume to a file, block device or standard output.",
        discussion: """
            Every block is checked against its checksum, every chunk against its fingerprint, the whole against the snapshot's \
            seal. A file is written as TARGET.cairn-partial and gets its name when it is complete; run again after an \
            interruption the export goes on from there. Zeros become holes. A volume that is written meanwhile gives no point \
            in time: make a snapshot for that. With `-` a summary goes to standard error. With --onto an existing file or \
            device is made equal in place: it is read and hashed, and only what differs is fetched and written.

              cairn export snap-… disk.img
              cairn export snap-… disk.img --onto
              cairn export snap-… /dev/vg0/restored --force
              cairn export snap-… - | gzip > disk.img.gz
            """
    )

    @Argument(help: ArgumentHelp("What to write.", valueName: "snap-…|vol-…"))
    var origin: OriginArgument

    @Argument(help: "A file, a block device, a named pipe, or - for standard output.", completion: .file())
    var target: String

    @Flag(help: "Replace a file that exists, or overwrite a block device.")
    var force = false

    @Flag(help: "Change an existing file or block device in place: only what differs is fetched and written.")
    var onto = false

    @Flag(help: "Wait until the server has computed the snapshot's seal, at most a minute, and compare.")
    var verify = false

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if verify, case .volume = origin.target {
            throw ValidationError("--verify is for snapshots: a volume has no seal.")
        }
        if onto, force { throw ValidationError("Give either --onto or --force.") }
        if onto, target == "-" { throw ValidationError("--onto needs a file or a block device.") }
    }

    var interruptedHint: String? {
        target == "-" ? nil : "What was received is kept: run the same command again to go on."
    }

    func run(with client: Client) async throws(ClientError) {
        var options = ExportOptions()
        options.replaces = force
        options.isOnto = onto
        if verify { options.sealLimit = .seconds(60) }
        let exporter = Exporter(
            client: client,
            from: origin.target,
            to: target == "-" ? .standardOutput : .path(target),
            options: options
        )
        let summary: ExportSummary
        do throws(ClientError) {
            summary = try await ProgressDisplay.during(
                "export",
                quiet: connection.json,
                progress: { exporter.progress }
            ) {
                () async throws(ClientError) in try await exporter.run()
            }
        } catch {
            guard error.code == .target, ExportCommand.isTaken(error.errno), !force, !onto else { throw error }
            throw ClientError(
                .target,
                "\(error.text): --force replaces it, --onto changes what differs",
                errno: error.errno
            )
        }
        let report =
            connection.json
            ? Output.json(ExportReport(summary, origin)) : ExportCommand.text(summary, target == "-" ? nil : target)
        // Standard output is the image's.
        if target == "-" { Output.printError(report) } else { Output.print(report) }
    }

    /// EEXIST: the name is taken.
    private static func isTaken(_ errno: Int32) -> Bool { errno == 17 }

    static func text(_ summary: ExportSummary, _ target: String?) -> String {
        let progress = summary.progress
        let check =
            switch summary.sealCheck {
            case .matched: " (matches the snapshot's)"
            case .pending: " (the snapshot's is not computed yet)"
            case .none: ""
            }
        return Output.facts([
            ("written to", target), ("logical", ByteCount.text(summary.size)),
            ("zeros and holes", ByteCount.text(progress.zero)), ("in place already", ByteCount.text(progress.inPlace)),
            ("transferred", "\(ByteCount.text(progress.transferred)), \(ByteCount.text(progress.wire)) received"),
            ("time", "\(Output.duration(summary.duration)), \(Output.rate(summary.size, in: summary.duration))"),
            ("seal", "\(summary.seal)\(check)"),
        ])
    }
}

/// What `export --json` shows; all but `seconds` in bytes.
struct ExportReport: Encodable {
    let snapshotId: String?
    let volumeId: String?
    let logicalBytes: UInt64
    let zeroBytes: UInt64
    let inPlaceBytes: UInt64
    let transferredBytes: UInt64
    let payloadBytes: UInt64
    let receivedBytes: UInt64
    let chunkSize: Int
    let seconds: Double
    let seal: String
    /// "matched" or "pending"; absent where there is no seal to compare with.
    let sealCheck: String?

    init(_ summary: ExportSummary, _ origin: OriginArgument) {
        switch origin.target {
        case .volume(let id):
            volumeId = "\(id)"
            snapshotId = nil
        case .snapshot(let id):
            volumeId = nil
            snapshotId = "\(id)"
        case .snapshotToken:
            volumeId = nil
            snapshotId = nil
        }
        logicalBytes = summary.size
        zeroBytes = summary.progress.zero
        inPlaceBytes = summary.progress.inPlace
        transferredBytes = summary.progress.transferred
        payloadBytes = summary.progress.payload
        receivedBytes = summary.progress.wire
        chunkSize = summary.chunkSize.bytes
        seconds = summary.duration / .seconds(1)
        seal = "\(summary.seal)"
        sealCheck =
            switch summary.sealCheck {
            case .matched: "matched"
            case .pending: "pending"
            case .none: nil
            }
    }
}
