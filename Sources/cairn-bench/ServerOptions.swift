import ArgumentParser
import CairnBench
import CairnClient
import CairnSettings
import CairnTransport

/// Whom to talk to, and as whom: the same flags, environment and file as `cairn`'s.
struct ServerOptions: ParsableArguments {
    @Option(help: "The server, HOST:PORT. (default port: 7440)")
    var server: String?

    @Option(help: "Who we are: DIR/NAME for DIR/NAME.crt, DIR/NAME.key and DIR/ca.crt.", completion: .file())
    var identity: String?

    @Option(help: "Our certificate, PEM.", completion: .file(extensions: ["crt", "pem"]))
    var cert: String?

    @Option(help: "Our certificate's private key, PEM.", completion: .file(extensions: ["key", "pem"]))
    var key: String?

    @Option(
        help: "The authority that signed the server's certificate, PEM.",
        completion: .file(extensions: ["crt", "pem"])
    )
    var ca: String?

    @Option(
        name: .customLong("also"),
        help: "Another account to work as, beside ours: DIR/NAME. May be repeated; connections are dealt out in turn.",
        completion: .file()
    )
    var others: [String] = []

    @Option(help: "How long a single call may take, repetitions included: 30s, 2m. (default: 60s)")
    var timeout: String?

    @Option(help: "Connections in all, 1 to 10,000. (default: 1)")
    var connections = 1

    func validate() throws {
        if let server, Parsing.endpoint(server) == nil { throw ValidationError("'\(server)' is no HOST:PORT.") }
        if let timeout, Parsing.duration(timeout) == nil {
            throw ValidationError("'\(timeout)' is no time like 30s or 2m.")
        }
        guard (1...10_000).contains(connections) else { throw ValidationError("--connections takes 1 to 10,000.") }
        guard others.count < connections else {
            throw ValidationError("each account needs a connection (--connections).")
        }
    }

    /// A client with one connection for each of ``connections``.
    func open() throws(ClientError) -> (clients: [Client], connections: [BenchConnection]) {
        var flags = Settings()
        flags.server = server
        flags.identity = identity
        flags.certificate = cert
        flags.key = key
        flags.authority = ca
        flags.timeout = timeout
        let settings = try Settings.merged(flags: flags)
        let endpoint = try settings.endpoint()
        let accounts = [settings.credentials] + others.map { Credentials(identity: $0) }
        var options = ClientOptions()
        options.connections = 1
        options.agent = "cairn-bench/0.1"
        if let limit = try settings.callLimit() {
            options.callLimit = limit
            options.connectLimit = min(options.connectLimit, limit)
        }
        var clients: [Client] = []
        for number in 0..<connections {
            let credentials = accounts[number % accounts.count]
            clients.append(try Client(server: endpoint, credentials: credentials, options: options))
        }
        return (clients, clients.enumerated().map { BenchConnection(client: $1, account: $0 % accounts.count) })
    }
}
