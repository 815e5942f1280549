internal import CairnCrypto
internal import CairnRPC
internal import CairnTransport
internal import CairnWire

/// One connection as the pool sees it: the seam behind which the tests put servers that fail on purpose.
protocol Link: AnyObject, Sendable {
    /// Whether new calls are taken.
    var isOpen: Bool { get }
    /// The server's encoded `cairn.v1.Hello`.
    var peerHello: [UInt8] { get }
    /// Makes a call; `completion` is called once and must not block. The answer cancels the call.
    func start(
        _ request: Request,
        completion: @escaping @Sendable (Result<Answer, RPCError>) -> Void
    ) -> @Sendable () -> Void
    func onClose(_ body: @escaping @Sendable (RPCError?) -> Void)
    func close()
}

extension RPCConnection: Link {
    func start(
        _ request: Request,
        completion: @escaping @Sendable (Result<Answer, RPCError>) -> Void
    ) -> @Sendable () -> Void {
        let token = call(request, completion: completion)
        return { self.cancel(token) }
    }
    func close() { close(status: 0, detail: []) }
}

/// Opens links. `instance` goes into the HELLO (SPEC C5).
typealias LinkOpener = @Sendable (_ instance: [UInt8]) async throws(RPCError) -> any Link

enum Links {
    /// Opens connections to a server over mutual TLS.
    static func opener(
        to endpoint: Endpoint,
        tls: TLSContext,
        options: ClientOptions,
        prompts: ProgressPrompts,
        loops: EventLoops
    ) -> LinkOpener {
        var configuration = RPCConfiguration()
        configuration.pingAfter = options.pingAfter
        configuration.pongWithin = options.pingAfter
        configuration.handshakeLimit = min(configuration.handshakeLimit, options.callLimit)
        let agreed = configuration
        let handler = PromptHandler(prompts)
        return { (instance: [UInt8]) async throws(RPCError) -> any Link in
            let hello = Wire.Hello(protocolVersion: 1, agent: options.agent, instanceID: instance)
            return try await RPCConnection.connect(
                to: endpoint,
                tls: tls,
                hello: hello.encode(),
                configuration: agreed,
                handler: handler,
                loops: loops
            )
        }
    }
}
