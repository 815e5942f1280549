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
    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
