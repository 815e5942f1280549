import CairnClient
import CairnCrypto
import CairnRPC
import CairnWire
import Foundation
import Synchronization

/// Many connections of one account, which share what can be shared on their side.
final class Crowd: Sendable {
    let tls: TLSContext
    private let server: ServerProcess
    private let callers = Mutex<[Caller]>([])
    /// At once, so that each has its time for the handshake on a busy machine.
    private static let lanes = 16

    init(_ server: ServerProcess, _ account: String = freshAccount("crowd")) throws {
        self.server = server
        let files = try server.credentials(account)
        tls = try TLSContext(
            .client,
            files: TLSFiles(
                authorities: [files.authorities],
                certificate: files.certificate,
                privateKey: files.privateKey
            )
        )
    }

    /// Opens so many, each of which makes a call, and then none.
    func open(_ count: Int) async throws {
        let hello = Wire.Hello(protocolVersion: 1, agent: "crowd").encode()
        try await Self.inLanes(count) { _ in
            let caller = Caller(
                try await RPCConnection.connect(to: self.server.endpoint, tls: self.tls, hello: hello)
            )
            try await Self.call(caller)
            self.callers.withLock { $0.append(caller) }
        }
    }

    func callAll() async throws {
        let callers = callers.withLock { $0 }
        try await Self.inLanes(callers.count) { try await Self.call(callers[$0]) }
    }

    /// Closes all, and waits until the server has let go of them.
    func close() async throws {
        let open = server.descriptorCount
        let count = callers.withLock { callers in
            defer { callers = [] }
            return callers.count
        }
        try await eventually("the server lets go of \(count) connections", within: .seconds(60)) {
            self.server.descriptorCount <= open - count
        }
    }

    private static func call(_ caller: Caller) async throws {
        _ = try await caller.call(Wire.GetServerFactsRequest(), timeout: .seconds(60))
    }

    private static func inLanes(_ count: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<min(count, lanes) {
                group.addTask { for index in stride(from: lane, to: count, by: lanes) { try await body(index) } }
            }
            try await group.waitForAll()
        }
    }
}

extension ServerProcess {
    /// Files and sockets that the server has open.
    var descriptorCount: Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count) ?? 0
    }
}
