import CairnCrypto
import CairnTransport
import Foundation

/// A client that sends and never reads, on a blocking socket.
final class DeafPeer {
    private let socket: PlainSocket
    private let buffers = TLSBuffers()
    private let session: TLSSession

    /// - Parameter beforeLastFlight: runs when our side of the handshake is done, and the server waits for our certificate.
    init?(
        to endpoint: Endpoint,
        files: TLSFiles = TestInstallation.shared.client,
        beforeLastFlight: () throws -> Void = {}
    ) throws {
        guard let socket = PlainSocket(to: endpoint) else { return nil }
        self.socket = socket
        session = try TLSSession(
            context: try TLSContext(.client, files: files),
            buffers: buffers,
            host: endpoint.host
        )
        while true {
            let isDone = try session.handshake()
            if isDone { try beforeLastFlight() }
            guard flush() else { return nil }
            if isDone { break }
            buffers.reset()
            let count = recv(socket.descriptor, buffers.input.baseAddress, buffers.input.count, 0)
            guard count > 0 else { return nil }
            buffers.received(count)
        }
    }

    /// False once the peer has gone.
    func send(_ bytes: [UInt8]) throws -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            rest = rest.dropFirst(try rest.withUnsafeBytes { try session.write($0) })
            guard flush() else { return false }
        }
        return true
    }

    /// Whether the peer closes within `seconds`.
    func waitForEnd(seconds: Int) -> Bool { socket.waitForEnd(seconds: seconds) }

    private func flush() -> Bool {
        var rest = Array(buffers.output)[...]
        buffers.reset()
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Glibc.send(socket.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }
}
