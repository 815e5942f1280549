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

    /// What all connections of a loop have received and sent.
    private final class Ledger: Sendable {
        let opened = Atomic<Int>(0)
        let moved = Atomic<Int>(0)
        let isMeasured = Atomic<Bool>(false)
        /// How much had been moved when something happened.
        let seen = Mutex<Int?>(nil)

        func see() {
            let moved = moved.load(ordering: .relaxed)
            seen.withLock { $0 = $0 ?? moved }
        }
    }

    // Safety: used on its loop alone.
    private final class Side: ConnectionOwner, @unchecked Sendable {
        let ledger: Ledger
        let loop: EventLoop
        let party: Int?
        /// Called once something is received while the ledger is measured.
        let whenReceived: @Sendable (Side) -> Void
        var connection: Connection?
        private var sent: UInt64 = 0

        init(
            _ ledger: Ledger,
            _ loop: EventLoop,
            party: Int? = nil,
            whenReceived: @escaping @Sendable (Side) -> Void = { _ in }
        ) {
            (self.ledger, self.loop, self.party, self.whenReceived) = (ledger, loop, party, whenReceived)
        }

        func connectionStarted(_ connection: Connection) { self.connection = connection }
        func connectionOpened(_ connection: Connection, peer: PeerCertificate) {
            if let party { connection.belongs(to: party) }
            ledger.opened.add(1, ordering: .relaxed)
        }
        func connection(_ connection: Connection, received bytes: UnsafeRawBufferPointer) {
            ledger.moved.add(bytes.count, ordering: .relaxed)
            if ledger.isMeasured.load(ordering: .relaxed) { whenReceived(self) }
        }
        func readTarget(of connection: Connection) -> UnsafeMutableRawBufferPointer? { nil }
        func connection(_ connection: Connection, filled count: Int) {}
        func connectionPaused(_ connection: Connection) {}
        func connection(_ connection: Connection, sent total: UInt64) {
            ledger.moved.add(Int(total - sent), ordering: .relaxed)
            sent = total
        }
        func connectionClosed(_ connection: Connection, error: TransportError?) { self.connection = nil }
    }

    private static func eventually(_ condition: () -> Bool) async throws {
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

    /// A loop with a dozen connections, and their peers on another.
    private struct Crowd: Sendable {
        let loop = EventLoop(name: "turns")
        let peers = EventLoop(name: "peers")
        let ledger = Ledger()
        let peerLedger = Ledger()
        var descriptors: [Int32] = []
        var sides: [Side] = []
        var senders: [Side] = []

        /// - Parameters:
        ///   - party: of the connection of this number.
        ///   - whenReceived: called with a connection's number and its side of the loop under test.
        init(
            _ count: Int,
            party: (Int) -> Int? = { _ in nil },
            whenReceived: @escaping @Sendable (Int, Side) -> Void = { _, _ in }
        ) async throws {
            let folder = NSTemporaryDirectory() + "cairn-turns-\(UUID().uuidString)"
            defer { try? FileManager.default.removeItem(atPath: folder) }
            let tls = try TurnTests.contexts(in: folder)
            for number in 0..<count {
                var pair: [Int32] = [0, 0]
                let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
                try #require(socketpair(AF_UNIX, kind, 0, &pair) == 0)
                descriptors.append(pair[0])
                sides.append(Side(ledger, loop, party: party(number)) { whenReceived(number, $0) })
                senders.append(Side(peerLedger, peers))
                TurnTests.start(pair[0], sides.last!, tls.server, host: nil)
                TurnTests.start(pair[1], senders.last!, tls.client, host: "localhost")
            }
            try await TurnTests.eventually { [ledger, peerLedger] in
                ledger.opened.load(ordering: .relaxed) + peerLedger.opened.load(ordering: .relaxed) == 2 * count
            }
        }

        /// Whether that much waits to be received by each of `descriptors`.
        static func hold(_ bytes: Int, _ descriptors: some Sequence<Int32>) -> Bool {
            descriptors.allSatisfy { descriptor in
                var waiting: Int32 = 0
                return ioctl(descriptor, UInt(FIONREAD), &waiting) == 0 && waiting >= bytes
            }
        }

        func close() { for sender in senders { peers.execute { sender.connection?.abort() } } }
    }

    /// The loop sleeps in its turn until every socket is full: work that is handed over meanwhile does not wait for the last of them.
    @Test func workIsDoneBetweenThoseWhoSendMuch() async throws {
        let crowd = try await Crowd(
            Self.connections,
            whenReceived: { _, side in side.loop.execute { [ledger = side.ledger] in ledger.see() } }
        )
        let seen = try await Self.moved(crowd, quiet: nil)
        #expect(seen < 3 * Self.socketBytes, "work waited until \(seen) bytes were received")
    }

    /// As many connections as a party may have, all full, share its turns: who has one of its own, and sent a byte after all of them,
    /// does not wait for the last of them.
    @Test func thoseWhoSendLittleDoNotWaitForAllConnectionsOfWhoSendsMuch() async throws {
        let quiet = Self.connections
        let crowd = try await Crowd(
            quiet + 1,
            party: { $0 == quiet ? 2 : 1 },
            whenReceived: { number, side in if number == quiet { side.ledger.see() } }
        )
        let seen = try await Self.moved(crowd, quiet: quiet)
        #expect(seen < 5 * Self.socketBytes, "a byte waited until \(seen) bytes were received")
    }

    /// Nor does work wait until all have been sent much.
    @Test func workIsDoneBetweenThoseWhoAreSentMuch() async throws {
        let crowd = try await Crowd(Self.connections)
        let content = [UInt8](repeating: 7, count: 2 * Self.socketBytes)
        crowd.loop.execute {
            crowd.ledger.moved.store(0, ordering: .relaxed)
            for side in crowd.sides { side.connection?.send { $0 += content } }
            crowd.loop.execute { crowd.ledger.see() }
        }
        // All of it arrives.
        try await Self.eventually {
            crowd.peerLedger.moved.load(ordering: .relaxed) >= Self.connections * content.count
        }
        let seen = try #require(crowd.ledger.seen.withLock { $0 })
        #expect(seen < 3 * Self.socketBytes, "work waited until \(seen) bytes were sent")
        crowd.close()
    }

    /// What the crowd's loop has moved when what is waited for happens, after it slept until every socket was full.
    /// - Parameter quiet: the connection that sends one byte, after the others, which is waited for.
    private static func moved(_ crowd: Crowd, quiet: Int?) async throws -> Int {
        let gate = DispatchSemaphore(value: 0)
        crowd.loop.execute { _ = gate.wait(timeout: .now() + 60) }
        crowd.ledger.moved.store(0, ordering: .relaxed)
        crowd.ledger.isMeasured.store(true, ordering: .relaxed)
        let content = [UInt8](repeating: 7, count: 2 * socketBytes)
        for (number, sender) in crowd.senders.enumerated() where number != quiet {
            crowd.peers.execute { sender.connection?.send { $0 += content } }
        }
        let full = crowd.descriptors.enumerated().filter { $0.offset != quiet }.map(\.element)
        try await eventually { Crowd.hold(64 << 10, full) }
        if let quiet {
            crowd.peers.execute { crowd.senders[quiet].connection?.send { $0.append(1) } }
            try await eventually { Crowd.hold(1, [crowd.descriptors[quiet]]) }
        }
        gate.signal()
        try await eventually { crowd.ledger.seen.withLock { $0 } != nil }
        defer { crowd.close() }
        return try #require(crowd.ledger.seen.withLock { $0 })
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
