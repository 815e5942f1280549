import ArgumentParser

/// The command line client of Cairn.
@main
struct Cairn: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn",
        abstract: "Remote volumes and snapshots.",
        discussion: """
            Whom to talk to, and as whom, is said by flags, by the environment (CAIRN_SERVER, CAIRN_IDENTITY, CAIRN_CERT, \
            CAIRN_KEY, CAIRN_CA, CAIRN_TIMEOUT, CAIRN_CONNECTIONS), or in $XDG_CONFIG_HOME/cairn/config (without that variable \
            ~/.config/cairn/config), with lines like

              server = storage.example.com:7440
              identity = /home/me/pki/app

            A flag wins over the environment, and that over the file. `identity = DIR/NAME` stands for DIR/NAME.crt, \
            DIR/NAME.key and DIR/ca.crt, as `cairn pki` makes them.

            Sizes are written like 20GiB, 512M or 1.5TiB; K, M, G and T are binary, KB, MB and GB decimal.

            \(ExitCodes.text)

            Completion for the shell: cairn --generate-completion-script bash (or zsh, fish).
            """,
        version: "cairn 0.1",
        subcommands: [
            VolumeCommands.self, SnapshotCommands.self, ImportCommand.self, ExportCommand.self, BackupCommand.self,
            RestoreCommand.self, DiffCommand.self, UsageCommand.self, GrantCommands.self, AccountCommands.self,
            DamageCommand.self, ScrubCommand.self, StatusCommand.self, PKI.self,
        ]
    )
}
