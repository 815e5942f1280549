import ArgumentParser
import CairnClient
import CairnCore

struct SnapshotCommands: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Make, list, show and delete snapshots.",
        subcommands: [Create.self, List.self, Show.self, Delete.self]
    )
}

extension SnapshotCommands {
    struct Create: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Make a snapshot of a volume.")

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @Option(help: "What it is, for people; at most 1024 bytes.")
        var description = ""

        @Option(help: ArgumentHelp("A label; may be repeated.", valueName: "key=value"))
        var tag: [TagArgument] = []

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let made = try await client.createSnapshot(of: volume, note: description, tags: tag.dictionary)
            if connection.json { return Output.print(Output.json(CreatedSnapshotReport(made, of: volume))) }
            Output.print("\(made.id)  (version \(made.dataVersion) of \(volume), \(made.state.rawValue))")
        }
    }

    struct List: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "List the account's snapshots, oldest first.")

        @Option(help: ArgumentHelp("Only those of this volume.", valueName: "vol-…"))
        var volume: VolumeID?

        @Option(help: ArgumentHelp("Only snapshots with this label; may be repeated.", valueName: "key=value"))
        var tag: [TagArgument] = []

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let snapshots = try await client.snapshots(of: volume, tags: tag.dictionary).all()
            if connection.json { return Output.print(Output.json(snapshots.map { SnapshotReport($0) })) }
            Output.print(
                Output.table(
                    ["SNAPSHOT", "VOLUME", "VERSION", "SIZE", "STATE", "CREATED", "DESCRIPTION"],
                    snapshots.map { snapshot in
                        [
                            "\(snapshot.id)", "\(snapshot.volume)", "\(snapshot.dataVersion)",
                            ByteCount.text(snapshot.size),
                            Reports.state(snapshot), Output.date(snapshot.createdAt.milliseconds), snapshot.note,
                        ]
                    }
                )
            )
        }
    }

    struct Show: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Show one snapshot.")

        @Argument(help: ArgumentHelp("The snapshot.", valueName: "snap-…"))
        var snapshot: SnapshotID

        @Flag(help: "Wait until the seal is computed, at most a minute.")
        var waitSeal = false

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            var shown = try await client.describeSnapshot(snapshot)
            if waitSeal, shown.seal == .pending {
                _ = try await client.seal(of: snapshot)
                shown = try await client.describeSnapshot(snapshot)
            }
            if connection.json { return Output.print(Output.json(SnapshotReport(shown))) }
            Output.print(
                Output.facts([
                    ("snapshot", "\(shown.id)"), ("volume", "\(shown.volume)"), ("account", shown.account),
                    ("state", Reports.state(shown)), ("data version", "\(shown.dataVersion)"),
                    ("size", "\(ByteCount.text(shown.size)) (\(shown.size) bytes)"),
                    ("chunk size", "\(shown.chunkSize)"),
                    ("description", shown.note.isEmpty ? nil : shown.note),
                    ("tags", shown.tags.isEmpty ? nil : Reports.tags(shown.tags)),
                    ("created", Output.date(shown.createdAt.milliseconds)),
                    ("completed", shown.completedAt.map { Output.date($0.milliseconds) }),
                    ("seal", Reports.seal(shown.seal)),
                ])
            )
        }
    }

    struct Delete: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Delete a snapshot.")

        @Argument(help: ArgumentHelp("The snapshot.", valueName: "snap-…"))
        var snapshot: SnapshotID

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            try await client.deleteSnapshot(snapshot)
            Output.print(connection.json ? Output.json(DeletedReport(deleted: "\(snapshot)")) : "deleted \(snapshot)")
        }
    }
}
