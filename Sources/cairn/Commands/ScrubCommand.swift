import ArgumentParser
import CairnClient
import CairnCore

struct ScrubCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "scrub",
        abstract: "Have the server read and check all of its data.",
        discussion: """
            The operator's: it needs a certificate from `cairn pki create-client … --admin`. The server does the same by itself, \
            slowly; this is for now. What is damaged is told to those whose data it is: `cairn damage`.

              cairn scrub --wait
              cairn scrub --status
            """
    )

    @Flag(help: "Begin nothing, show how it stands.")
    var status = false

    @Flag(help: "Wait until all is read.")
    var wait = false

    @Option(
        help: ArgumentHelp("The most bytes that each shard reads in a second. (default: no limit)", valueName: "size")
    )
    var rate: ByteSize?

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if status, rate != nil { throw ValidationError("--rate is for one that begins.") }
    }

    func run(with client: Client) async throws(ClientError) {
        if !status { try await client.startScrub(bytesPerSecond: rate?.bytes ?? 0) }
        var report = try await client.scrub()
        while wait, report.shards.contains(where: \.isRunning) {
            do { try await Task.sleep(for: .milliseconds(250)) } catch { throw ClientError(.cancelled, "interrupted") }
            report = try await client.scrub()
        }
        if connection.json { return Output.print(Output.json(ScrubFigures(report))) }
        Output.print(
            Output.table(
                ["SHARD", "STATE", "READ", "OF ABOUT", "FOUND", "DAMAGED", "LAST ENDED"],
                report.shards.map { shard in
                    [
                        "\(shard.index)", shard.isRunning ? (shard.isOnDemand ? "running" : "in background") : "idle",
                        ByteCount.text(shard.bytes), ByteCount.text(shard.totalBytes), "\(shard.found)",
                        "\(shard.damaged)", shard.finishedAt.map { Output.date($0.milliseconds) } ?? "-",
                    ]
                }
            )
        )
        for shard in report.shards {
            if let problem = shard.indexProblem {
                Output.print("shard \(shard.index): its index is damaged: \(problem)")
            }
        }
        for account in report.accounts {
            Output.print("\(account.name): \(account.chunks) chunks and \(account.parts) parts of chunks are damaged")
        }
    }
}

/// What `scrub --json` shows.
struct ScrubFigures: Encodable {
    struct Shard: Encodable {
        let shard: Int
        let running: Bool
        let onDemand: Bool
        let startedAt: String?
        let finishedAt: String?
        let bytes: UInt64
        let totalBytes: UInt64
        let found: UInt64
        let damaged: UInt64
        let indexProblem: String?
    }
    struct Account: Encodable {
        let account: String
        let chunks: UInt64
        let parts: UInt64
    }
    let shards: [Shard]
    let accounts: [Account]

    init(_ report: ScrubReport) {
        shards = report.shards.map { shard in
            Shard(
                shard: shard.index,
                running: shard.isRunning,
                onDemand: shard.isOnDemand,
                startedAt: shard.startedAt.map { Output.date($0.milliseconds) },
                finishedAt: shard.finishedAt.map { Output.date($0.milliseconds) },
                bytes: shard.bytes,
                totalBytes: shard.totalBytes,
                found: shard.found,
                damaged: shard.damaged,
                indexProblem: shard.indexProblem
            )
        }
        accounts = report.accounts.map { Account(account: $0.name, chunks: $0.chunks, parts: $0.parts) }
    }
}
