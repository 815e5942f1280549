import CairnCore
public import CairnStore

/// How a server is set up: read from a file, overridden by flags of the same names (`listen = …` is `--listen …`).
public struct Configuration: Sendable, Equatable {
    /// The store's folder.
    public var data = ""
    /// Address and port to listen on; port 0 picks a free one.
    public var listen = "127.0.0.1:7440"
    /// PEM files: the server's certificate and key, and the CA whose clients may come in.
    public var cert = ""
    public var key = ""
    public var ca = ""
    /// A PEM file of revoked certificates, read again when it changes; empty for none.
    public var crl = ""
    /// `trace`, `debug`, `info`, `notice`, `warning`, `error`.
    public var logLevel = "info"
    /// Network loops; 0: one for every two cores, at most 8.
    public var loops = 0
    /// Worker threads that hash, compress and read; 0: one more than the cores.
    public var workers = 0
    /// Connections in all, and from one address.
    public var maxConnections = 12_000
    public var maxConnectionsPerAddress = 12_000
    /// Connections of one account, its hosts' included; 0: seven eighths of all, so that none keeps the others out (SPEC R3).
    public var maxConnectionsPerAccount = 0
    /// Bytes of answers that one connection may have waiting to be read.
    public var answerBytesPerConnection: UInt64 = 64 << 20
    /// Bytes of requests and answers that all connections may have under way together; nil: a quarter of the memory. An account may
    /// have as much as is free (SPEC R3).
    public var bytesInFlight: UInt64?
    /// The size of a volume that is created without one (SPEC V2).
    public var defaultVolumeSize: UInt64 = 16 << 30
    /// The chunk size of a volume that is created without one (SPEC V6).
    public var defaultChunkSize: UInt64 = 64 << 10
    /// Whether a block may come without a checksum (SPEC U4).
    public var checksumOptional = false
    /// Seconds for which QueryChunks' promises hold (SPEC A1: 900 or more).
    public var leaseSeconds = 900
    /// Seconds after which a client is asked how far its snapshot is, if it does not say so itself; 0: never (SPEC S10).
    public var promptSeconds = 60
    /// Seconds after which a snapshot in progress is cancelled that nobody does anything for (SPEC S11): 72 hours.
    public var snapshotIdleSeconds = 72 * 3600
    /// What each account may have that has no limits of its own, and how fast it may ask (SPEC R3); 0 is no limit.
    public var accountLimits = AccountLimits()
    /// Bytes of log behind which the index may lag: bounds recovery.
    public var checkpointBytes: UInt64 = 256 << 20
    /// Bytes of log, of each shard, after which its index is copied: bounds what a repair must replay.
    public var indexBackupBytes: UInt64 = 4 << 30
    /// Days in which all data is scrubbed once, by itself; 0: never.
    public var scrubDays = 30
    /// The most that such a scrub reads in a second, in each shard.
    public var scrubBytesPerSecond: UInt64 = 8 << 20
    /// The most bytes that the store may take on disk; 0: all that there is.
    public var capacity: UInt64 = 0
    /// Bytes of the file system that data leaves free, for the index; nil: a sixteenth of it, at most 1 GiB.
    public var keepFree: UInt64?
    /// Seconds that SIGTERM waits for calls in flight.
    public var drainSeconds = 30

    public init() {}
}

/// What is wrong with a configuration; names the file, line or key.
public struct ConfigurationError: Error, Equatable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

