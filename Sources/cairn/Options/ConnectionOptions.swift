import ArgumentParser
import CairnClient
import CairnSettings
import Foundation

/// Whom to talk to, as whom, and how to answer: what all commands but `pki` take.
struct ConnectionOptions: ParsableArguments {
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

    @Flag(help: "Print one JSON object or array, and errors as {\"error\": {\"reason\": …, \"text\": …}}.")
    var json = false

    @Option(help: "How long a single call may take, repetitions included: 30s, 2m. (default: 60s)")
    var timeout: String?

    @Option(help: "Connections to the server, 1 to 64. (default: 2, and 4 on four processors or more)")
    var connections: String?

    func validate() throws {
        // The environment and the file are looked at when the command runs: their faults are no wrong usage.
        if let server, Parsing.endpoint(server) == nil { throw ValidationError("'\(server)' is no HOST:PORT.") }
        if let timeout, Parsing.duration(timeout) == nil {
            throw ValidationError("'\(timeout)' is no time like 30s or 2m.")
        }
        if let connections, ConnectionOptions.count(connections) == nil {
            throw ValidationError("--connections takes 1 to 64.")
        }
    }

    static func count(_ text: String) -> Int? {
        Int(text).flatMap { (1...64).contains($0) ? $0 : nil }
    }

    /// The client that flags, environment and file describe together.
    func makeClient() throws(ClientError) -> Client {
        let settings = try merged()
        let endpoint = try settings.endpoint()
        var options = ClientOptions()
        options.connections = ClientOptions.suggestedConnections(cores: ProcessInfo.processInfo.activeProcessorCount)
        if let text = settings.connections {
            guard let count = ConnectionOptions.count(text) else {
                throw ClientError(.configuration, "connections: '\(text)' is not 1 to 64")
            }
            options.connections = count
        }
        if let limit = try settings.callLimit() {
            options.callLimit = limit
            options.connectLimit = min(options.connectLimit, limit)
        }
        return try Client(server: endpoint, credentials: settings.credentials, options: options)
    }

    private func merged() throws(ClientError) -> Settings.Merged {
        var flags = Settings()
        flags.server = server
        flags.identity = identity
        flags.certificate = cert
        flags.key = key
        flags.authority = ca
        flags.timeout = timeout
        flags.connections = connections
        return try Settings.merged(flags: flags)
    }
}
