import ArgumentParser
import CairnClient
import CairnCore

struct UsageCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "usage",
        abstract: "Show how much space volumes and snapshots take, and what deleting them would free.",
        discussion: """
            Without a target: the whole account. `logical` is the sum of sizes, `unique` the distinct chunks, uncompressed, \
            `stored` what those take on disk. The total counts once what several targets share.

              cairn usage
              cairn usage snap-… snap-… --freed
            """
    )

    @Argument(help: ArgumentHelp("Volumes and snapshots.", valueName: "vol-…|snap-…"))
    var targets: [OriginArgument] = []

    @Flag(help: "Also tell what deleting all of these together would free.")
    var freed = false

    @Option(help: "Also tell what this affinity key would have saved.")
    var affinity: String?

    @OptionGroup var connection: ConnectionOptions

    /// Counting walks manifests: the server itself ends it after so long.
    var callLimit: Duration? { .seconds(1800) }

    func validate() throws {
        if freed, targets.isEmpty { throw ValidationError("--freed needs volumes or snapshots.") }
        if affinity == "" { throw ValidationError("--affinity takes a key.") }
    }

    func run(with client: Client) async throws(ClientError) {
        let usage = try await client.usage(
            of: targets.map(\.target),
            freed: freed,
            affinity: Array((affinity ?? "").utf8)
        )
        if connection.json { return Output.print(Output.json(UsageListReport(usage, targets))) }
        let total = UsageCommand.row(targets.isEmpty ? "account" : "total", usage.total)
        let each = zip(targets, usage.each).map { UsageCommand.row($0.text, $1) }
        Output.print(Output.table(["", "LOGICAL", "UNIQUE", "STORED"], each + [total]))
        if let freed = usage.freedBytes { Output.print("deleting these would free \(ByteCount.text(freed))") }
        if let savings = usage.affinitySavingsBytes {
            Output.print("the affinity key `\(affinity ?? "")` would have saved \(ByteCount.text(savings))")
        }
    }

    private static func row(_ name: String, _ usage: Usage) -> [String] {
        [name, ByteCount.text(usage.logical), ByteCount.text(usage.unique), ByteCount.text(usage.stored)]
    }
}

/// In bytes.
struct UsageFigures: Encodable {
    let logicalBytes: UInt64
    let uniqueBytes: UInt64
    let storedBytes: UInt64

    init(_ usage: Usage) {
        logicalBytes = usage.logical
        uniqueBytes = usage.unique
        storedBytes = usage.stored
    }
}

/// What `usage --json` shows.
struct UsageListReport: Encodable {
    struct Target: Encodable {
        let target: String
        let usage: UsageFigures
    }
    let total: UsageFigures
    let targets: [Target]
    let freedBytes: UInt64?
    let affinitySavingsBytes: UInt64?

    init(_ usage: UsageReport, _ targets: [OriginArgument]) {
        total = UsageFigures(usage.total)
        self.targets = zip(targets, usage.each).map { Target(target: $0.text, usage: UsageFigures($1)) }
        freedBytes = usage.freedBytes
        affinitySavingsBytes = usage.affinitySavingsBytes
    }
}
