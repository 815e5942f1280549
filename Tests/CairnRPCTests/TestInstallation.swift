import CairnCore
import CairnCrypto
import CairnRPC
import CairnTransport
import CairnWire
import Foundation
import Synchronization

/// A certificate authority with a server's and a client's certificate, in a folder that goes with the process.
struct TestInstallation: Sendable {
    let folder: String
    let authority: CertificateAuthority
    let server: TLSFiles
    let client: TLSFiles

    static let shared = TestInstallation()

    init() {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("cairn-rpc-\(UUID().uuidString)").path
        TestInstallation.removeAtExit(folder)
        try! FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        authority = try! CertificateAuthority.create(in: folder + "/ca")
        let names: [AlternativeName] = [
            .dns("localhost"), .address(.init(text: "127.0.0.1")!), .address(.init(text: "::1")!),
        ]
        server = TestInstallation.files(try! authority.issueServer(CredentialName("server"), names: names), authority)
        client = TestInstallation.client(of: authority, "client")
    }

    static func files(_ credentials: CertificateAuthority.Credentials, _ authority: CertificateAuthority) -> TLSFiles {
        TLSFiles(
            authorities: [authority.certificatePath],
            certificate: credentials.certificatePath,
            privateKey: credentials.keyPath
        )
    }

    static func client(
        of authority: CertificateAuthority,
        _ name: String,
        validity: Validity = .days(1),
        uris: [String] = ["cairn://admin"]
    ) -> TLSFiles {
        files(
            try! authority.issue(
                CredentialName(name),
                role: .client,
                alternativeNames: uris.map { .uri($0) },
                validity: validity
            ),
            authority
        )
    }

    private static let folders = Mutex<[String]>([])
    private static func removeAtExit(_ folder: String) {
        let isFirst = folders.withLock { folders in
            folders.append(folder)
            return folders.count == 1
        }
        guard isFirst else { return }
        atexit {
            for folder in TestInstallation.folders.withLock({ $0 }) {
                try? FileManager.default.removeItem(atPath: folder)
            }
        }
    }
}

/// What the test servers can do.
enum TestMethod {
    static let echo: UInt32 = 1
    /// Answers with as many payload bytes as the message says (8 bytes), after charging them.
    static let download: UInt32 = 2
    /// Never answers by itself: until the caller gives up, or the test answers.
    static let hold: UInt32 = 3
    static let fail: UInt32 = 4
    static let drop: UInt32 = 5
    /// Echoes from another thread.
    static let echoElsewhere: UInt32 = 6
    /// Charges as many bytes as the message says for its answer, from another thread, then fails.
    static let chargeAndFail: UInt32 = 7
    /// Charges as many bytes as the message says for its answer, then never answers by itself.
    static let chargeAndHold: UInt32 = 8
}

final class TestHandler: CallHandler {
    let elsewhere = DispatchQueue(label: "test.handler")
    let held = Mutex<[IncomingCall]>([])
    let handled = Atomic<Int>(0)
    let abandoned = Atomic<Int>(0)
    /// Downloads that had their turn in the answer budget.
    let granted = Atomic<Int>(0)
    /// What becomes of calls that cost credit; nil: they are welcome.
    let reception = Mutex<(@Sendable (_ method: UInt32, _ bytes: Int) -> Reception)?>(nil)

    func expect(method: UInt32, bytes: Int) -> Reception {
        reception.withLock { $0 }?(method, bytes) ?? .welcome(nil)
    }

