import CairnCore
import CairnCrypto
import CairnWire
import Foundation

@testable import CairnRPC
@testable import CairnTransport

/// A connection of the real RPC layer, without a network: frames, fragments, answers, our own calls, time and the end, in any
/// order. Once all has been answered and sent, nothing is charged, held or in flight; after the end, everybody was told once.
enum SessionTarget {
    private static let loop = EventLoop(name: "fuzz")

    /// For a TLS session that nothing is ever asked of.
    private static let context: TLSContext = {
        let folder = NSTemporaryDirectory() + "cairn-fuzz-rpc-\(getpid())"
        ScratchFolders.removeAtExit(folder)
        // Nothing can be tried without one.
        let authority = try! CertificateAuthority.create(in: folder)
        let server = try! authority.issueServer(CredentialName("server"), names: [.dns("localhost")])
        let files = TLSFiles(
            authorities: [authority.certificatePath],
            certificate: server.certificatePath,
            privateKey: server.keyPath
        )
        return try! TLSContext(.server, files: files)
    }()

    static func run(_ bytes: UnsafeRawBufferPointer) {
        let context = context
        let done = DispatchSemaphore(value: 0)
        // Safety: the loop is waited for.
        nonisolated(unsafe) let bytes = bytes
        loop.execute {
            nonisolated(unsafe) weak var connection: RPCConnection?
            do {
                let run = SessionRun(bytes, loop, context)
                connection = run.connection
                run.play()
                run.finish()
            }
            // After what was given to send has been seen to.
            loop.execute {
                precondition(connection == nil, "a connection outlives its end")
                done.signal()
            }
        }
        done.wait()
    }
}

/// One input's connection, and what its two sides do.
private final class SessionRun {
    let connection: RPCConnection
    private let peer: FuzzPeer
    private let transport: Connection
    private var input: FuzzInput
    private var nextID: UInt64 = 1
    private var calls: [CallToken] = []

    init(_ bytes: UnsafeRawBufferPointer, _ loop: EventLoop, _ context: TLSContext) {
        input = FuzzInput(bytes)
        var configuration = RPCConfiguration()
        configuration.limits.messageBytes = 2048
        configuration.limits.payloadBytes = 4096
        configuration.limits.calls = 4
        configuration.limits.credit = 9000
        configuration.answerBudgetBytes = 3000
        configuration.waitingCalls = 8
        let role: Session.Role = input.flag() ? .client : .server
        connection = RPCConnection(role, loop: loop, configuration: configuration, hello: FuzzPeer.hello)
        peer = FuzzPeer()
        connection.handler = peer
        connection.authenticator = peer
        // Its handshake never ends: what it is given to send is dropped, and we say when it has left.
        transport = Connection(
            loop: loop,
            descriptor: -1,
            peerAddress: "nobody",
            session: try! TLSSession(context: context, buffers: TLSBuffers()),
            owner: connection,
            atEnd: nil
        )
        connection.connectionStarted(transport)
        let certificate = PeerCertificate(uriNames: [], notAfter: .max / 2, serial: "1", issuer: "", subject: "")
        connection.connectionOpened(transport, peer: certificate)
        if input.flag() { greet() }
    }

    /// Both HELLOs, so that most inputs get past them.
    private func greet() {
        receive(FrameHeader(.hello), FuzzPeer.hello, 0)
        peer.decide(accept: true)
    }

    func play() {
        while !input.isAtEnd {
            switch input.below(14) {
            case 0...3: frame()
            case 4: feed(input.bytes(1 + input.byte()))
            case 5: connection.connectionPaused(transport)
            case 6: connection.connection(transport, sent: .max)
            case 7, 8: peer.act(input.byte(), on: input.byte(), bytes: input.word() % 5000)
            case 9: call()
            case 10: if !calls.isEmpty { connection.cancel(calls[input.byte() % calls.count]) }
            case 11: connection.timePassed()
            case 12: peer.decide(accept: input.flag())
            default: end()
            }
        }
    }

    /// A frame with a header that makes sense by itself; what it means just now is another matter.
    private func frame() {
        let kind = FrameKind.allCases[input.below(FrameKind.allCases.count)]
        var header = FrameHeader(kind)
        var message: [UInt8] = []
        var payload = 0
        switch kind {
        case .request, .response:
            header.method = UInt32(input.below(4))
            header.value = kind == .request ? UInt32(input.byte()) * 100 : UInt32(input.below(4))
            message = [UInt8](repeating: 1, count: input.flag() ? input.word() % 5000 : 0)
            payload = header.value > 0 && kind == .response ? 0 : input.flag() ? input.word() % 6000 : 0
        case .hello, .goAway: message = Array(input.bytes(input.byte()))
        default: break
        }
        if kind == .goAway { header.value = UInt32(input.below(17)) }
        switch kind {
        case .hello, .goAway, .credit: break
        case .request:
            header.callID = input.below(8) == 0 ? UInt64(input.byte()) : nextID
            nextID += 1
        default: header.callID = UInt64(input.below(16))
        }
        // Mostly by the rules: what breaks them ends the connection.
        if kind == .goAway, header.value == 0, message.count % 8 != 7 { message = [] }
        if kind == .response, connection.session.role == .server, payload % 8 != 7 { payload = 0 }
        if kind != .hello, input.below(4) == 0 { header.credit = UInt32(input.word()) }
        receive(header, message, payload)
    }

