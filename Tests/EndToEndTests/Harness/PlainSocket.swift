import CairnTransport
import Foundation

/// A TCP connection that a test does with as it likes, or a socket that takes such.
final class PlainSocket: Sendable {
    let descriptor: Int32

    /// Takes over `descriptor`; throws where there is none.
    private init(_ descriptor: Int32) throws {
        guard descriptor >= 0 else { throw HarnessError("no socket: \(String(cString: strerror(errno)))") }
        self.descriptor = descriptor
    }

    private convenience init() throws {
        try self.init(socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    }

    /// - Parameter receiveBytes: of the system's buffer; nil: as it is.
    convenience init(to endpoint: Endpoint, receiveBytes: Int32? = nil) throws {
        try self.init()
        if var receiveBytes {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBytes, socklen_t(MemoryLayout<Int32>.size))
        }
        var address = sockaddr_in(endpoint)
        guard address.withPointer({ connect(descriptor, $0, $1) }) == 0 else {
            throw HarnessError("connect: \(String(cString: strerror(errno)))")
        }
    }

    /// Takes connections at a free port of this machine.
    convenience init(listening backlog: Int32) throws {
        try self.init()
        var address = sockaddr_in(Endpoint(host: "127.0.0.1", port: 0))
        guard address.withPointer({ bind(descriptor, $0, $1) }) == 0, listen(descriptor, backlog) == 0 else {
            throw HarnessError("listen: \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(descriptor) }

    /// Where it listens.
    var endpoint: Endpoint {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = address.withPointer { name, _ in getsockname(descriptor, name, &length) }
        return Endpoint(host: "127.0.0.1", port: UInt16(bigEndian: address.sin_port))
    }

    /// The next connection to a socket that listens; nil once it was shut.
    func next() -> PlainSocket? {
        while true {
            let taken = accept(descriptor, nil, nil)
            if taken >= 0 {
                _ = fcntl(taken, F_SETFD, FD_CLOEXEC)
                return try? PlainSocket(taken)
            }
            guard errno == EINTR || errno == ECONNABORTED else { return nil }
        }
    }

    /// Waits for the system to take them; false once the peer has gone.
    @discardableResult
    func send(_ bytes: some Collection<UInt8>) -> Bool {
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    /// What comes next; nil once the peer has gone, or it was shut.
    func receive() -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        return count > 0 ? Array(bytes[..<count]) : nil
    }

    /// Ends it in both directions, whoever waits at it.
    func shut() { shutdown(descriptor, Int32(SHUT_RDWR)) }

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

extension sockaddr_in {
    fileprivate init(_ endpoint: Endpoint) {
        self.init()
        sin_family = sa_family_t(AF_INET)
        sin_port = endpoint.port.bigEndian
        sin_addr.s_addr = inet_addr(endpoint.host)
    }

    /// Hands the address to a system call.
    fileprivate mutating func withPointer(_ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        withUnsafeMutablePointer(to: &self) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
}
