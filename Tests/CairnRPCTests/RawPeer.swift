import CairnCore
import CairnCrypto
import CairnTransport
import CairnWire
import Foundation
import Synchronization

/// A client that speaks TLS well and frames as it likes: for all that a decent client does not do.
// Safety: what changes is confined to the loop or behind the mutex.
final class RawPeer: ConnectionOwner, @unchecked Sendable {
    struct Seen {
        var frames: [Frame] = []
        var isOpen = false
        var isClosed = false
        var error: TransportError?
    }
    let seen = Mutex(Seen())
    let loop: EventLoop
    private var connection: Connection?
    private var decoder = FrameDecoder(messageLimit: 1 << 20, payloadLimit: 16 << 20)
    private let hold = DispatchSemaphore(value: 0)
    /// 0: no, 1: at the next bytes, 2: stalled once.
    private let stalls = Atomic<Int>(0)

    init(loop: EventLoop = EventLoop(name: "raw")) { self.loop = loop }

    static func connect(to endpoint: Endpoint, loop: EventLoop = EventLoop(name: "raw")) async throws -> RawPeer {
        let peer = RawPeer(loop: loop)
        Connector.connect(
            to: endpoint,
            tls: try TLSContext(.client, files: TestInstallation.shared.client),
            limit: .seconds(10),
            loop: peer.loop,
            owner: { peer },
            failed: { error in peer.seen.withLock { ($0.isClosed, $0.error) = (true, error) } }
        )
        _ = await eventually { peer.seen.withLock { $0.isOpen || $0.isClosed } }
        return peer
    }

    /// Connects and exchanges HELLOs.
    static func greeted(_ endpoint: Endpoint, loop: EventLoop = EventLoop(name: "raw")) async throws -> RawPeer {
        let peer = try await connect(to: endpoint, loop: loop)
        peer.send(RawPeer.hello)
        _ = await eventually { peer.seen.withLock { !$0.frames.isEmpty || $0.isClosed } }
        return peer
    }

    static let hello: [UInt8] = {
        var message = Wire.Hello(protocolVersion: 1, agent: "raw")
        message.limits = Wire.SessionLimits(
            maxMessageBytes: 1 << 20,
            maxPayloadBytes: 16 << 20,
            maxCalls: 1024,
            initialCredit: 32 << 20
        )
        return frame(FrameHeader(.hello), message.encode())
    }()

    static func frame(_ header: FrameHeader, _ message: [UInt8] = [], _ payload: [UInt8] = []) -> [UInt8] {
        var header = header
        header.messageBytes = UInt32(message.count)
        header.payloadBytes = UInt32(payload.count)
        var bytes: [UInt8] = []
        header.encode(to: &bytes)
        return bytes + message + payload
    }

    func send(_ bytes: some Sequence<UInt8> & Sendable) {
        loop.execute { self.connection?.send { $0.append(contentsOf: bytes) } }
    }
    func close() {
        loop.execute { self.connection?.abort() }
    }
    /// Stops reading when bytes come next, by stopping the whole loop, until `goOn`.
    func stallAtNextBytes() { stalls.store(1, ordering: .relaxed) }
    var hasStalled: Bool { stalls.load(ordering: .relaxed) == 2 }
    func goOn() { hold.signal() }

    func responses() -> [FrameHeader] { seen.withLock { $0.frames.map(\.header).filter { $0.kind == .response } } }
    /// The reason in the GOAWAY that the server sent.
    var farewell: CallError? {
        seen.withLock { seen in
            seen.frames.last { $0.header.kind == .goAway }.map {
                CallError(status: $0.header.value, detail: $0.message)
            }
        }
    }
    func waitForClose(within limit: Duration = .seconds(10)) async -> Bool {
        await eventually(within: limit) { self.seen.withLock { $0.isClosed } }
    }

    func connectionStarted(_ connection: Connection) { self.connection = connection }
    func connectionOpened(_ connection: Connection, peer: PeerCertificate) { seen.withLock { $0.isOpen = true } }
    func readTarget(of connection: Connection) -> UnsafeMutableRawBufferPointer? { nil }
    func connection(_ connection: Connection, filled count: Int) {}
    func connectionPaused(_ connection: Connection) {}
    func connection(_ connection: Connection, sent total: UInt64) {}
    func connection(_ connection: Connection, received bytes: UnsafeRawBufferPointer) {
        if stalls.compareExchange(expected: 1, desired: 2, ordering: .relaxed).exchanged { hold.wait() }
        var input = bytes
        while let step = try? decoder.next(in: &input) {
            switch step {
            case .needsInput: return
            case .header: continue
            case .frame(let frame): seen.withLock { $0.frames.append(frame) }
            }
        }
    }
    func connectionClosed(_ connection: Connection, error: TransportError?) {
        self.connection = nil
        seen.withLock { ($0.isClosed, $0.error) = (true, error) }
    }
}

/// This process's anonymous memory in bytes.
func residentBytes() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon") } ?? ""
    return (Int(line.filter(\.isNumber)) ?? 0) << 10
}
