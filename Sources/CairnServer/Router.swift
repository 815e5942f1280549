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
    let throttle = Throttle()
    let counters = CallCounters()
}

/// Takes one identity's calls: lets them in, decodes each, hands it to the service, and encodes what comes back.
///
/// Runs on the connection's loop and never blocks there: the service works on its own threads.
final class Router: CallHandler {
    /// Calls that the server takes at once, over all connections. Every queue behind is bounded by it.
    private static let callsInFlight = 1 << 18
    /// Calls of one connection that may be answered on its loop at one go, before those of others: half a millisecond of work.
    private static let callsAtOnce = 256
    /// So many of them may read data. More are handed over together, so that processors share them.
    private static let readsAtOnce = 2

    let parts: RouterParts
    private let identity: PeerIdentity
    private let promptLine: ConnectionPromptLine
    var service: Service { parts.service }

    init(_ parts: RouterParts, identity: PeerIdentity, connection: RPCConnection) {
        self.parts = parts
        self.identity = identity
        promptLine = ConnectionPromptLine(connection)
    }

    func handle(_ call: IncomingCall) {
        let method = Wire.Method(rawValue: Int32(truncatingIfNeeded: call.method))
        if method == .getServerFacts || method == .getHealth, let account = identity.account {
            guard admit(call, account, bytes: call.requestBytes) else { return }
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
        // A download's answer counts as well: it is let in when its request has been read.
        guard method == .downloadBlock || admit(call, account, bytes: call.requestBytes) else { return }
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
            isCancelled: { call.isCancelled }
        )
    }

    /// Whether the call may begin; else it has been answered (SPEC R3).
    private func admit(_ call: IncomingCall, _ account: AccountID, bytes: Int) -> Bool {
        do throws(ServiceError) {
            guard parts.counters.inFlight <= Self.callsInFlight else {
                throw ServiceError(.throttled, "the server has too many calls in flight", retryAfter: .seconds(1))
            }
            let hold = try parts.throttle.admit(
                account,
                bytes: bytes,
                service.limits(of: account),
                now: DispatchTime.now().uptimeNanoseconds
            )
            if let hold { call.keep(hold) }
            return true
        } catch {
            call.fail(CallError(error))
            return false
        }
    }

    private func serve(_ call: IncomingCall, _ method: Wire.Method, _ context: CallContext) {
        switch method {
        case .createVolume: serve(call, context, service.createVolume)
        case .deleteVolume: serve(call, context, service.deleteVolume)
        case .describeVolume: serve(call, context, service.describeVolume)
        case .listVolumes: serve(call, context, service.listVolumes)
        case .resizeVolume: serve(call, context, service.resizeVolume)
        case .updateTags: serve(call, context, service.updateTags)
        case .attachVolume: serve(call, context, service.attachVolume)
        case .createSnapshot: serve(call, context, service.createSnapshot)
        case .createSnapshots: serve(call, context, service.createSnapshots)
        case .deleteSnapshot: serve(call, context, service.deleteSnapshot)
        case .describeSnapshot: serve(call, context, service.describeSnapshot)
        case .listSnapshots: serve(call, context, service.listSnapshots)
        case .snapshotProgress: serve(call, context, service.snapshotProgress)
        case .missingBlocks: serve(call, context, service.missingBlocks)
        case .uploadBlock: upload(call, context)
        case .downloadBlock: download(call, context)
        case .queryChunks: serve(call, context, service.queryChunks)
        case .writeZeroes: serve(call, context, service.writeZeroes)
        case .discard: serve(call, context, service.discard)
        case .renewLease: serve(call, context, service.renewLease)
        case .releaseLease: serve(call, context, service.releaseLease)
        case .flush: serve(call, context, service.flush)
        case .listBlocks: serve(call, context, service.listBlocks)
        case .listDamage: serve(call, context, service.listDamage)
        case .describeAccount: describeAccount(call, context)
        case .setAccountLimits, .listAccounts, .getMetrics, .startScrub, .getScrub:
            call.fail(CallError(ServiceError(.permissionDenied, "\(method.name) takes the operator's certificate")))
        case .createGrant: serve(call, context, service.createGrant)
        case .deleteGrant: serve(call, context, service.deleteGrant)
        case .listGrants: serve(call, context, service.listGrants)
        case .getUsage: serve(call, context, service.getUsage)
        case .listChangedBlocks: serve(call, context, service.listChangedBlocks)
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

    /// A call without a payload, either way.
    private func serve<Request: WireMessage, Response: WireMessage>(
        _ call: IncomingCall,
        _ context: CallContext,
        _ body: Served<Request, Response>
    ) {
        guard let request: Request = decode(call) else { return }
        guard call.payload == nil else {
            call.fail(CallError(ServiceError(.invalidArgument, "this method takes no payload")))
            return
        }
        body(request, context) { call.end($0) }
    }

    /// A call that is answered at once.
    func answer<Request: WireMessage>(_ call: IncomingCall, _ body: (Request) -> some WireMessage) {
        guard let request: Request = decode(call) else { return }
        call.reply(message: body(request).encode())
    }

    private func upload(_ call: IncomingCall, _ context: CallContext) {
        guard let request: Wire.UploadBlockRequest = decode(call) else { return }
        service.uploadBlock(request, payload: call.payload, context) { call.end($0) }
    }

    /// The largest answer is charged before any work, so that a slow reader holds only its own memory (DESIGN §3).
    private func download(_ call: IncomingCall, _ context: CallContext) {
        guard let request: Wire.DownloadBlockRequest = decode(call) else { return }
        let answerBytes = Service.largestAnswer(to: request)
        guard admit(call, context.account, bytes: call.requestBytes + answerBytes) else { return }
        let service = service
        call.chargeAnswer(answerBytes) {
            service.downloadBlock(request, context) { result in
                switch result {
                case .success(let download): call.reply(message: download.message.encode(), payload: download.payload)
                case .failure(let error): call.end(error)
                }
            }
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

    func decode<Request: WireMessage>(_ call: IncomingCall) -> Request? {
        do throws(WireError) {
            return try Request.decode(call.message)
        } catch {
            call.fail(CallError(error))
            return nil
        }
    }
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
