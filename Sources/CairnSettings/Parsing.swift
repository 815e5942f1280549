public import CairnTransport

/// Addresses and times as people write them.
public enum Parsing {
    public static let defaultPort: UInt16 = 7440

    /// `HOST:PORT`, `HOST`, `[IPv6]:PORT`, or an IPv6 address alone; without a port: 7440.
    public static func endpoint(_ text: String) -> Endpoint? {
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            return endpoint(String(text[text.index(after: text.startIndex)..<end]), text[text.index(after: end)...])
        }
        guard let colon = text.firstIndex(of: ":") else { return endpoint(text, "") }
        // More than one colon: an IPv6 address without a port.
        guard text.lastIndex(of: ":") == colon else { return endpoint(text, "") }
        return endpoint(String(text[..<colon]), text[colon...])
    }

    private static func endpoint(_ host: String, _ rest: Substring) -> Endpoint? {
        guard !host.isEmpty else { return nil }
        if rest.isEmpty { return Endpoint(host: host, port: defaultPort) }
        guard rest.hasPrefix(":"), let port = UInt16(rest.dropFirst()), port > 0 else { return nil }
        return Endpoint(host: host, port: port)
    }

    /// `90`, `1.5s`, `2m`, `1h`: seconds unless it says otherwise; more than nothing, at most a day.
    public static func duration(_ text: String) -> Duration? {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600]
        let unit = text.last.flatMap { units[$0] }
        guard let number = Double(unit == nil ? text[...] : text.dropLast()), number.isFinite else { return nil }
        let seconds = number * (unit ?? 1)
        guard seconds > 0, seconds <= 86400 else { return nil }
        return .milliseconds(Int64((seconds * 1000).rounded(.up)))
    }
}
