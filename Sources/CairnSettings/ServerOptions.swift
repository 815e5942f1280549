public import ArgumentParser
public import CairnClient

/// Whom to talk to, and as whom: the flags that all commands take which call a server.
public struct ServerOptions: ParsableArguments, Sendable {
    @Option(help: "The server, HOST:PORT. (default port: 7440)")
    public var server: String?

    @Option(help: "Who we are: DIR/NAME for DIR/NAME.crt, DIR/NAME.key and DIR/ca.crt.", completion: .file())
    public var identity: String?

    @Option(help: "Our certificate, PEM.", completion: .file(extensions: ["crt", "pem"]))
    public var cert: String?

    @Option(help: "Our certificate's private key, PEM.", completion: .file(extensions: ["key", "pem"]))
    public var key: String?

    @Option(
        help: "The authority that signed the server's certificate, PEM.",
        completion: .file(extensions: ["crt", "pem"])
    )
    public var ca: String?

    @Option(help: "How long a single call may take, repetitions included: 30s, 2m. (default: 60s; 30m for cairn usage)")
    public var timeout: String?

    public init() {}

    public func validate() throws {
        // The environment and the file are looked at when the command runs: their faults are no wrong usage.
        if let server, Parsing.endpoint(server) == nil { throw ValidationError("'\(server)' is no HOST:PORT.") }
        if let timeout, Parsing.duration(timeout) == nil {
            throw ValidationError("'\(timeout)' is no time like 30s or 2m.")
        }
    }

    /// What flags, environment and file say together.
    /// - Parameter connections: of `--connections`, where the command has it.
    /// - Throws: `configuration`, as ``Settings/merged(flags:)``.
    public func merged(connections: String? = nil) throws(ClientError) -> Settings.Merged {
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
