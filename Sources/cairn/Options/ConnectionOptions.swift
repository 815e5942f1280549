import ArgumentParser
import CairnClient
import CairnSettings
import Foundation

/// Whom to talk to, as whom, and how to answer: what all commands but `pki` take.
struct ConnectionOptions: ParsableArguments {
    @OptionGroup var service: ServerOptions

    @Flag(help: "Print one JSON object or array, and errors as {\"error\": {\"reason\": …, \"text\": …}}.")
    var json = false

    @Option(help: "Connections to the server, 1 to 64. (default: one for each processor, from 2 to 4)")
    var connections: String?

    func validate() throws {
        if let connections, ConnectionOptions.count(connections) == nil {
            throw ValidationError("--connections takes 1 to 64.")
        }
    }

    static func count(_ text: String) -> Int? {
        Int(text).flatMap { (1...64).contains($0) ? $0 : nil }
    }

    /// The client that flags, environment and file describe together.
    /// - Parameter callLimit: how long a call may take where none of them says it; nil: as the library has it.
    func makeClient(callLimit: Duration?) throws(ClientError) -> Client {
        let settings = try service.merged(connections: connections)
        let endpoint = try settings.endpoint()
        let options = try ConnectionOptions.clientOptions(settings, callLimit: callLimit)
        return try Client(server: endpoint, credentials: settings.credentials, options: options)
    }

    static func clientOptions(_ settings: Settings.Merged, callLimit: Duration?) throws(ClientError) -> ClientOptions {
        var options = ClientOptions()
        if let callLimit { options.callLimit = callLimit }
        options.connections = ClientOptions.suggestedConnections(cores: ProcessInfo.processInfo.activeProcessorCount)
        if let text = settings.connections {
            guard let count = ConnectionOptions.count(text) else {
                throw ClientError(.configuration, "connections: '\(text)' is not 1 to 64")
            }
            options.connections = count
        }
        try settings.limitCalls(&options)
        return options
    }
}
