import ArgumentParser
import CairnClient
import CairnCore

struct GrantCommands: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grant",
        abstract: "Share volumes, snapshots or all that the account has with other accounts.",
        discussion: """
            `use` lets the other account make volumes from it, write and snapshot those, and have the operator's compute \
            hosts read them; `export` lets it download the data as well. A grant on a volume covers its snapshots, one on the \
            account covers everything. A withdrawn grant does not count from the next call on.

              cairn grant create use snap-… --to bob
              cairn grant create export account --to auditor
              cairn grant delete use snap-… --to bob
            """,
        subcommands: [Create.self, Delete.self, List.self]
    )
}

/// What a grant says.
struct GrantOptions: ParsableArguments {
    @Argument(help: ArgumentHelp("What is permitted: use or export.", valueName: "use|export"))
    var permission: Permission

    @Argument(help: ArgumentHelp("What is shared.", valueName: "vol-…|snap-…|account"))
    var resource: ResourceArgument

    @Option(name: .customLong("to"), help: ArgumentHelp("The account that may.", valueName: "account"))
    var grantee: String

    func validate() throws {
        guard AccountID(grantee) != nil else { throw ValidationError("'\(grantee)' is no account ID.") }
    }
}

extension GrantCommands {
    struct Create: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Give another account a permission.")

        @OptionGroup var grant: GrantOptions
        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let made = try await client.createGrant(
                grant.permission,
                on: grant.resource.resource,
                to: grant.grantee
            )
            if connection.json { return Output.print(Output.json(GrantReport(made))) }
            Output.print("\(made.grantee) may \(made.permission.rawValue) \(Reports.resource(made.resource))")
        }
    }

    struct Delete: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Withdraw a permission.")

        @OptionGroup var grant: GrantOptions
        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            try await client.deleteGrant(grant.permission, on: grant.resource.resource, to: grant.grantee)
            let text =
                "\(grant.permission.rawValue) of \(Reports.resource(grant.resource.resource)) by \(grant.grantee)"
            Output.print(connection.json ? Output.json(DeletedReport(deleted: text)) : "withdrawn: \(text)")
        }
    }

    struct List: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the grants that this account made, or received."
        )

        @Flag(help: "Those that others gave to this account.")
        var received = false

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let grants = try await client.grants(received: received).all()
            if connection.json { return Output.print(Output.json(grants.map { GrantReport($0) })) }
            Output.print(
                Output.table(
                    ["PERMISSION", "RESOURCE", "FROM", "TO", "SINCE"],
                    grants.map { List.row($0) }
                )
            )
        }

        static func row(_ grant: Grant) -> [String] {
            [
                grant.permission.rawValue, Reports.resource(grant.resource), grant.grantor, grant.grantee,
                Output.date(grant.createdAt.milliseconds),
            ]
        }
    }
}

/// What `grant … --json` shows.
struct GrantReport: Encodable {
    let permission: String
    /// `vol-…`, `snap-…` or `account`.
    let resource: String
    let grantor: String
    let grantee: String
    let createdAt: String

    init(_ grant: Grant) {
        permission = grant.permission.rawValue
        resource = Reports.resource(grant.resource)
        grantor = grant.grantor
        grantee = grant.grantee
        createdAt = Output.date(grant.createdAt.milliseconds)
    }
}
