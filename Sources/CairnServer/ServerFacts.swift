import CairnCore
import CairnCrypto
import CairnService
import CairnWire

/// What the server tells about itself: in its HELLO and by GetServerFacts (SPEC R4).
struct ServerFacts: Sendable {
    /// What this server can beyond the calls of its first version: PROTOCOL.md tells what each name means.
    private static let features = ["account-limits", "accounts", "metrics"]

    private let facts: Wire.ServerFacts
    private let startedAt: UInt64

    init(configuration: Configuration, storeID: [UInt8], shardCount: Int) {
        var facts = Wire.ServerFacts()
        facts.version = ServerVersion.text
        facts.storeID = storeID
        facts.shardCount = UInt32(shardCount)
        facts.volumeSizeMinimum = Limits.volumeSizeMinimum
        facts.volumeSizeMaximum = Limits.volumeSizeMaximum
        facts.volumeSizeDefault = configuration.defaultVolumeSize
        facts.chunkSizeDefault = UInt32(configuration.defaultChunkSize)
        facts.maxBlocksPerCall = UInt32(Limits.blocksPerCall)
        facts.maxTokensPerCall = UInt32(Limits.tokensPerCall)
        facts.checksumOptional = configuration.checksumOptional
        facts.features = Self.features
        self.facts = facts
        startedAt = UnixTime.milliseconds
    }

    /// The server's HELLO; CairnRPC adds the limits.
    func hello() -> Wire.Hello {
        var hello = Wire.Hello()
        hello.protocolVersion = 1
        hello.agent = ServerVersion.agent
        hello.features = Self.features
        hello.server = facts
        return hello
    }

    func answer(to identity: PeerIdentity) -> Wire.GetServerFactsResponse {
        var response = Wire.GetServerFactsResponse()
        response.facts = facts
        response.identity =
            switch identity {
            case .account(let account): account.name
            case .host(let account): account.name + "/host"
            case .admin: "admin"
            }
        response.startedAtMs = startedAt
        return response
    }
}
