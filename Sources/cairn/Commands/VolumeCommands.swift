import ArgumentParser
import CairnClient
import CairnCore

struct VolumeCommands: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume",
        abstract: "Make, list, show, label, grow, attach, clear and delete volumes.",
        subcommands: [
            Create.self, List.self, Show.self, Tag.self, Resize.self, Attach.self, Discard.self, Delete.self,
        ]
    )
}

/// What a new volume is to be: shared by `volume create` and `import --new`.
struct NewVolumeOptions: ParsableArguments {
    @Option(help: "The chunks' size, a power of two from 4KiB to 4MiB. (default: the snapshot's, else the server's)")
    var chunkSize: ChunkSizeArgument?

    @Option(help: "Volumes with the same key share one deduplication dictionary.")
    var affinity: String?

    @Option(help: ArgumentHelp("A label; may be repeated.", valueName: "key=value"))
    var tag: [TagArgument] = []

    func apply(to new: inout NewVolume) {
        new.chunkSize = chunkSize?.size
        new.affinity = Array((affinity ?? "").utf8)
        new.tags = tag.dictionary
    }
}

extension VolumeCommands {
    struct Create: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Make a volume, empty or from a snapshot.")

        @Option(help: "How large, as in 20GiB. (default: the snapshot's size, else the server's default)")
        var size: ByteSize?

        @Option(name: .customLong("from"), help: ArgumentHelp("The snapshot to begin with.", valueName: "snap-…"))
        var snapshot: SnapshotID?

        @Flag(help: "The volume lives here, on this side; only its snapshots live on the service: see `cairn backup`.")
        var local = false

        @OptionGroup var options: NewVolumeOptions
        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            var new = NewVolume()
            new.kind = local ? .local : .remote
            new.size = size?.bytes
            new.snapshot = snapshot
            options.apply(to: &new)
            let made = try await client.createVolume(new)
            if connection.json { return Output.print(Output.json(CreatedVolumeReport(made))) }
            Output.print("\(made.id)  (\(ByteCount.text(made.size)), chunks of \(made.chunkSize))")
        }
    }

    struct List: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "List the account's volumes, oldest first.")

        @Option(help: ArgumentHelp("Only volumes with this label; may be repeated.", valueName: "key=value"))
        var tag: [TagArgument] = []

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let volumes = try await client.volumes(tags: tag.dictionary).all()
            if connection.json { return Output.print(Output.json(volumes.map { VolumeReport($0) })) }
            Output.print(
                Output.table(
                    ["VOLUME", "SIZE", "CHUNK", "KIND", "STATE", "CREATED", "TAGS"],
                    volumes.map { volume in
                        [
                            "\(volume.id)", ByteCount.text(volume.size), "\(volume.chunkSize)", volume.kind.rawValue,
                            volume.state.rawValue, Output.date(volume.createdAt.milliseconds),
                            Reports.tags(volume.tags),
                        ]
                    }
                )
            )
        }
    }

    struct Show: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Show one volume.")

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let volume = try await client.describeVolume(volume)
            if connection.json { return Output.print(Output.json(VolumeReport(volume))) }
            Output.print(
                Output.facts([
                    ("volume", "\(volume.id)"), ("account", volume.account), ("kind", volume.kind.rawValue),
                    ("state", volume.state.rawValue), ("size", "\(ByteCount.text(volume.size)) (\(volume.size) bytes)"),
                    ("chunk size", "\(volume.chunkSize)"), ("data version", "\(volume.dataVersion)"),
                    ("initial snapshot", volume.initialSnapshot.map { "\($0)" }),
                    ("made from", volume.sourceSnapshot.map { "\($0)" }),
                    ("affinity", volume.affinity.isEmpty ? nil : Reports.affinity(volume.affinity)),
                    ("tags", volume.tags.isEmpty ? nil : Reports.tags(volume.tags)),
                    ("attached", volume.attachment.generation == 0 ? nil : "generation \(volume.attachment)"),
                    ("created", Output.date(volume.createdAt.milliseconds)),
                ])
            )
        }
    }

    struct Resize: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Grow a volume.")

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @Option(help: "The new size, not below the present one.")
        var size: ByteSize

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let size = try await client.resizeVolume(volume, to: size.bytes)
            if connection.json { return Output.print(Output.json(ResizedReport(volumeId: "\(volume)", size: size))) }
            Output.print("\(volume)  (\(ByteCount.text(size)))")
        }
    }

    struct Delete: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "Delete a volume; its complete snapshots stay."
        )

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @Flag(help: "Cancel its snapshots that are in progress; without this they refuse the deletion.")
        var cancelSnapshots = false

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            try await client.deleteVolume(volume, cancellingSnapshots: cancelSnapshots)
            Output.print(connection.json ? Output.json(DeletedReport(deleted: "\(volume)")) : "deleted \(volume)")
        }
    }
}
