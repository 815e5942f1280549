public import CairnCore
internal import CairnWire

/// What a server says about itself and about us (SPEC R4).
public struct ServerFacts: Sendable, Hashable {
    public let version: String
    /// Names the installation.
    public let storeID: [UInt8]
    public let shardCount: Int
    /// Bytes.
    public let volumeSizes: ClosedRange<UInt64>
    public let volumeSizeDefault: UInt64
    public let chunkSizeDefault: ChunkSize?
    public let maxBlocksPerCall: Int
    public let maxTokensPerCall: Int
    public let checksumOptional: Bool
    public let features: [String]
    /// The caller as its certificate names it: an account, `account/host` or `admin`.
    public let identity: String
    public let startedAt: Timestamp

    init(_ wire: Wire.GetServerFactsResponse) {
        let facts = wire.facts ?? Wire.ServerFacts()
        version = facts.version
        storeID = facts.storeID
        shardCount = Int(facts.shardCount)
        volumeSizes = facts.volumeSizeMinimum...max(facts.volumeSizeMinimum, facts.volumeSizeMaximum)
        volumeSizeDefault = facts.volumeSizeDefault
        chunkSizeDefault = ChunkSize(bytes: facts.chunkSizeDefault)
        // A server that does not say takes what every server must.
        maxBlocksPerCall = facts.maxBlocksPerCall == 0 ? 256 : Int(facts.maxBlocksPerCall)
        maxTokensPerCall = facts.maxTokensPerCall == 0 ? 1024 : Int(facts.maxTokensPerCall)
        checksumOptional = facts.checksumOptional
        features = facts.features
        identity = wire.identity
        startedAt = Timestamp(milliseconds: wire.startedAtMs)
    }
}
