package import CairnCrypto
internal import Dispatch

#if canImport(Glibc)
    internal import Glibc
#endif

/// Makes connections to servers.
public enum Connector {
    /// Where name servers and slow hosts are waited for: never on a loop.
    private static let queue = DispatchQueue(label: "cairn.connect", attributes: .concurrent)

    /// Connects to the first of the endpoint's addresses that answers, and begins the handshake on `loop`.
    ///
    /// - Parameters:
    ///   - limit: for each of connecting and the handshake.
    ///   - verifiedHost: the name that the server's certificate must carry; the endpoint's host unless given.
    ///   - owner: makes the owner, on the loop; it hears of the connection's opening or failure.
    ///   - failed: called instead, on the loop, when there is no TCP connection.
    package static func connect(
        to endpoint: Endpoint,
        tls: TLSContext,
        verifiedHost: String? = nil,
        limit: Duration,
        loop: EventLoop,
        owner: @escaping @Sendable () -> any ConnectionOwner,
        failed: @escaping @Sendable (TransportError) -> Void
    ) {
        queue.async {
            do throws(TransportError) {
                let descriptor = try open(endpoint, deadline: EventLoop.now + limit.nanoseconds)
                loop.execute {
                    do throws(TLSError) {
                        let session = try TLSSession(
                            context: tls,
                            buffers: loop.buffers,
                            host: verifiedHost ?? endpoint.host
                        )
                        let connection = Connection(
                            loop: loop,
                            descriptor: descriptor,
                            peerAddress: "\(endpoint)",
                            session: session,
                            owner: owner(),
                            atEnd: nil
                        )
                        connection.start(handshakeLimit: limit)
                    } catch {
                        close(descriptor)
                        failed(TransportError(error))
                    }
                }
            } catch {
                loop.execute { failed(error) }
            }
        }
    }

    private static func open(_ endpoint: Endpoint, deadline: UInt64) throws(TransportError) -> Int32 {
        var last = TransportError(.unreachable, "\(endpoint): no address")
        for address in try SocketAddress.resolve(endpoint, listening: false) {
            do throws(TransportError) {
                return try open(address, endpoint, deadline: deadline)
            } catch {
                last = error
            }
        }
        throw last
    }

    private static func open(_ address: SocketAddress, _ endpoint: Endpoint, deadline: UInt64) throws(TransportError)
        -> Int32
    {
        let descriptor = try makeSocket(address.family)
        setNoDelay(descriptor)
        let result = address.withPointer { Glibc.connect(descriptor, $0, $1) }
        if result != 0 {
            let error = errno == EINPROGRESS ? wait(descriptor, deadline: deadline) : errno
            guard error == 0 else {
                close(descriptor)
                let code: TransportError.Code = error == ETIMEDOUT ? .timedOut : .unreachable
                throw TransportError(code, "connect to \(endpoint)", errno: error)
            }
        }
        return descriptor
    }

    /// Waits until the socket is connected: 0, or the error number.
    private static func wait(_ descriptor: Int32, deadline: UInt64) -> Int32 {
        while true {
            let now = EventLoop.now
            guard now < deadline else { return ETIMEDOUT }
            var watch = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            let count = poll(&watch, 1, Int32(min((deadline - now) / 1_000_000 + 1, 60_000)))
            if count < 0, errno != EINTR { return errno }
            guard count > 0 else { continue }
            var error: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            guard getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 else { return errno }
            return error
        }
    }
}
