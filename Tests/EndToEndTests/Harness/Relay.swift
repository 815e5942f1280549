import CairnTransport
import Foundation
import Synchronization

/// Stands between clients and a server, and loses connections as a network does: the client learns of it, the server does
/// not, and gets late what was on its way.
final class Relay: Sendable {
    /// Where clients find it.
    let endpoint: Endpoint
    private let listener: PlainSocket
    private let taken = Mutex<[Line]>([])

    /// Relays until ``stop()``.
    init(to server: Endpoint) throws {
        let listener = try PlainSocket(listening: 16)
        self.listener = listener
        endpoint = listener.endpoint
        Thread.detachNewThread { self.serve(server) }
    }

    /// A client's connections, in their order.
    var lines: [Line] { taken.withLock { $0 } }

    /// Ends all connections, and takes no more.
    func stop() {
        listener.shut()
        for line in lines { line.end() }
    }

    private func serve(_ server: Endpoint) {
        while let client = listener.next() {
            guard let ours = try? PlainSocket(to: server) else { continue }
            let line = Line(client: client, server: ours)
            taken.withLock { $0.append(line) }
            Thread.detachNewThread { line.carryUp() }
            Thread.detachNewThread { line.carryDown() }
        }
    }

    /// A client's connection, and the one to the server in its place.
    final class Line: Sendable {
        private struct State {
            var isHolding = false
            var isCut = false
            /// What the client has sent, and the server has not got.
            var held: [UInt8] = []
            var passedBytes = 0
            var hasServerEnded = false
        }
        private let client: PlainSocket
        private let server: PlainSocket
        private let state = Mutex(State())

        fileprivate init(client: PlainSocket, server: PlainSocket) {
            (self.client, self.server) = (client, server)
        }

        /// Bytes that the client has sent, and the server has not got.
        var heldBytes: Int { state.withLock { $0.held.count } }
        /// Bytes that the server has got.
        var passedBytes: Int { state.withLock { $0.passedBytes } }
        /// Whether the server has closed its end.
        var hasServerEnded: Bool { state.withLock { $0.hasServerEnded } }

        /// From here on the server gets nothing.
        func hold() { state.withLock { $0.isHolding = true } }

        /// The server gets what was held, also after a cut, and then what follows.
        func release() {
            state.withLock { state in
                state.isHolding = false
                pass(state.held, &state)
                state.held = []
            }
        }

        /// The client loses its connection; the server does not hear of it.
        func cut() {
            state.withLock { $0.isCut = true }
            client.shut()
        }

        fileprivate func end() {
            client.shut()
            server.shut()
        }

        fileprivate func carryUp() {
            while let bytes = client.receive() {
                state.withLock { state in
                    if state.isHolding { state.held += bytes } else { pass(bytes, &state) }
                }
            }
            if !state.withLock({ $0.isCut }) { server.shut() }
        }

        fileprivate func carryDown() {
            // What has nowhere to go is taken all the same: the server is not to notice.
            while let bytes = server.receive() { client.send(bytes) }
            state.withLock { $0.hasServerEnded = true }
            client.shut()
        }

        /// Within the lock, so that the order stays.
        private func pass(_ bytes: [UInt8], _ state: inout State) {
            state.passedBytes += bytes.count
            server.send(bytes)
        }
    }
}
