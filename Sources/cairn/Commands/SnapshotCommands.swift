import ArgumentParser
import CairnClient
import CairnCore

struct SnapshotCommands: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Make, list, show, label, complete and delete snapshots.",
        subcommands: [
            Create.self, List.self, Show.self, Tag.self, Progress.self, Missing.self, Delete.self,
        ]
    )
}

extension SnapshotCommands {
    struct Create: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a snapshot of a volume, or of several at one point in time.",
            discussion: """
                A REMOTE volume's snapshot is complete at once. A LOCAL volume's is in progress: `cairn backup` fills it. \
                Several volumes must all be REMOTE; either all get a snapshot, or none does.
                """
        )

        @Argument(help: ArgumentHelp("The volumes.", valueName: "vol-…"))
        var volumes: [VolumeID]

        @Option(help: "What it is, for people; at most 1024 bytes.")
        var description = ""

        @Option(help: ArgumentHelp("A label; may be repeated.", valueName: "key=value"))
        var tag: [TagArgument] = []

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            guard let only = volumes.first, volumes.count == 1 else { return try await several(client) }
            let made = try await client.createSnapshot(of: only, note: description, tags: tag.dictionary)
            if connection.json { return Output.print(Output.json(CreatedSnapshotReport(made, of: only))) }
            Output.print(Create.line(made, only))
        }

        private func several(_ client: Client) async throws(ClientError) {
            let made = try await client.createSnapshots(of: volumes, note: description, tags: tag.dictionary)
            let pairs = zip(made, volumes)
            if connection.json {
                return Output.print(Output.json(pairs.map { CreatedSnapshotReport($0, of: $1) }))
            }
            for (made, volume) in pairs { Output.print(Create.line(made, volume)) }
        }

        private static func line(_ made: CreatedSnapshot, _ volume: VolumeID) -> String {
            "\(made.id)  (version \(made.dataVersion) of \(volume), \(made.state.rawValue))"
        }
    }

    struct List: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "List the account's snapshots, oldest first.")

        @Option(help: ArgumentHelp("Only those of this volume.", valueName: "vol-…"))
        var volume: VolumeID?

        @Option(help: ArgumentHelp("Only snapshots with this label; may be repeated.", valueName: "key=value"))
        var tag: [TagArgument] = []

        @Option(help: "Only those in this state: in_progress, complete, error or deleting.")
        var state: SnapshotState?

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let snapshots = try await client.snapshots(of: volume, tags: tag.dictionary, state: state).all()
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

        @Flag(help: "Show how much of it is whose, and what that means for an export.")
        var owners = false

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            var shown = try await client.describeSnapshot(snapshot)
            if waitSeal, shown.seal == .pending { shown = try await client.describeSealed(snapshot) }
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
                    ("seal", shown.isSealWithheld ? "withheld: see --owners" : Reports.seal(shown.seal)),
                    ("needs rebase", shown.needsRebase ? "yes: an earlier snapshot was cancelled" : nil),
                    ("still expected", shown.missing > 0 ? "\(shown.missing) chunks" : nil),
                    ("client's answer", shown.promptedProgress.map { "\($0) %" }),
                    ("last prompt", shown.isPromptUnanswered ? "got no answer" : nil),
                ])
            )
            if owners { Output.print("\n" + OwnerText.text(shown)) }
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
