import ArgumentParser

/// The load generator of Cairn.
@main
struct CairnBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn-bench",
        abstract: "Puts load on a Cairn server, and measures.",
        discussion: """
            Examples:
              cairn-bench run rand-upload --size 64KiB --connections 2 --in-flight 8 --seconds 10
              cairn-bench run describe --connections 8 --rate 20000 --json a.json --report a.html
              cairn-bench run all --repetitions 5 --json before.json
              cairn-bench compare before.json after.json
              cairn-bench ceilings

            Whom to talk to, and as whom, is said as for `cairn`: by flags, by the environment (CAIRN_SERVER, CAIRN_IDENTITY, \
            CAIRN_CERT, CAIRN_KEY, CAIRN_CA, CAIRN_TIMEOUT), or in the same file as `cairn` does. A flag wins over the environment, and \
            that over the file.

            Sizes are written like 64KiB, 4M or 1.5GiB; K, M, G and T are binary, KB, MB and GB decimal.

            Exit codes: 0 done; 1 operations failed, the server refused what a workload needs, or (compare --fail-on-change) \
            something changed; 64 wrong usage; 65 a file is no measurement; 69 something that is needed is missing on this machine; \
            78 the configuration is wrong; 130 interrupted, after the table.
            """,
        version: "cairn-bench 0.1",
        subcommands: [RunCommand.self, CompareCommand.self, ReportCommand.self, CeilingsCommand.self]
    )
}