extension Configuration {
    /// Reads `key = value` lines; `#` begins a comment.
    public init(text: String, file: String) throws(ConfigurationError) {
        self.init()
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let content = line.prefix { $0 != "#" }.trimmed
            if content.isEmpty { continue }
            guard let equals = content.firstIndex(of: "=") else {
                throw ConfigurationError("\(file), line \(number + 1): expected `key = value`, found `\(content)`")
            }
            let key = String(content[..<equals]).trimmed
            let value = String(content[content.index(after: equals)...]).trimmed
            do { try set(key, value) } catch { throw ConfigurationError("\(file), line \(number + 1): \(error)") }
        }
    }

    /// An account alone has half of it: the longest request with the longest answer.
    static let bytesInFlightMinimum: UInt64 = 4 * UInt64(Limits.payloadBytes + Limits.messageBytes)

    /// Sets one value by its name, as files and flags know it.
    public mutating func set(_ key: String, _ value: String) throws(ConfigurationError) {
        switch key {
        case "data": data = value
        case "listen": listen = value
        case "cert": cert = value
        case "key": self.key = value
        case "ca": ca = value
        case "crl": crl = value
        case "log-level": logLevel = value
        case "loops": loops = try Self.count(key, value, 0...256)
        case "workers": workers = try Self.count(key, value, 0...256)
        case "max-connections": maxConnections = try Self.count(key, value, 1...1_000_000)
        case "max-connections-per-address": maxConnectionsPerAddress = try Self.count(key, value, 1...1_000_000)
        case "max-connections-per-account": maxConnectionsPerAccount = try Self.count(key, value, 0...1_000_000)
        case "answer-bytes-per-connection":
            answerBytesPerConnection = try Self.size(key, value, UInt64(2 * Limits.payloadBytes)...(1 << 34))
        case "bytes-in-flight":
            bytesInFlight = value == "auto" ? nil : try Self.size(key, value, Self.bytesInFlightMinimum...(1 << 50))
        case "default-volume-size":
            defaultVolumeSize = try Self.size(key, value, Limits.volumeSizeMinimum...Limits.volumeSizeMaximum)
            guard defaultVolumeSize.isMultiple(of: Limits.sector) else {
                throw ConfigurationError("\(key): \(value) is no multiple of 512")
            }
        case "default-chunk-size":
            defaultChunkSize = try Self.size(key, value, 4096...(4 << 20))
            guard ChunkSize(bytes: defaultChunkSize) != nil else {
                throw ConfigurationError("\(key): \(value) is no power of two")
            }
        case "checksum-optional": checksumOptional = try Self.flag(key, value)
        case "lease-seconds": leaseSeconds = try Self.count(key, value, 1...(30 * 86400))
        case "prompt-seconds": promptSeconds = try Self.count(key, value, 0...86400)
        case "snapshot-idle-seconds": snapshotIdleSeconds = try Self.count(key, value, 1...(365 * 86400))
        case "checkpoint-bytes": checkpointBytes = try Self.size(key, value, (1 << 20)...(1 << 40))
        case "index-backup-bytes": indexBackupBytes = try Self.size(key, value, (1 << 20)...(1 << 40))
        case "scrub-days": scrubDays = try Self.count(key, value, 0...3650)
        case "scrub-bytes-per-second": scrubBytesPerSecond = try Self.size(key, value, (64 << 10)...(1 << 40))
        case "capacity": capacity = try Self.size(key, value, 0...(1 << 60))
        case "keep-free": keepFree = value == "auto" ? nil : try Self.size(key, value, 0...(1 << 60))
        case "limit-volumes": accountLimits.volumes = try Self.number(key, value)
        case "limit-snapshots": accountLimits.snapshots = try Self.number(key, value)
        case "limit-logical-bytes": accountLimits.logicalBytes = try Self.size(key, value, 0...(1 << 62))
        case "limit-stored-bytes": accountLimits.storedBytes = try Self.size(key, value, 0...(1 << 62))
        case "limit-requests-per-second": accountLimits.requestsPerSecond = try Self.number(key, value)
        case "limit-bytes-in-flight": accountLimits.bytesInFlight = try Self.size(key, value, 0...(1 << 62))
        case "drain-seconds": drainSeconds = try Self.count(key, value, 0...3600)
        default: throw ConfigurationError("there is no setting `\(key)`")
        }
    }

    private static func count(_ key: String, _ value: String, _ range: ClosedRange<Int>) throws(ConfigurationError)
        -> Int
    {
        guard let number = Int(value), range.contains(number) else {
            throw ConfigurationError("\(key): `\(value)` is no number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func number(_ key: String, _ value: String) throws(ConfigurationError) -> UInt64 {
        UInt64(try count(key, value, 0...1_000_000_000))
    }

    private static func size(_ key: String, _ value: String, _ range: ClosedRange<UInt64>) throws(ConfigurationError)
        -> UInt64
    {
        guard let bytes = ByteCount.parse(value), range.contains(bytes) else {
            throw ConfigurationError(
                "\(key): `\(value)` is no size from \(ByteCount.text(range.lowerBound)) to \(ByteCount.text(range.upperBound))"
            )
        }
        return bytes
    }

    private static func flag(_ key: String, _ value: String) throws(ConfigurationError) -> Bool {
        switch value {
        case "true", "yes", "on": return true
        case "false", "no", "off": return false
        default: throw ConfigurationError("\(key): `\(value)` is neither `true` nor `false`")
        }
    }
}

extension StringProtocol {
    fileprivate var trimmed: String {
        String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
    }
}
