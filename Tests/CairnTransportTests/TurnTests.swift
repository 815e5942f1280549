import CairnCore
import CairnCrypto
import Foundation
import Synchronization
import Testing

@testable import CairnTransport

#if canImport(Glibc)
    import Glibc
#endif

/// How the connections of a loop share its turns (SPEC R3).
@Suite(.timeLimit(.minutes(5))) struct TurnTests {
    /// A socket's own buffer holds no more than this, unless the system is told otherwise.
    private static let socketBytes = 212_992
    private static let connections = 12

    /// What all connections of the loop under test have received, and how much that was when the first work was done.
    private final class Ledger: Sendable {
        let opened = Atomic<Int>(0)
        let received = Atomic<Int>(0)
        let atWork = Mutex<Int?>(nil)
        let isMeasured = Atomic<Bool>(false)
    }

    // Safety: used on its loop alone.
    private final class Side: ConnectionOwner, @unchecked Sendable {
        let ledger: Ledger
        let loop: EventLoop
        var connection: Connection?

        init(_ ledger: Ledger, _ loop: EventLoop) { (self.ledger, self.loop) = (ledger, loop) }

        func connectionStarted(_ connection: Connection) { self.connection = connection }
        func connectionOpened(_ connection: Connection, peer: PeerCertificate) {
            ledger.opened.add(1, ordering: .relaxed)
        }
        func connection(_ connection: Connection, received bytes: UnsafeRawBufferPointer) {
            let isFirst = ledger.received.add(bytes.count, ordering: .relaxed).oldValue == 0
            guard isFirst, ledger.isMeasured.load(ordering: .relaxed) else { return }
            loop.execute { [ledger] in ledger.atWork.withLock { $0 = ledger.received.load(ordering: .relaxed) } }
        }
        func readTarget(of connection: Connection) -> UnsafeMutableRawBufferPointer? { nil }
        func connection(_ connection: Connection, filled count: Int) {}
        func connectionPaused(_ connection: Connection) {}
        func connection(_ connection: Connection, sent total: UInt64) {}
        func connectionClosed(_ connection: Connection, error: TransportError?) { self.connection = nil }
    }

    private func eventually(_ condition: () -> Bool) async throws {
        let end = ContinuousClock.now + .seconds(60)
        while !condition() {
            try #require(ContinuousClock.now < end)
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    private static func contexts(in folder: String) throws -> (server: TLSContext, client: TLSContext) {
        let authority = try CertificateAuthority.create(in: folder)
        let server = try authority.issueServer(CredentialName("server"), names: [.dns("localhost")])
        let client = try authority.issueClient(CredentialName("client"), identity: .account(AccountID("a")!))
        func files(_ credential: CertificateAuthority.Credentials) -> TLSFiles {
            TLSFiles(
                authorities: [authority.certificatePath],
                certificate: credential.certificatePath,
                privateKey: credential.keyPath
            )
        }
        return (try TLSContext(.server, files: files(server)), try TLSContext(.client, files: files(client)))
    }

    /// A dozen connections have all they can hold when the loop looks: work that is handed over meanwhile does not wait for the last.
    @Test func workIsDoneBetweenThoseWhoSendMuch() async throws {
        let folder = NSTemporaryDirectory() + "cairn-turns-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let tls = try Self.contexts(in: folder)
        let (loop, peers) = (EventLoop(name: "turns"), EventLoop(name: "peers"))
        let (ledger, peerLedger) = (Ledger(), Ledger())
        var descriptors: [Int32] = []
        var senders: [Side] = []
        for _ in 0..<Self.connections {
            var pair: [Int32] = [0, 0]
            let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            try #require(socketpair(AF_UNIX, kind, 0, &pair) == 0)
            descriptors.append(pair[0])
            senders.append(Side(peerLedger, peers))
            Self.start(pair[0], Side(ledger, loop), tls.server, host: nil)
            Self.start(pair[1], senders.last!, tls.client, host: "localhost")
        }
        try await eventually {
            ledger.opened.load(ordering: .relaxed) + peerLedger.opened.load(ordering: .relaxed) == 2 * Self.connections
        }
        // The loop sleeps in its turn until every socket is full.
        let gate = DispatchSemaphore(value: 0)
        loop.execute { _ = gate.wait(timeout: .now() + 60) }
        ledger.isMeasured.store(true, ordering: .relaxed)
        let content = [UInt8](repeating: 7, count: 2 * Self.socketBytes)
        for sender in senders { peers.execute { sender.connection?.send { $0 += content } } }
        try await eventually {
            descriptors.allSatisfy { descriptor in
                var bytes: Int32 = 0
                return ioctl(descriptor, UInt(FIONREAD), &bytes) == 0 && bytes >= 64 << 10
            }
        }
        gate.signal()
        try await eventually { ledger.atWork.withLock { $0 } != nil }
        let seen = try #require(ledger.atWork.withLock { $0 })
        #expect(seen < 3 * Self.socketBytes, "work waited until \(seen) bytes were received")
        for sender in senders { peers.execute { sender.connection?.abort() } }
    }

    private static func start(_ descriptor: Int32, _ side: Side, _ tls: TLSContext, host: String?) {
        side.loop.execute {
            let session = try! TLSSession(context: tls, buffers: side.loop.buffers, host: host)
            let connection = Connection(
                loop: side.loop,
                descriptor: descriptor,
                peerAddress: "a pair",
                session: session,
                owner: side,
                atEnd: nil
            )
            connection.start(handshakeLimit: .seconds(60))
        }
    }
}
