import ArgumentParser
import CairnClient
import CairnCore
import CairnTransport

/// A size as people write it.
struct ByteSize: ExpressibleByArgument, Equatable {
    let bytes: UInt64
    init?(argument: String) {
        guard let bytes = ByteCount.parse(argument) else { return nil }
        self.bytes = bytes
    }
}

extension VolumeID: ExpressibleByArgument {
    public init?(argument: String) { self.init(text: argument) }
}

extension SnapshotID: ExpressibleByArgument {
    public init?(argument: String) { self.init(text: argument) }
}

/// A chunk size: a power of two, 4 KiB – 4 MiB.
struct ChunkSizeArgument: ExpressibleByArgument {
    let size: ChunkSize
    init?(argument: String) {
        guard let bytes = ByteCount.parse(argument), let size = ChunkSize(bytes: bytes) else { return nil }
        self.size = size
    }
}

/// `key=value`; the value may be empty, and may hold further equals signs.
struct TagArgument: ExpressibleByArgument, Equatable {
    let key: String
    let value: String
    init?(argument: String) {
        guard let equals = argument.firstIndex(of: "="), equals != argument.startIndex else { return nil }
        key = String(argument[..<equals])
        value = String(argument[argument.index(after: equals)...])
    }
}

extension [TagArgument] {
    /// The last of those with the same key.
    var dictionary: [String: String] { Dictionary(map { ($0.key, $0.value) }) { _, last in last } }
}

/// What blocks are read from: `vol-…` or `snap-…`.
struct OriginArgument: ExpressibleByArgument, Equatable {
    let target: BlockTarget
    init?(argument: String) {
        if argument.hasPrefix("vol-"), let id = VolumeID(text: argument) {
            target = .volume(id)
        } else if argument.hasPrefix("snap-"), let id = SnapshotID(text: argument) {
            target = .snapshot(id)
        } else {
            return nil
        }
    }
}

enum Parsing {
    static let defaultPort: UInt16 = 7440

    /// `HOST:PORT`, `HOST`, `[IPv6]:PORT`, or an IPv6 address alone; without a port: 7440.
    static func endpoint(_ text: String) -> Endpoint? {
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
    static func duration(_ text: String) -> Duration? {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600]
        let unit = text.last.flatMap { units[$0] }
        guard let number = Double(unit == nil ? text[...] : text.dropLast()), number.isFinite else { return nil }
        let seconds = number * (unit ?? 1)
        guard seconds > 0, seconds <= 86400 else { return nil }
        return .milliseconds(Int64((seconds * 1000).rounded(.up)))
    }
}
