internal import CEpoll

#if canImport(Glibc)
    internal import Glibc
#endif

/// An IPv4 or IPv6 address and port, as the system holds it.
struct SocketAddress {
    private(set) var storage = sockaddr_storage()
    private(set) var length: socklen_t = 0

    init() {}
    fileprivate init(_ address: UnsafePointer<sockaddr>, length: socklen_t) {
        withUnsafeMutableBytes(of: &storage) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: min(Int(length), $0.count)))
        }
        self.length = length
    }

    var family: Int32 { Int32(storage.ss_family) }

    /// Hands the address to a system call.
    func withPointer<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        withUnsafePointer(to: storage) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) } }
    }
    /// Lets a system call fill the address in.
    mutating func fill<R>(_ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> R) -> R {
        length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { storage in
            storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, &length) }
        }
    }

    /// The numeric address and the port; an IPv4 address mapped into IPv6 as IPv4.
    var endpoint: Endpoint {
        var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        var service = [CChar](repeating: 0, count: Int(NI_MAXSERV))
        let result = withPointer {
            getnameinfo(
                $0,
                $1,
                &host,
                socklen_t(host.count),
                &service,
                socklen_t(service.count),
                NI_NUMERICHOST | NI_NUMERICSERV
            )
        }
        guard result == 0 else { return Endpoint(host: "?", port: 0) }
        var name = text(host)
        if name.hasPrefix("::ffff:"), name.contains(".") { name.removeFirst(7) }
        return Endpoint(host: name, port: UInt16(text(service)) ?? 0)
    }

    private func text(_ characters: [CChar]) -> String {
        String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The addresses of `endpoint`, in the resolver's order. May block: name servers are asked.
    static func resolve(_ endpoint: Endpoint, listening: Bool) throws(TransportError) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV | (listening ? AI_PASSIVE : 0)
        var list: UnsafeMutablePointer<addrinfo>?
        let host = endpoint.host.isEmpty ? nil : endpoint.host
        let result = getaddrinfo(host, String(endpoint.port), &hints, &list)
        guard result == 0 else {
            throw TransportError(.unreachable, "\(endpoint.host): \(String(cString: gai_strerror(result)))")
        }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            addresses.append(SocketAddress(entry.pointee.ai_addr, length: entry.pointee.ai_addrlen))
            next = entry.pointee.ai_next
        }
        return addresses
    }
}

/// Makes a stream socket that does not block and is not inherited.
func makeSocket(_ family: Int32) throws(TransportError) -> Int32 {
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(family, type, 0)
    guard descriptor >= 0 else { throw TransportError(.unreachable, "socket", errno: errno) }
    return descriptor
}

/// Small frames leave at once: without this an answer can wait 40 ms for the peer's delayed acknowledgement.
func setNoDelay(_ descriptor: Int32) {
    setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
}

func setOption(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) {
    var value = value
    _ = setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
}
