import ArgumentParser
import CairnClient
import CairnCore

struct RestoreCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Bring a snapshot back to a local disk, and prove it by its seal.",
        discussion: """
            With --onto an existing file or block device is made equal in place: it is read and hashed, and only what differs is \
            fetched and written. Without, the target is a new file. The snapshot's seal is waited for, and must match.

            To back the restored disk up from here on, with what it held before not sent again, make a volume of the snapshot:
            cairn volume create --local --from snap-…

              cairn restore snap-… disk.img
              cairn restore snap-… /dev/vg0/home --onto
            """
    )

    @Argument(help: ArgumentHelp("The snapshot.", valueName: "snap-…"))
    var snapshot: SnapshotID

    @Argument(help: "A new file, or with --onto an existing file or block device.", completion: .file())
    var device: String

    @Flag(help: "Change what is there in place: only what differs is fetched and written.")
    var onto = false

    @OptionGroup var connection: ConnectionOptions

    var interruptedHint: String? { "What was received is kept: run the same command again to go on." }

    func validate() throws {
        if device == "-" { throw ValidationError("A restore writes to a file or a block device.") }
    }

    func run(with client: Client) async throws(ClientError) {
        // Before anything of the device is overwritten.
        guard try await client.describeSnapshot(snapshot).state == .complete else {
            throw ClientError(.invalidRequest, "\(snapshot) is not complete: it has no seal to prove \(device) by")
        }
        var options = ExportOptions()
        options.isOnto = onto
        options.sealLimit = .seconds(600)
        let exporter = Exporter(client: client, from: .snapshot(snapshot), to: .path(device), options: options)
        let summary: ExportSummary
        do throws(ClientError) {
            summary = try await ProgressDisplay.during(
                "restore",
                quiet: connection.json,
                progress: { exporter.progress }
            ) {
                () async throws(ClientError) in try await exporter.run()
            }
        } catch {
            // EEXIST.
            guard error.code == .target, error.errno == 17, !onto else { throw error }
            throw ClientError(.target, "\(error.text): --onto changes what differs", errno: error.errno)
        }
        guard summary.sealCheck == .matched else {
            throw ClientError(.damaged, "\(snapshot) gave no seal to prove \(device) by")
        }
        let report = ExportReport(summary, .init(argument: "\(snapshot)")!)
        Output.print(connection.json ? Output.json(report) : ExportCommand.text(summary, device))
    }
}
