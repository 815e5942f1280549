import CairnCore
import CairnCrypto
import CairnRPC
import CairnService
import CairnWire
import Dispatch

/// What the routers of all connections share.
struct RouterParts: Sendable {
    let service: Service
    let facts: ServerFacts
    let throttle: Throttle
    let counters = CallCounters()
}

/// Takes one identity's calls: lets them in, decodes each, hands it to the service, and encodes what comes back.
///
/// Runs on the connection's loop and never blocks there: the service works on its own threads.
final class Router: CallHandler {
    /// Calls of one connection that may be answered on its loop at one go, before those of others: half a millisecond of work.
    private static let callsAtOnce = 256
    /// So many of them may read data. More are handed over together, so that processors share them.
    private static let readsAtOnce = 2

    let parts: RouterParts
    private let identity: PeerIdentity
    /// Nil for the operator, whose calls are let in as they come.
    private let throttled: ThrottledAccount?
    private let promptLine: ConnectionPromptLine
    /// Neither side's longest payload is exceeded: what the client's HELLO says, and ours.
    private let payloadLimit: Int
    var service: Service { parts.service }

    init(_ parts: RouterParts, identity: PeerIdentity, connection: RPCConnection) {
        self.parts = parts
        self.identity = identity
        throttled = identity.account.map { parts.throttle.account($0, now: DispatchTime.now().uptimeNanoseconds) }
        promptLine = ConnectionPromptLine(connection)
        payloadLimit = min(Int(connection.peerLimits.payloadBytes), Limits.payloadBytes)
    }

    /// A call is let in before its body is read, so that nobody has memory taken for more than is let in (SPEC R3).
    func expect(method: UInt32, bytes: Int) -> Reception {
        // No call of the operator has much to say.
        do throws(ServiceError) {
            return .welcome(try admission(bytes: bytes))
        } catch {
            let error = CallError(error)
            return .refusal(status: error.status.rawValue, detail: error.detail.encode())
        }
    }

    func handle(_ call: IncomingCall) {
        let method = Wire.Method(rawValue: Int32(truncatingIfNeeded: call.method))
        if call.hold == nil {
            do throws(ServiceError) {
                if let hold = try admission(bytes: call.requestBytes) { call.keep(hold) }
            } catch {
                return call.fail(CallError(error))
            }
        }
        switch method {
        case .getServerFacts:
            answer(call) { (_: Wire.GetServerFactsRequest) in self.parts.facts.answer(to: self.identity) }
            return
        case .getHealth:
            answer(call) { (_: Wire.GetHealthRequest) in self.service.health() }
            return
        default: break
        }
        guard let account = identity.account else { return serveOperator(call, method) }
        serve(call, method, context(of: account, call))
    }

    func context(of account: AccountID, _ call: IncomingCall) -> CallContext {
        let place = call.connection.callsAtOnce
        return CallContext(
            account: account,
            isHost: identity == .host(account),
            deadline: call.deadline,
            promptLine: promptLine,
            mayAnswerHere: place <= Self.callsAtOnce,
            mayReadHere: place <= Self.readsAtOnce,
            payloadLimit: payloadLimit,
            call: call
        )
    }

    /// - Throws: THROTTLED (SPEC R3).
    private func admission(bytes: Int) throws(ServiceError) -> Throttle.Hold? {
        guard let account = identity.account, let throttled else { return nil }
        let now = DispatchTime.now().uptimeNanoseconds
        return try parts.throttle.admit(throttled, bytes: bytes, service.limits(of: account), now: now)
    }

    private func serve(_ call: IncomingCall, _ method: Wire.Method, _ context: CallContext) {
        switch method {
        case .createVolume: serve(call, context, service.createVolume)
        case .deleteVolume: serve(call, context, service.deleteVolume)
        case .describeVolume: serve(call, context, service.describeVolume)
        case .listVolumes: serve(call, context, room: Self.page, service.listVolumes)
        case .resizeVolume: serve(call, context, service.resizeVolume)
        case .updateTags: serve(call, context, service.updateTags)
        case .attachVolume: serve(call, context, service.attachVolume)
        case .createSnapshot: serve(call, context, room: Service.listRoom, service.createSnapshot)
        case .createSnapshots: serve(call, context, service.createSnapshots)
        case .deleteSnapshot: serve(call, context, service.deleteSnapshot)
        case .describeSnapshot: serve(call, context, service.describeSnapshot)
        case .listSnapshots: serve(call, context, room: Self.page, service.listSnapshots)
        case .snapshotProgress: serve(call, context, service.snapshotProgress)
        case .missingBlocks: serve(call, context, room: Self.page, service.missingBlocks)
        case .uploadBlock: upload(call, context)
        case .downloadBlock: download(call, context)
        case .queryChunks: serve(call, context, service.queryChunks)
        case .writeZeroes: serve(call, context, service.writeZeroes)
        case .discard: serve(call, context, service.discard)
        case .renewLease: serve(call, context, service.renewLease)
        case .releaseLease: serve(call, context, service.releaseLease)
        case .flush: serve(call, context, service.flush)
        case .listBlocks: serve(call, context, room: Self.page, service.listBlocks)
        case .listDamage: serve(call, context, room: Self.page, service.listDamage)
        case .describeAccount: describeAccount(call, context)
        case .setAccountLimits, .listAccounts, .getMetrics, .startScrub, .getScrub:
            call.fail(CallError(ServiceError(.permissionDenied, "\(method.name) takes the operator's certificate")))
        case .createGrant: serve(call, context, service.createGrant)
        case .deleteGrant: serve(call, context, service.deleteGrant)
        case .listGrants: serve(call, context, room: Self.page, service.listGrants)
        case .getUsage: serve(call, context, room: Self.page, service.getUsage)
        case .listChangedBlocks: serve(call, context, room: Self.page, service.listChangedBlocks)
        default:
            call.fail(
                CallError(
                    ServiceError(.unimplemented, "this server does not know method \(call.method) (\(method.name))")
                )
            )
        }
    }

