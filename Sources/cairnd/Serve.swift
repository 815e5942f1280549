import ArgumentParser
import CairnServer
import Dispatch
import Foundation
import Logging

struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve a store until SIGTERM or SIGINT.",
        discussion: """
            Settings are lines of the configuration file (`listen = 0.0.0.0:7440`); those listed here are flags too, and all can be \
            given with --set, which wins over flags, as these do over the file. README.md has the list ("Settings"). \
            SIGHUP reads certificates and the revocation list again; so does changing the files. When clients can come in, \
            one line `cairnd ready on ADDRESS:PORT` goes to standard output.
            """
    )

    @Option(help: "A file of `key = value` lines; `#` begins a comment.")
    var config: String?

    @Option(help: "The store's folder, as `cairnd init` made it.")
    var data: String?

    @Option(help: "ADDRESS:PORT; port 0 picks a free one. (default: 127.0.0.1:7440)")
    var listen: String?

    @Option(help: "The server's certificate, PEM.")
    var cert: String?

    @Option(help: "The server's key, PEM.")
    var key: String?

    @Option(help: "The authority whose clients may come in, PEM.")
    var ca: String?

    @Option(help: "The list of revoked certificates, PEM.")
    var crl: String?

    @Option(help: "trace, debug, info, notice, warning or error. (default: info)")
    var logLevel: String?

    @Option(
        name: .customLong("set"),
        help: "Any other setting as KEY=VALUE: loops, workers, max-connections, default-chunk-size, lease-seconds, …."
    )
    var settings: [String] = []

    func run() async throws {
        let configuration = try merged()
        guard let level = Logger.Level(rawValue: configuration.logLevel) else {
            throw Exit.failing("log-level: `\(configuration.logLevel)` is unknown", Exit.configuration)
        }
        LoggingSystem.bootstrap { LineLogHandler(label: $0, level: level) }
        let logger = Logger(label: "cairnd")
        let signals = Signals()
        let server: Server
        do {
            server = try Server.start(configuration, logger: logger)
        } catch {
            switch error.code {
            case .configuration: throw Exit.failing("\(error)", Exit.configuration)
            case .unavailable: throw Exit.failing("\(error)", Exit.unavailable)
            case .store: throw Exit.failing("\(error)", Exit.storeFailure)
            }
        }
        StandardOutput.write("cairnd ready on \(server.endpoint)\n")
        for await signal in signals.stream {
            if signal == SIGHUP { server.reloadCertificates() } else { break }
        }
        await server.stop()
    }

    private func merged() throws -> Configuration {
        do throws(ConfigurationError) {
            var configuration = Configuration()
            if let config {
                guard let text = try? String(contentsOfFile: config, encoding: .utf8) else {
                    throw ConfigurationError("\(config) cannot be read")
                }
                configuration = try Configuration(text: text, file: config)
            }
            for (key, value) in [
                ("data", data), ("listen", listen), ("cert", cert), ("key", key), ("ca", ca), ("crl", crl),
                ("log-level", logLevel),
            ] {
                if let value { try configuration.set(key, value) }
            }
            for setting in settings {
                let parts = setting.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard parts.count == 2 else { throw ConfigurationError("--set takes KEY=VALUE, not `\(setting)`") }
                try configuration.set(String(parts[0]), String(parts[1]))
            }
            if configuration.data.isEmpty { throw ConfigurationError("data: not set") }
            return configuration
        } catch {
            throw Exit.failing("\(error)", Exit.configuration)
        }
    }
}

/// SIGTERM, SIGINT and SIGHUP as a stream, instead of their default effect; none is lost from ``init()`` on.
///
/// A handler writes each to a pipe. A dispatch source of signals would be registered some time after it was activated, and
/// what comes until then would be gone.
private final class Signals {
    let stream: AsyncStream<Int32>
    /// The pipe's end that the handler writes to.
    nonisolated(unsafe) private static var target: Int32 = -1

    init() {
        let (stream, continuation) = AsyncStream<Int32>.makeStream()
        self.stream = stream
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no descriptors are left for a pipe")
        Self.target = ends[1]
        let source = ends[0]
        Thread.detachNewThread {
            var number: UInt8 = 0
            while read(source, &number, 1) == 1 { continuation.yield(Int32(number)) }
        }
        for number in [SIGTERM, SIGINT, SIGHUP] {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { number in
                // Only what a signal handler may do.
                let before = errno
                var byte = UInt8(truncatingIfNeeded: number)
                _ = write(Signals.target, &byte, 1)
                errno = before
            }
            action.sa_flags = SA_RESTART
            sigaction(number, &action, nil)
        }
    }
}
