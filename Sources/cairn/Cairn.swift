import ArgumentParser

/// The command line client of Cairn.
@main
struct Cairn: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn",
        abstract: "Remote volumes and snapshots.",
        subcommands: [PKI.self]
    )
}
