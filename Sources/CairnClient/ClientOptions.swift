public import CairnCore

/// The files that prove who the caller is (SPEC C1), all PEM.
public struct Credentials: Sendable, Equatable {
    /// The client's certificate, followed by intermediates, if any.
    public var certificate: String
    /// The private key of the certificate.
    public var privateKey: String
    /// Certificates of the authorities that the server's chain may end in.
    public var authorities: String

    public init(certificate: String, privateKey: String, authorities: String) {
        self.certificate = certificate
        self.privateKey = privateKey
        self.authorities = authorities
    }

    /// The three files as `cairn pki` lays them out: `DIR/NAME.crt`, `DIR/NAME.key` and `DIR/ca.crt`.
    public init(identity path: String) {
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
        self.init(certificate: path + ".crt", privateKey: path + ".key", authorities: folder + "ca.crt")
    }
}

/// How a client behaves: each limit in one place.
public struct ClientOptions: Sendable {
    /// Connections to the server, each opened when there is work for it. 1–64.
    public var connections = 2
    /// The longest that one call may take, its repetitions and reconnections included.
    public var callLimit: Duration = .seconds(60)
    /// How long a server that was never reached is tried.
    public var connectLimit: Duration = .seconds(5)
    /// When and how often calls are repeated.
    public var retry = RetryPolicy()
    /// A connection that heard nothing for this long sends a PING, and is given up when nothing comes for as long again.
    public var pingAfter: Duration = .seconds(10)
    /// By what uploads are checked, where a block brings no checksum of its own, and downloads (SPEC U4). All others cost the server
    /// more than CRC-32C.
    public var checksum = ChecksumAlgorithm.crc32c
    /// Software and version, told to the server for its logs.
    public var agent = "cairn-swift/0.1"

    /// Answers the server when it asks how far the upload of a snapshot is: percent, 0–100 (SPEC S10). It should answer
    /// within seconds; an answer that comes too late is ignored. A ``Backup`` under way answers for its own snapshot.
    /// Nil: the server is told that nobody answers.
    public var onProgressPrompt: (@Sendable (SnapshotID) async -> UInt32)?

    public init() {}

    /// Connections enough to keep this machine's cores busy with TLS: one for each core, from 2 to 4.
    public static func suggestedConnections(cores: Int) -> Int { min(max(cores, 2), 4) }
}
