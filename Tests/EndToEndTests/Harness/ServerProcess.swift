import CairnClient
import CairnCore
import CairnCrypto
import CairnTransport
import Foundation
import Synchronization

/// A real `cairnd` over a store and an authority of its own; ended by its process ID when the last reference goes.
final class ServerProcess: Sendable {
    let folder: WorkFolder
    let authority: CertificateAuthority
    private let settings: [String]
    private let process = Mutex<ChildProcess?>(nil)
    private let bound = Mutex<Endpoint?>(nil)

    let store: String
    /// Beside the tests' own.
    private let environment: [String: String]
    var pki: String { folder.file("pki") }

    /// Makes the authority and an empty store; starts nothing.
    /// - Parameters:
    ///   - settings: `key=value`, as `cairnd serve --set` takes them.
    ///   - store: where it is made; a folder of its own unless given.
    ///   - environment: of the servers, beside the tests' own; made with the folder for it.
    init(
        shards: Int = 2,
        settings: [String] = [],
        store: String? = nil,
        environment: (WorkFolder) throws -> [String: String] = { _ in [:] }
    ) async throws {
        folder = try WorkFolder()
        self.settings = settings
        self.store = store ?? folder.file("store")
        self.environment = try environment(folder)
        authority = try CertificateAuthority.create(in: folder.file("pki"))
        _ = try authority.issueServer(
            CredentialName("server"),
            names: [.dns("localhost"), .address(.init(text: "127.0.0.1")!)]
        )
        try await require(
            Program.cairnd,
            ["init", "--data", self.store, "--shards", "\(shards)", "--segment-size", "32MiB"],
            in: folder
        )
    }

    deinit { process.withLock { $0?.send(SIGKILL) } }

    /// A server that is ready.
    static func started(shards: Int = 2, settings: [String] = []) async throws -> ServerProcess {
        let server = try await ServerProcess(shards: shards, settings: settings)
        try await server.start()
        return server
    }

    var serveArguments: [String] { serveArguments(port: 0) }

    private func serveArguments(port: UInt16) -> [String] {
        [
            "serve", "--data", store, "--listen", "127.0.0.1:\(port)", "--cert", pki + "/server.crt", "--key",
            pki + "/server.key",
            "--ca", authority.certificatePath, "--crl", authority.revocationListPath,
        ] + settings.flatMap { ["--set", $0] }
    }

    /// Starts, and waits for the ready line.
    /// - Parameter sameAddress: whether it listens where it did before, so that clients find it again.
    func start(sameAddress: Bool = false) async throws {
        let child = try launch(sameAddress: sameAddress)
        let prefix = "cairnd ready on "
        try await eventually("cairnd is ready; it said: \(child.errors.suffix(1000))", within: .seconds(30)) {
            guard child.isRunning else { throw HarnessError("cairnd ended: \(child.errors.suffix(2000))") }
            return child.output.hasPrefix(prefix) && child.output.contains("\n")
        }
        let text = child.output.dropFirst(prefix.count).prefix { $0 != "\n" }
        guard let endpoint = Endpoint(text: String(text)) else { throw HarnessError("no address: \(text)") }
        bound.withLock { $0 = endpoint }
    }

    /// Starts, and waits for nothing.
    @discardableResult
    func launch(sameAddress: Bool = false) throws -> ChildProcess {
        let port = sameAddress ? endpoint.port : 0
        let arguments = serveArguments(port: port)
        let child = try ChildProcess(Program.cairnd, arguments, environment: environment, in: folder)
        process.withLock { $0 = child }
        return child
    }

    var child: ChildProcess { process.withLock { $0! } }
    var endpoint: Endpoint { bound.withLock { $0! } }
    var pid: Int32 { child.pid }
    var log: String { child.errors }

    /// SIGTERM, and waits for the end.
    @discardableResult
    func stop() async throws -> ChildProcess.Outcome {
        child.send(SIGTERM)
        return try await child.wait(limit: .seconds(45))
    }

