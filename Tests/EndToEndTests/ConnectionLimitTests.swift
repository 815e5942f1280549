import CairnRPC
import CairnWire
import Testing

@Suite(.server("max-connections-per-account=2"))
struct ConnectionLimitTests {
    private let server = ServerProcess.shared

    /// What the refusal says of a connection that is one too many.
    private func refusal(_ body: () async throws -> Caller) async throws -> CallError? {
        do {
            _ = try await body()
            return nil
        } catch let error as RPCError where error.code == .refused {
            return CallError(status: error.status, detail: error.detail)
        }
    }

    @Test(
        "R3: an account and its hosts have so many connections and no more; others come in, and so do they when one ends"
    )
    func perAccount() async throws {
        let account = freshAccount()
        let host = try server.issue("host-\(account)", [.uri("cairn://account/\(account)/host")])
        let first = try await server.connect(account)
        let second = try await server.connect(host)
        for _ in 0..<3 {
            let error = try await refusal { try await server.connect(account) }
            #expect(error?.reason == .throttled && error?.isRetryable == true && error?.retryAfter != nil)
            #expect(error?.text.contains("2 connections") == true)
        }
        // Nobody else is meant.
        let other = try await server.connect(freshAccount())
        _ = try await other.createVolume()
        second.connection.close()
        // Its place is free once the server has seen that it is gone: the library tries again by itself.
        let client = try server.client(account)
        _ = try await client.serverFacts()
        withExtendedLifetime(first) {}
    }
}
