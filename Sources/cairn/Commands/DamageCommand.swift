import ArgumentParser
import CairnClient
import CairnCore

struct DamageCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "damage",
        abstract: "List what cannot be read of volumes and snapshots.",
        discussion: """
            Reading it ends in DATA_LOSS, never in other bytes. Uploading the same data again, with `cairn import` or \
            `cairn backup`, heals it wherever it is: in all volumes and snapshots of the account that hold it.

              cairn damage
              cairn damage snap-…
            """
    )

    @Argument(help: ArgumentHelp("Of which. (default: all that the account has)", valueName: "vol-…|snap-…"))
    var target: ResourceArgument?

    @OptionGroup var connection: ConnectionOptions

    func validate() throws {
        if target?.resource == .account { throw ValidationError("Give a volume, a snapshot, or nothing.") }
    }

    func run(with client: Client) async throws(ClientError) {
        let target: BlockTarget? =
            switch self.target?.resource {
            case .volume(let id): .volume(id)
            case .snapshot(let id): .snapshot(id)
            case .account, nil: nil
            }
        var found: [DamagedBlock] = []
        var pages = client.damage(of: target).makeAsyncIterator()
        while let block = try await pages.next(isolation: nil) { found.append(block) }
        if connection.json { return Output.print(Output.json(found.map { DamageReport($0) })) }
        if found.isEmpty { return Output.print("no damage is known") }
        Output.print(
            Output.table(
                ["WHERE", "OFFSET", "LENGTH", "TOKEN", "SINCE", "REASON"],
                found.map { block in
                    let report = DamageReport(block)
                    return [
                        report.target, "\(block.offset)", "\(block.length)",
                        report.token.map { String($0.prefix(16)) } ?? "-",
                        report.since, block.reason,
                    ]
                }
            )
        )
    }
}

/// What `damage --json` shows of each chunk.
struct DamageReport: Encodable {
    /// `vol-…` or `snap-…`.
    let target: String
    let offset: UInt64
    let length: Int
    let token: String?
    let since: String
    let reason: String

    init(_ block: DamagedBlock) {
        target =
            switch block.target {
            case .volume(let id): "\(id)"
            case .snapshot(let id): "\(id)"
            case .snapshotToken: "-"
            }
        (offset, length, reason) = (block.offset, block.length, block.reason)
        token = block.token.map { "\($0)" }
        since = Output.date(block.since.milliseconds)
    }
}
