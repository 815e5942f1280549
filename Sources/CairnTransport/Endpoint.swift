/// Where to connect to, or to listen at.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    /// A name, an IPv4 or an IPv6 address (without brackets).
    public var host: String
    /// 0 when listening: any free port.
    public var port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Reads `HOST:PORT`, an IPv6 address in brackets: `[::1]:7440`. Nil where it is none.
    public init?(text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            self.init(host: String(host.dropFirst().dropLast()), port: port)
        } else {
            guard !host.contains(":"), !host.isEmpty else { return nil }
            self.init(host: String(host), port: port)
        }
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
