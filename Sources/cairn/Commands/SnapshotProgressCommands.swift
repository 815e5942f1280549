import ArgumentParser
import CairnClient
import CairnCore

/// What concerns snapshots in progress, and labels.
extension SnapshotCommands {
    struct Progress: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "Report how far the upload of a snapshot is; 100 completes it.",
            discussion: "`cairn backup` does this by itself: this is for other programs that upload."
        )

        @Argument(help: ArgumentHelp("The snapshot.", valueName: "snap-…"))
        var snapshot: SnapshotID

        @Argument(help: ArgumentHelp("0 to 100, not below what was reported before.", valueName: "percent"))
        var percent: Int

        @Flag(help: "Declare that all that changed since the last complete snapshot is in.")
        var rebased = false

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            guard (0...100).contains(percent) else { throw ValidationError("A progress is 0 to 100.") }
        }

        func run(with client: Client) async throws(ClientError) {
            let result = try await client.reportProgress(percent, of: snapshot, rebased: rebased)
            let report = ProgressReport(snapshot, result)
            if connection.json { return Output.print(Output.json(report)) }
            let seal = report.seal.map { ", seal \($0)" } ?? ""
            Output.print("\(snapshot)  (\(result.state.rawValue), \(result.percent) %\(seal))")
        }
    }

    struct Missing: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the chunks that a snapshot in progress still expects."
        )

        @Argument(help: ArgumentHelp("The snapshot.", valueName: "snap-…"))
        var snapshot: SnapshotID

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let missing = try await client.missingBlocks(of: snapshot).all()
            if connection.json {
                return Output.print(
                    Output.json(missing.map { PlacementReport(offset: $0.offset, token: "\($0.token)") })
                )
            }
            Output.print(Output.table(["OFFSET", "TOKEN"], missing.map { ["\($0.offset)", "\($0.token)"] }))
            Output.print("\(missing.count) chunks are missing")
        }
    }

    struct Tag: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Set and remove a snapshot's labels.")

        @Argument(help: ArgumentHelp("The snapshot.", valueName: "snap-…"))
        var snapshot: SnapshotID

        @OptionGroup var change: TagChange
        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            try await change.apply(to: .snapshot(snapshot), client, connection)
        }
    }
}

/// Labels to set and to remove.
struct TagChange: ParsableArguments {
    @Argument(help: ArgumentHelp("Labels to set.", valueName: "key=value"))
    var set: [TagArgument] = []

    @Option(help: ArgumentHelp("A label to remove; may be repeated.", valueName: "key"))
    var remove: [String] = []

    func validate() throws {
        if set.isEmpty, remove.isEmpty { throw ValidationError("Give a label to set, or --remove KEY.") }
    }

    func apply(
        to target: BlockTarget,
        _ client: Client,
        _ connection: ConnectionOptions
    ) async throws(ClientError) {
        let tags = try await client.updateTags(of: target, set: set.dictionary, remove: remove)
        if connection.json { return Output.print(Output.json(TagsReport(tags: tags))) }
        Output.print(tags.isEmpty ? "no labels" : Reports.tags(tags))
    }
}

/// What `snapshot progress --json` shows.
struct ProgressReport: Encodable {
    let snapshotId: String
    let state: String
    let percent: Int
    /// Hexadecimal, or "pending"; absent unless complete.
    let seal: String?

    init(_ snapshot: SnapshotID, _ result: SnapshotProgressResult) {
        snapshotId = "\(snapshot)"
        state = result.state.rawValue
        percent = result.percent
        seal = Reports.seal(result.seal)
    }
}

struct PlacementReport: Encodable {
    let offset: UInt64
    let token: String
}
