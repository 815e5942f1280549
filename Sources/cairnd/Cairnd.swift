import ArgumentParser
import CairnServer

@main struct Cairnd: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairnd",
        abstract: "The server of Cairn, a remote, volume-based block storage service.",
        discussion: """
            Exit codes: 0 ended as asked, 64 wrong usage, 69 the address cannot be listened on, 73 the store cannot be \
            made, 74 the store cannot be opened or served, 78 the configuration is wrong. `cairnd repair` has more.
            """,
        version: ServerVersion.text,
        subcommands: [Init.self, Serve.self, Repair.self]
    )
}

/// Exit codes after sysexits.h, as the help text lists them.
enum Exit {
    static let unavailable = ExitCode(69)
    static let cannotCreate = ExitCode(73)
    static let storeFailure = ExitCode(74)
    static let configuration = ExitCode(78)

    /// Says what went wrong on standard error and gives the code to end with.
    static func failing(_ text: String, _ code: ExitCode) -> ExitCode {
        StandardError.write("cairnd: \(text)\n")
        return code
    }
}
