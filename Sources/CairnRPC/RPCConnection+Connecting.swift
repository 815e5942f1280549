public import CairnCrypto
public import CairnTransport
internal import CairnWire

/// The client's way to a connection.
extension RPCConnection {
    /// Connects, proves who both sides are, and exchanges HELLOs. Cancelling the task gives up.
    /// - Parameters:
    ///   - hello: our encoded `cairn.v1.Hello`; its `limits` are set from the configuration.
    ///   - verifiedHost: the name or address that the server's certificate must carry; the endpoint's host unless given.
    ///   - handler: takes the server's calls (SPEC S10); nil: they are answered UNIMPLEMENTED.
    /// - Throws: `.unreachable`, `.insecure`, `.refused`, `.connectionLost`, `.protocolViolation`.
    public static func connect(
        to endpoint: Endpoint,
        tls: TLSContext,
        hello: [UInt8],
        configuration: RPCConfiguration = RPCConfiguration(),
        verifiedHost: String? = nil,
        handler: (any CallHandler)? = nil,
        loops: EventLoops = .shared
    ) async throws(RPCError) -> RPCConnection {
        guard let hello = configuration.limits.joined(to: hello) else {
            throw RPCError(.protocolViolation, delivery: .notSent, text: "the HELLO to send is none")
        }
        let loop = loops.next()
        let connection = RPCConnection(.client, loop: loop, configuration: configuration, hello: hello)
        let error: RPCError? = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                loop.execute {
                    connection.handler = handler
                    connection.opened = { continuation.resume(returning: $0) }
                    // Cancelled before it began?
                    guard !connection.hasEnded else {
                        connection.opened?(connection.endError ?? .givenUp)
                        connection.opened = nil
                        return
                    }
                    Connector.connect(
                        to: endpoint,
                        tls: tls,
                        verifiedHost: verifiedHost,
                        limit: configuration.handshakeLimit,
                        loop: loop,
                        owner: { connection },
                        failed: { connection.concluded(RPCError($0)) }
                    )
                }
            }
        } onCancel: {
            loop.execute { connection.abandonOpening() }
        }
        if let error { throw error }
        return connection
    }

    private func abandonOpening() {
        // Nothing was sent that could be carried out.
        guard helloDeadline != nil else {
            end(status: 0, detail: [])
            return
        }
        lost(.givenUp)
    }
}

extension RPCError {
    fileprivate static var givenUp: RPCError {
        RPCError(.cancelled, delivery: .notSent, text: "connecting was cancelled")
    }
}