    typealias Served<Request, Response> =
        @Sendable (Request, CallContext, @escaping CairnService.Answer<Response>) -> Void

    /// The longest answer without a payload, for one that is a page of a list.
    private static func page(_ request: some WireMessage) -> Int { Limits.messageBytes }

    /// A call without a payload, either way.
    /// - Parameter room: see ``makeRoom(_:for:_:then:)``; 0 for what is small.
    private func serve<Request: WireMessage, Response: WireMessage>(
        _ call: IncomingCall,
        _ context: CallContext,
        room: (Request) -> Int = { _ in 0 },
        _ body: @escaping Served<Request, Response>
    ) {
        guard let request: Request = decode(call) else { return }
        let room = room(request)
        guard room > 0 else { return body(request, context) { call.end($0) } }
        makeRoom(room, for: call, context) { body(request, context) { call.end($0) } }
    }

    /// A call that is answered at once.
    func answer<Request: WireMessage>(_ call: IncomingCall, _ body: (Request) -> some WireMessage) {
        guard let request: Request = decode(call) else { return }
        call.reply(message: body(request).encode())
    }

    private func upload(_ call: IncomingCall, _ context: CallContext) {
        guard let request: Wire.UploadBlockRequest = decode(call, takesPayload: true) else { return }
        service.uploadBlock(request, payload: call.payload, context) { call.end($0) }
    }

    private func download(_ call: IncomingCall, _ context: CallContext) {
        guard let request: Wire.DownloadBlockRequest = decode(call) else { return }
        makeRoom(Service.largestAnswer(to: request), for: call, context) { [service] in
            service.downloadBlock(request, context) { result in
                switch result {
                case .success(let download): call.reply(message: download.message.encode(), payload: download.payload)
                case .failure(let error): call.end(error)
                }
            }
        }
    }

    /// Makes room for the largest answer, or for what the work on it takes, before any work: so that a slow reader stalls itself alone
    /// (DESIGN §3), and no account has more memory taken than it is let have (SPEC R3). Else the call is answered.
    private func makeRoom(
        _ bytes: Int,
        for call: IncomingCall,
        _ context: CallContext,
        then body: @escaping @Sendable () -> Void
    ) {
        call.chargeAnswer(bytes) {
            do throws(ServiceError) {
                try context.makeRoom(bytes)
            } catch {
                return call.fail(CallError(error))
            }
            body()
        }
    }

    private func describeAccount(_ call: IncomingCall, _ context: CallContext) {
        let body: Served<Wire.DescribeAccountRequest, Wire.DescribeAccountResponse> = {
            [service] request, context, answer in
            guard request.account.isEmpty || request.account == context.account.name else {
                return answer(
                    .failure(ServiceError(.permissionDenied, "other accounts are described to the operator alone"))
                )
            }
            service.describeAccount(request, context, answer: answer)
        }
        serve(call, context, body)
    }

    /// The call's message; nil where it was refused: it does not decode, or comes with a payload that the method does not take.
    func decode<Request: WireMessage>(_ call: IncomingCall, takesPayload: Bool = false) -> Request? {
        guard takesPayload || call.payload == nil else {
            call.fail(CallError(ServiceError(.invalidArgument, "this method takes no payload")))
            return nil
        }
        do throws(WireError) {
            return try Request.decode(call.message)
        } catch {
            call.fail(CallError(error))
            return nil
        }
    }
}

extension IncomingCall: OngoingCall {
    public func makeRoom(_ bytes: Int) throws(ServiceError) { try (hold as? Throttle.Hold)?.widen(by: bytes) }
}

extension IncomingCall {
    func end(_ result: Result<some WireMessage, ServiceError>) {
        switch result {
        case .success(let message): reply(message: message.encode())
        case .failure(let error): end(error)
        }
    }

    func end(_ error: ServiceError) {
        switch error.code {
        case .cancelled: abandon()
        // Its own answer: the service may have seen the deadline pass before the connection's timer did.
        default: fail(CallError(error))
        }
    }

    func fail(_ error: CallError) {
        fail(status: error.status.rawValue, detail: error.detail.encode())
    }
}
