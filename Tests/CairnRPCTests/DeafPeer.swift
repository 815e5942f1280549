import CairnCrypto
import CairnTransport
import Foundation

/// A client that sends and never reads, on a blocking socket.
final class DeafPeer {
    private let socket: PlainSocket
    private let buffers = TLSBuffers()
    private let session: TLSSession

    init?(to endpoint: Endpoint) throws {
        guard let socket = PlainSocket(to: endpoint) else { return nil }
        self.socket = socket
        session = try TLSSession(
            context: try TLSContext(.client, files: TestInstallation.shared.client),
            buffers: buffers,
            host: endpoint.host
        )
        while true {
            let isDone = try session.handshake()
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
