public import CairnClient
public import CairnTransport
import Foundation

/// Where the server is and who we are, as one source of settings says it: flags, the environment, or the file.
public struct Settings: Equatable {
    public var server: String?
    public var identity: String?
    public var certificate: String?
    public var key: String?
    public var authority: String?
    public var timeout: String?
    public var connections: String?

    public struct Problem: Error, Equatable {
        public let text: String
    }

    private static let names: [(String, WritableKeyPath<Settings, String?> & Sendable)] = [
        ("server", \.server), ("identity", \.identity), ("cert", \.certificate), ("key", \.key), ("ca", \.authority),
        ("timeout", \.timeout), ("connections", \.connections),
    ]

    public init() {}

    /// `CAIRN_SERVER` and so on; an empty value is none.
    init(environment: [String: String]) {
        for (name, path) in Settings.names {
            if let value = environment["CAIRN_" + name.uppercased()], !value.isEmpty { self[keyPath: path] = value }
        }
    }

    /// Lines of `key = value`; a line that begins with `#` is a comment; `~/` at a path's start is the home folder.
    init(file text: String, name: String, home: String) throws(Problem) {
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let line = line.trimmingCharacters(in: .whitespaces)
            if line.isEmpty || line.hasPrefix("#") { continue }
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                .map { $0.trimmingCharacters(in: .whitespaces) }
            guard parts.count == 2, !parts[1].isEmpty else {
                throw Problem(text: "\(name), line \(number + 1): not `key = value`")
            }
            guard let (_, path) = Settings.names.first(where: { $0.0 == parts[0] }) else {
                let known = Settings.names.map(\.0).joined(separator: ", ")
                throw Problem(text: "\(name), line \(number + 1): `\(parts[0])` is none of \(known)")
            }
            guard self[keyPath: path] == nil else {
                throw Problem(text: "\(name), line \(number + 1): `\(parts[0])` for the second time")
            }
            self[keyPath: path] = parts[1].hasPrefix("~/") ? home + parts[1].dropFirst(1) : parts[1]
        }
    }

    /// The file's place: `$XDG_CONFIG_HOME/cairn/config`, else `~/.config/cairn/config`.
    static func filePath(environment: [String: String], home: String) -> String {
        let folder = environment["XDG_CONFIG_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? home + "/.config"
        return folder + "/cairn/config"
    }

    /// The certificate, key and authority of this source: each by its own name, else by the identity.
    private var files: (certificate: String?, key: String?, authority: String?) {
        let whole = identity.map { Credentials(identity: $0) }
        return (certificate ?? whole?.certificate, key ?? whole?.privateKey, authority ?? whole?.authorities)
    }

    /// All sources together, the strongest first.
    public struct Merged: Equatable, Sendable {
        public let server: String
        public let credentials: Credentials
        public let timeout: String?
        public let connections: String?
    }

    static func merge(_ sources: [Settings]) throws(Problem) -> Merged {
        let files = sources.map(\.files)
        guard let server = sources.compactMap(\.server).first else {
            throw Problem(
                text: "no server: give --server HOST:PORT, CAIRN_SERVER, or `server` in the configuration file"
            )
        }
        guard let certificate = files.compactMap(\.certificate).first, let key = files.compactMap(\.key).first,
            let authority = files.compactMap(\.authority).first
        else {
            throw Problem(text: "no credentials: give --identity DIR/NAME, or --cert, --key and --ca")
        }
        return Merged(
            server: server,
            credentials: Credentials(certificate: certificate, privateKey: key, authorities: authority),
            timeout: sources.compactMap(\.timeout).first,
            connections: sources.compactMap(\.connections).first
        )
    }

    /// Flags, then the environment, then the file: what they say together.
    /// - Throws: `configuration` where the file is unusable, or no server or no credentials are named.
    public static func merged(flags: Settings) throws(ClientError) -> Merged {
        let environment = ProcessInfo.processInfo.environment
        let home = environment["HOME"] ?? NSHomeDirectory()
        do throws(Problem) {
            let path = filePath(environment: environment, home: home)
            var file = Settings()
            if FileManager.default.fileExists(atPath: path) {
                guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
                    throw Problem(text: "\(path) cannot be read")
                }
                file = try Settings(file: text, name: path, home: home)
            }
            return try merge([flags, Settings(environment: environment), file])
        } catch {
            throw ClientError(.configuration, error.text)
        }
    }
}

extension Settings.Merged {
    /// - Throws: `configuration` where ``server`` is no address.
    public func endpoint() throws(ClientError) -> Endpoint {
        guard let endpoint = Parsing.endpoint(server) else {
            throw ClientError(.configuration, "'\(server)' is no HOST:PORT")
        }
        return endpoint
    }

    /// Has calls, and connecting, take no longer than ``timeout``, where that is said.
    /// - Throws: `configuration` where it is no time.
    public func limitCalls(_ options: inout ClientOptions) throws(ClientError) {
        guard let timeout else { return }
        guard let limit = Parsing.duration(timeout) else {
            throw ClientError(.configuration, "timeout: '\(timeout)' is no time like 30s or 2m")
        }
        options.callLimit = limit
        options.connectLimit = min(options.connectLimit, limit)
    }
}
