import CairnCore
import CairnCrypto
import CairnRPC
import CairnTransport
import CairnWire
import Testing

@testable import CairnClient

/// A server that answers GetServerFacts by first asking its caller for a snapshot's progress.
private final class AskingServer: Authenticator, CallHandler {
    private let snapshot: SnapshotID
    init(_ snapshot: SnapshotID) { self.snapshot = snapshot }

    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void) {
        decide(.accept(context: "somebody", hello: Wire.Hello(agent: "asking").encode(), handler: self))
    }

    func handle(_ call: IncomingCall) {
        let prompt = Wire.PromptProgressRequest(snapshotID: snapshot.bytes)
        let request = Request(
            method: UInt32(Wire.Method.promptProgress.rawValue),
            message: prompt.encode(),
            timeout: .seconds(30)
        )
        call.connection.call(request) { result in
            let told =
                switch result {
                case .success(let answer):
                    (try? Wire.PromptProgressResponse.decode(answer.message)).map { "\($0.percent)" } ?? "nonsense"
                case .failure(let error): "\(CallError(answered: error)?.reason ?? .unspecified)"
                }
            call.reply(message: Wire.GetServerFactsResponse(identity: told).encode())
        }
    }
}

struct PromptTests {
    private static func ask(_ callback: (@Sendable (SnapshotID) async -> UInt32)?) async throws -> String {
        let folder = TemporaryFolder()
        let authority = try CertificateAuthority.create(in: folder.file("pki"))
        let server = try authority.issueServer(CredentialName("server"), names: [.address(.init(text: "127.0.0.1")!)])
        let client = try authority.issueClient(CredentialName("app"), identity: .account(AccountID("acme")!))
        let snapshot = SnapshotID(.random(shard: ShardIndex(3)))
        let files = TLSFiles(
            authorities: [authority.certificatePath],
            certificate: server.certificatePath,
            privateKey: server.keyPath
        )
        let listener = RPCServer(
            tls: try TLSContext(.server, files: files),
            authenticator: AskingServer(snapshot),
            loops: EventLoops(count: 1)
        )
        defer { listener.stop() }
        var options = ClientOptions()
        if let callback { options.onProgressPrompt = { id in id == snapshot ? await callback(id) : 101 } }
        let caller = try Client(
            server: try listener.listen(at: Endpoint(host: "127.0.0.1", port: 0)),
            credentials: Credentials(
                certificate: client.certificatePath,
                privateKey: client.keyPath,
                authorities: authority.certificatePath
            ),
            options: options
        )
        defer { caller.close() }
        return try await limited { try await caller.serverFacts().identity }
    }

    @Test("S10: the client answers the server's prompt from its callback")
    func callback() async throws {
        #expect(try await Self.ask { _ in 37 } == "37")
        // Also one that takes its time.
        let slow = try await Self.ask { _ in
            try? await Task.sleep(for: .milliseconds(50))
            return 250
        }
        #expect(slow == "100")
    }

    @Test("S10: without a callback the client says that it knows no prompts")
    func none() async throws {
        #expect(try await Self.ask(nil) == "UNKNOWN_METHOD")
    }
}