    func handle(_ call: IncomingCall) {
        handled.add(1, ordering: .relaxed)
        switch call.method {
        case TestMethod.echo: echo(call)
        case TestMethod.echoElsewhere: elsewhere.async { self.echo(call) }
        case TestMethod.download:
            let bytes = Self.bytes(call)
            call.chargeAnswer(bytes) {
                self.granted.add(1, ordering: .relaxed)
                let buffer = BufferPool.shared.buffer(capacity: max(1, bytes))
                buffer.count = bytes
                if bytes > 0 { buffer.memory[bytes - 1] = 0x5a }
                call.reply(message: [], payload: bytes > 0 ? [buffer.slice] : [])
            }
        case TestMethod.hold:
            held.withLock { $0.append(call) }
            call.onCancel {
                self.abandoned.add(1, ordering: .relaxed)
                call.abandon()
            }
        case TestMethod.chargeAndFail:
            elsewhere.async { call.chargeAnswer(Self.bytes(call)) { self.fail(call) } }
        case TestMethod.chargeAndHold:
            call.chargeAnswer(Self.bytes(call)) { self.held.withLock { $0.append(call) } }
        case TestMethod.fail: fail(call)
        default: break
        }
    }

    private static func bytes(_ call: IncomingCall) -> Int {
        Int(call.message.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
    }

    private func fail(_ call: IncomingCall) {
        let error = CallError(.invalidArgument, "as asked", blockIndex: 7)
        call.fail(status: error.status.rawValue, detail: error.detail.encode())
    }

    private func echo(_ call: IncomingCall) {
        call.reply(message: call.message, payload: call.payload.map { [$0] } ?? [])
    }

    func releaseHeld() {
        let calls = held.withLock { held in
            defer { held = [] }
            return held
        }
        for call in calls { call.reply(message: [1]) }
    }
}

/// Lets everybody in, or as the test says.
final class TestAuthenticator: Authenticator {
    let handler: TestHandler
    let decide: @Sendable (Applicant) -> Admission?
    let applicants = Mutex<[Applicant]>([])

    init(handler: TestHandler, decide: @escaping @Sendable (Applicant) -> Admission? = { _ in nil }) {
        self.handler = handler
        self.decide = decide
    }

    func authenticate(_ applicant: Applicant, decide answer: @escaping @Sendable (Admission) -> Void) {
        applicants.withLock { $0.append(applicant) }
        answer(
            decide(applicant)
                ?? .accept(context: "somebody", hello: Wire.Hello(agent: "test server").encode(), handler: handler)
        )
    }
}

/// A server on a free port with its own loop.
final class TestServer: Sendable {
    let handler = TestHandler()
    let authenticator: TestAuthenticator
    let server: RPCServer
    let endpoint: Endpoint

    init(
        files: TLSFiles = TestInstallation.shared.server,
        options: RPCServer.Options = RPCServer.Options(),
        loop: LoopKind = .thread,
        decide: @escaping @Sendable (Applicant) -> Admission? = { _ in nil }
    ) throws {
        authenticator = TestAuthenticator(handler: handler, decide: decide)
        server = RPCServer(
            tls: try TLSContext(.server, files: files),
            authenticator: authenticator,
            options: options,
            loops: EventLoops(count: 1, on: loop)
        )
        endpoint = try server.listen(at: Endpoint(host: "127.0.0.1", port: 0))
    }

    deinit { server.stop() }

    func connect(
        files: TLSFiles = TestInstallation.shared.client,
        configuration: RPCConfiguration = RPCConfiguration(),
        handler: (any CallHandler)? = nil,
        verifiedHost: String? = nil
    ) async throws -> RPCConnection {
        try await RPCConnection.connect(
            to: endpoint,
            tls: try TLSContext(.client, files: files),
            hello: Wire.Hello(agent: "test").encode(),
            configuration: configuration,
            verifiedHost: verifiedHost,
            handler: handler,
            loops: testClientLoops
        )
    }
}

let testClientLoops = EventLoops(count: 1)

/// Waits until `condition` holds; false after `limit`.
func eventually(within limit: Duration = .seconds(10), _ condition: @Sendable () -> Bool) async -> Bool {
    let end = ContinuousClock.now + limit
    while !condition() {
        guard ContinuousClock.now < end else { return false }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return true
}

func size(_ bytes: Int) -> [UInt8] { withUnsafeBytes(of: UInt64(bytes)) { Array($0) } }
