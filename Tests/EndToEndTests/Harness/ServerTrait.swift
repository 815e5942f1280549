import Testing

/// Gives a suite one running server, which its tests find as ``ServerProcess/shared``.
struct ServerTrait: SuiteTrait, TestScoping {
    let shards: Int
    let settings: [String]

    func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @Sendable () async throws -> Void
    ) async throws {
        let server = try await ServerProcess.started(shards: shards, settings: settings)
        try await ServerProcess.$suiteServer.withValue(server) { try await function() }
        if server.child.isRunning { _ = try await server.stop() }
    }
}

extension SuiteTrait where Self == ServerTrait {
    static func server(shards: Int = 2, _ settings: String...) -> ServerTrait {
        ServerTrait(shards: shards, settings: settings)
    }
}

extension ServerProcess {
    @TaskLocal static var suiteServer: ServerProcess?

    /// The suite's server.
    static var shared: ServerProcess { suiteServer! }
}

/// A name of an account that no other test uses.
func freshAccount(_ prefix: String = "acct") -> String { "\(prefix)-\(UInt32.random(in: .min ... .max))" }