    private func receive(_ header: FrameHeader, _ message: [UInt8], _ payload: Int) {
        var header = header
        header.messageBytes = UInt32(message.count)
        header.payloadBytes = UInt32(payload)
        var bytes: [UInt8] = []
        header.encode(to: &bytes)
        bytes += message + [UInt8](repeating: 2, count: payload)
        bytes.withUnsafeBytes { feed($0) }
    }

    /// As the transport gives bytes: to the place that is wanted, or as they come.
    private func feed(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !connection.hasEnded, !rest.isEmpty {
            let target = connection.readTarget(of: transport)
            let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(target?.count ?? rest.count))
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(piece.count))
            if let target {
                target.copyMemory(from: piece)
                connection.connection(transport, filled: piece.count)
            } else {
                connection.connection(transport, received: piece)
            }
        }
    }

    private func call() {
        var request = Request(
            method: UInt32(input.below(4)),
            message: [UInt8](repeating: 3, count: input.word() % 3000)
        )
        if input.flag() { request.timeout = .milliseconds(input.byte()) }
        let peer = peer
        peer.made += 1
        calls.append(connection.call(request) { _ in peer.completed += 1 })
    }

    private func end() {
        switch input.below(6) {
        case 0: connection.drain()
        case 1:
            peer.retirements += 1
            connection.retire { [peer] in peer.retired += 1 }
        case 2: connection.close(status: UInt32(input.below(17)))
        case 3: connection.connectionClosed(transport, error: nil)
        default: break
        }
    }

    func finish() {
        // All of the peer's calls are answered, and the answers leave: some have room only when others have left.
        for _ in 0..<64 {
            while !peer.held.isEmpty { peer.act(0, on: 0, bytes: 10) }
            connection.connection(transport, sent: .max)
            if peer.held.isEmpty, connection.undelivered.isEmpty, connection.served.isEmpty, connection.marks.isEmpty { break }
        }
        if !connection.hasEnded {
            precondition(connection.served.isEmpty && connection.undelivered.isEmpty, "a call of the peer's is left")
            precondition(connection.marks.isEmpty && connection.reserveBytes == 0, "what has left still counts")
            precondition(connection.budget.used == 0, "the budget is charged for nothing")
            precondition(connection.session.callee.inFlight == 0, "a slot is taken by nobody")
        }
        connection.close()
        while !peer.held.isEmpty { peer.act(0, on: 0, bytes: 10) }
        precondition(connection.served.isEmpty && connection.outgoing.isEmpty, "a call outlives its connection")
        precondition(peer.completed == peer.made, "of \(peer.made) calls, \(peer.completed) were completed")
        precondition(peer.retired == peer.retirements || connection.awaitsDecision, "retirement was not told")
        peer.forget()
        transport.abort()
    }
}

/// The service behind the connection: it holds each call until the input says what becomes of it.
// Safety: used on the loop alone.
private final class FuzzPeer: CallHandler, Authenticator, @unchecked Sendable {
    static let hello = Wire.Hello(
        protocolVersion: 1,
        limits: Wire.SessionLimits(maxMessageBytes: 2048, maxPayloadBytes: 4096, maxCalls: 3, initialCredit: 7000)
    ).encode()

    var held: [IncomingCall] = []
    var made = 0
    var completed = 0
    var retirements = 0
    var retired = 0
    private var decision: (@Sendable (Admission) -> Void)?

    func handle(_ call: IncomingCall) { held.append(call) }

    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void) { decision = decide }

    func decide(accept: Bool) {
        let decide = decision
        decision = nil
        decide?(accept ? .accept(context: 1, hello: Self.hello, handler: self) : .refuse(status: 7, detail: []))
    }

    func forget() { decision = nil }

    /// What the handler does with one of the calls that it holds.
    func act(_ action: Int, on index: Int, bytes: Int) {
        guard !held.isEmpty else { return }
        let call = held[index % held.count]
        switch action % 8 {
        case 0, 1: take(call).reply(message: [UInt8](repeating: 4, count: bytes))
        case 2: take(call).fail(status: 13, detail: [])
        case 3: take(call).abandon()
        case 4: _ = take(call)
        case 5: call.releaseRequest()
        case 6:
            // From here on it is answered when its turn comes, or for us.
            let charged = take(call)
            charged.chargeAnswer(bytes) { charged.reply(message: [], payload: [Self.payload.slice.part(0..<bytes)]) }
        // One that is dropped must go, and so may not hold on to itself.
        default: call.onCancel { [weak call] in _ = call?.isCancelled }
        }
    }

    private static let payload = Buffer(copying: [UInt8](repeating: 5, count: 5000))

    private func take(_ call: IncomingCall) -> IncomingCall {
        held.removeAll { $0 === call }
        return call
    }
}
