import CairnCrypto
import CairnTransport
import CairnWire
import Foundation

/// A peer that got in, speaks frames as it likes, and reads only when it is told to. Confined to one task.
final class Stranger {
    let socket: PlainSocket
    private let buffers = TLSBuffers()
    private let session: TLSSession
    private var decoder = FrameDecoder(messageLimit: 1 << 20, payloadLimit: 16 << 20)
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 64)
    /// The headers that came.
    private(set) var headers: [FrameHeader] = []
    private(set) var hasEnded = false

    /// Shakes hands, and exchanges HELLOs.
    init(to endpoint: Endpoint, _ tls: TLSContext, receiveBytes: Int32? = nil) throws {
        socket = try PlainSocket(to: endpoint, receiveBytes: receiveBytes)
        session = try TLSSession(context: tls, buffers: buffers, host: endpoint.host)
        while true {
            let isDone = try session.handshake()
            guard flush() else { throw HarnessError("the server closed in the handshake") }
            if isDone { break }
            guard receive(within: 20_000) else { throw HarnessError("no answer in the handshake") }
        }
        guard try send(TLSStream.hello) else { throw HarnessError("the server closed") }
        while headers.isEmpty, !hasEnded { try read(within: 20_000) }
        guard headers.first?.kind == .hello else { throw HarnessError("no HELLO came") }
        headers = []
    }

    deinit { scratch.deallocate() }

    /// What a client that has just connected sends first.
    static func clientHello(to endpoint: Endpoint, _ tls: TLSContext) throws -> [UInt8] {
        let buffers = TLSBuffers()
        let session = try TLSSession(context: tls, buffers: buffers, host: endpoint.host)
        _ = try session.handshake()
        return Array(buffers.output)
    }

    /// False once the server has gone. Blocks while it does not read.
    func send(_ bytes: [UInt8]) throws -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            buffers.reset()
            rest = rest.dropFirst(try rest.withUnsafeBytes { try session.write($0) })
            guard flush() else { return false }
        }
        return true
    }

    /// Takes what there is, waiting for some.
    func read(within milliseconds: Int32 = 0) throws {
        buffers.reset()
        guard !hasEnded, receive(within: milliseconds) else { return }
        while true {
            switch try session.read(into: scratch) {
            case .needsInput: return
            case .closed:
                hasEnded = true
                return
            case .bytes(let count): try decode(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
            }
        }
    }

    private func decode(_ bytes: UnsafeRawBufferPointer) throws {
        var input = bytes
        while true {
            switch try decoder.next(in: &input) {
            case .needsInput: return
            case .header: continue
            case .frame(let frame): headers.append(frame.header)
            }
        }
    }

    private func receive(within milliseconds: Int32) -> Bool {
        guard socket.isReadable(within: milliseconds) else { return false }
        let count = recv(socket.descriptor, buffers.input.baseAddress, buffers.input.count, 0)
        guard count > 0 else {
            hasEnded = true
            return false
        }
        buffers.received(count)
        return true
    }

    private func flush() -> Bool {
        defer { buffers.clearOutput() }
        return socket.send(buffers.output)
    }
}
