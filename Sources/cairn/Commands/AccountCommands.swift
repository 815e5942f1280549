import ArgumentParser
import CairnClient
import CairnCore

struct AccountCommands: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "account",
        abstract: "Show accounts, their usage and their limits; set the limits.",
        discussion: """
            `show` without a name is about the caller's own account. The rest is the operator's: it needs a certificate from \
            `cairn pki create-client … --admin`.

              cairn account show
              cairn account limit acme --volumes 100 --stored 2TiB --requests none
            """,
        subcommands: [List.self, Show.self, Limit.self]
    )
}

extension AccountCommands {
    struct List: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "List all accounts that have anything here.")

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let accounts = try await client.accounts().all()
            if connection.json { return Output.print(Output.json(accounts)) }
            if !accounts.isEmpty { Output.print(accounts.joined(separator: "\n")) }
        }
    }

    struct Show: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Show an account's usage and limits.")

        @Argument(help: ArgumentHelp("The account. (default: the caller's own)", valueName: "account"))
        var account: String?

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            AccountCommands.show(try await client.describeAccount(account), connection)
        }
    }

    struct Limit: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "Set an account's limits.",
            discussion: """
                What is not given stays as it is. `none` takes a limit away. With --defaults alone the account has the server's \
                defaults again, also when these change later; with limits, these are set on top of the defaults of now.
                """
        )

        @Argument(help: ArgumentHelp("The account.", valueName: "account"))
        var account: String

        @Option(help: ArgumentHelp("How many volumes.", valueName: "count|none"))
        var volumes: CountLimit?

        @Option(help: ArgumentHelp("How many snapshots.", valueName: "count|none"))
        var snapshots: CountLimit?

        @Option(help: ArgumentHelp("The sum of the volumes' sizes.", valueName: "size|none"))
        var logical: ByteLimit?

        @Option(help: ArgumentHelp("What its data takes on disk.", valueName: "size|none"))
        var stored: ByteLimit?

        @Option(help: ArgumentHelp("Requests a second.", valueName: "count|none"))
        var requests: CountLimit?

        @Option(help: ArgumentHelp("Bytes of requests and answers under way at once.", valueName: "size|none"))
        var inFlight: ByteLimit?

        @Flag(help: "Begin with the server's defaults.")
        var defaults = false

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            guard AccountID(account) != nil else { throw ValidationError("'\(account)' is no account ID.") }
            if isEmpty, !defaults { throw ValidationError("Give at least one limit.") }
        }

        private var isEmpty: Bool {
            volumes == nil && snapshots == nil && logical == nil && stored == nil && requests == nil && inFlight == nil
        }

        func run(with client: Client) async throws(ClientError) {
            if defaults { try await client.setLimits(nil, of: account) }
            guard !isEmpty else {
                return AccountCommands.show(try await client.describeAccount(account), connection)
            }
            var limits = try await client.describeAccount(account).limits
            limits.volumes = volumes?.value ?? limits.volumes
            limits.snapshots = snapshots?.value ?? limits.snapshots
            limits.logicalBytes = logical?.value ?? limits.logicalBytes
            limits.storedBytes = stored?.value ?? limits.storedBytes
            limits.requestsPerSecond = requests?.value ?? limits.requestsPerSecond
            limits.bytesInFlight = inFlight?.value ?? limits.bytesInFlight
            try await client.setLimits(limits, of: account)
            AccountCommands.show(try await client.describeAccount(account), connection)
        }
    }

    fileprivate static func show(_ account: Account, _ connection: ConnectionOptions) {
        if connection.json { return Output.print(Output.json(AccountReport(account))) }
        let (usage, limits) = (account.usage, account.limits)
        Output.print(
            Output.facts([
                ("account", account.name), ("volumes", of("\(account.volumes)", limits.volumes) { "\($0)" }),
                ("snapshots", of("\(account.snapshots)", limits.snapshots) { "\($0)" }),
                ("logical", of(ByteCount.text(usage.logical), limits.logicalBytes, ByteCount.text)),
                ("unique", ByteCount.text(usage.unique)),
                ("stored", of(ByteCount.text(usage.stored), limits.storedBytes, ByteCount.text)),
                ("requests/s", limits.requestsPerSecond == 0 ? "no limit" : "at most \(limits.requestsPerSecond)"),
                (
                    "in flight",
                    limits.bytesInFlight == 0 ? "no limit" : "at most \(ByteCount.text(limits.bytesInFlight))"
                ),
            ])
        )
    }

    /// What there is, and what there may be.
    private static func of(_ text: String, _ limit: UInt64, _ show: (UInt64) -> String) -> String {
        limit == 0 ? text : "\(text) of at most \(show(limit))"
    }
}

/// What `account … --json` shows; a limit of 0 is none.
struct AccountReport: Encodable {
    struct Limits: Encodable {
        let volumes: UInt64
        let snapshots: UInt64
        let logicalBytes: UInt64
        let storedBytes: UInt64
        let requestsPerSecond: UInt64
        let bytesInFlight: UInt64
    }
    let account: String
    let volumes: UInt64
    let snapshots: UInt64
    let usage: UsageFigures
    let limits: Limits

    init(_ account: Account) {
        self.account = account.name
        volumes = account.volumes
        snapshots = account.snapshots
        usage = UsageFigures(account.usage)
        limits = Limits(
            volumes: account.limits.volumes,
            snapshots: account.limits.snapshots,
            logicalBytes: account.limits.logicalBytes,
            storedBytes: account.limits.storedBytes,
            requestsPerSecond: account.limits.requestsPerSecond,
            bytesInFlight: account.limits.bytesInFlight
        )
    }
}
