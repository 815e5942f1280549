import CairnCrypto
import CairnTransport
import CairnWire
import Foundation

/// A TCP connection that a test does with as it likes.
final class PlainSocket {
    let descriptor: Int32

    /// - Parameter receiveBytes: of the system's buffer; nil: as it is.
    init(to endpoint: Endpoint, receiveBytes: Int32? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw HarnessError("socket: \(String(cString: strerror(errno)))") }
        if var receiveBytes {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBytes, socklen_t(MemoryLayout<Int32>.size))
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = endpoint.port.bigEndian
        address.sin_addr.s_addr = inet_addr(endpoint.host)
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else {
            close(descriptor)
            throw HarnessError("connect: \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    /// Waits for the system to take them; false once the peer has gone, or after a minute.
    func send(_ bytes: some Collection<UInt8>) -> Bool {
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    /// Whether the peer has closed, whatever it sent before.
    var isCut: Bool {
        // Of poll(2), which Glibc's module does not show.
        let peerClosed: Int16 = 0x2000
        var look = pollfd(fd: descriptor, events: peerClosed, revents: 0)
        return poll(&look, 1, 0) > 0
    }

    /// Whether something can be read within `milliseconds`.
    func isReadable(within milliseconds: Int32) -> Bool {
        var look = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&look, 1, milliseconds) > 0
    }
}

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
