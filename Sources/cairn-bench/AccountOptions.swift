import ArgumentParser
import CairnBench
import CairnClient
import CairnSettings

/// Whom to talk to, as whom, and over how many connections.
struct AccountOptions: ParsableArguments {
    @OptionGroup var service: ServerOptions

    @Option(
        name: .customLong("also"),
        help: "Another account to work as, beside ours: DIR/NAME. May be repeated; connections are dealt out in turn.",
        completion: .file()
    )
    var others: [String] = []

    @Option(help: "Connections in all, 1 to 10,000. (default: 1)")
    var connections = 1

    func validate() throws {
        guard (1...10_000).contains(connections) else { throw ValidationError("--connections takes 1 to 10,000.") }
        guard others.count < connections else {
            throw ValidationError("each account needs a connection (--connections).")
        }
    }

    /// A client with one connection for each of ``connections``.
    func open() throws(ClientError) -> (clients: [Client], connections: [BenchConnection]) {
        let settings = try service.merged()
        let endpoint = try settings.endpoint()
        let accounts = [settings.credentials] + others.map { Credentials(identity: $0) }
        var options = ClientOptions()
        options.connections = 1
        options.agent = "cairn-bench/0.1"
        try settings.limitCalls(&options)
        var clients: [Client] = []
        for number in 0..<connections {
            let credentials = accounts[number % accounts.count]
            clients.append(try Client(server: endpoint, credentials: credentials, options: options))
        }
        return (clients, clients.enumerated().map { BenchConnection(client: $1, account: $0 % accounts.count) })
    }
}