    /// SIGKILL, and waits for the end.
    func crash() async throws {
        child.send(SIGKILL)
        _ = try await child.wait(limit: .seconds(10))
    }

    /// Anonymous memory in bytes.
    var anonymousMemory: Int { status("RssAnon:") }
    /// The most memory that it had since ``forgetPeak()``, in bytes, the files' included.
    var peakMemory: Int { status("VmHWM:") }

    func forgetPeak() throws {
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: "/proc/\(pid)/clear_refs"))
        try handle.write(contentsOf: Data("5".utf8))
        try handle.close()
    }

    private func status(_ field: String) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(field) } ?? ""
        return (Int(line.filter(\.isNumber)) ?? 0) << 10
    }

    // MARK: Clients

    /// A certificate of an account: made at its first use.
    func credentials(_ account: String) throws -> Credentials {
        let identity = folder.file("pki/\(account)")
        if !FileManager.default.fileExists(atPath: identity + ".crt") {
            _ = try authority.issueClient(CredentialName(account), identity: .account(AccountID(account)!))
        }
        return Credentials(
            certificate: identity + ".crt",
            privateKey: identity + ".key",
            authorities: authority.certificatePath
        )
    }

    /// A certificate with any names, or lifetime.
    func issue(_ name: String, _ names: [AlternativeName], validity: Validity = .days(1)) throws -> Credentials {
        let issued = try authority.issue(
            CredentialName(name),
            role: .client,
            alternativeNames: names,
            validity: validity
        )
        return Credentials(
            certificate: issued.certificatePath,
            privateKey: issued.keyPath,
            authorities: authority.certificatePath
        )
    }

    /// The library's client.
    func client(_ account: String, _ options: ClientOptions = ClientOptions()) throws -> Client {
        try Client(server: endpoint, credentials: try credentials(account), options: options)
    }

    /// What the `cairn` command needs to find the server as `account`.
    func environment(_ account: String) throws -> [String: String] {
        let files = try credentials(account)
        return [
            "CAIRN_SERVER": endpoint.description, "CAIRN_CERT": files.certificate, "CAIRN_KEY": files.privateKey,
            "CAIRN_CA": files.authorities, "HOME": folder.path,
        ]
    }

    /// Runs `cairn` as `account`.
    func cairn(
        _ account: String,
        _ arguments: [String],
        input: ChildProcess.Input = .nothing,
        limit: Duration = .seconds(60)
    ) async throws -> ChildProcess.Outcome {
        try await run(
            Program.cairn,
            arguments,
            environment: try environment(account),
            input: input,
            limit: limit,
            in: folder
        )
    }

    /// Starts `cairn` as `account`.
    func startCairn(_ account: String, _ arguments: [String], input: ChildProcess.Input = .nothing) throws
        -> ChildProcess
    {
        try ChildProcess(Program.cairn, arguments, environment: try environment(account), input: input, in: folder)
    }
}

extension ServerProcess {
    /// What the store's segment files take on disk.
    func logBytes() throws -> Int {
        try files(under: store, ending: ".seg").reduce(0) { sum, path in
            var facts = stat()
            guard stat(path, &facts) == 0 else { return sum }
            return sum + Int(facts.st_blocks) * 512
        }
    }

    /// Bytes that the server has written, to files and sockets, since it started.
    var writtenBytes: Int {
        get throws {
            let text = try String(contentsOfFile: "/proc/\(pid)/io", encoding: .utf8)
            let line = text.split(separator: "\n").first { $0.hasPrefix("wchar:") } ?? ""
            guard let count = Int(line.filter(\.isNumber)) else { throw HarnessError("/proc/\(pid)/io has no wchar") }
            return count
        }
    }

    func files(under folder: String, ending suffix: String) throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: folder).filter { $0.hasSuffix(suffix) }.map {
            folder + "/" + $0
        }
    }
}
