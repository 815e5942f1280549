import ArgumentParser
import CairnClient
import CairnCore

struct StatusCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show the server, its limits, how far away it is, and whom it takes us for."
    )

    @OptionGroup var connection: ConnectionOptions

    private static let rounds = 10

    func run(with client: Client) async throws(ClientError) {
        // The first call pays for the connection.
        var facts = try await client.serverFacts()
        var times: [Duration] = []
        for _ in 0..<StatusCommand.rounds {
            let begin = ContinuousClock.now
            facts = try await client.serverFacts()
            times.append(ContinuousClock.now - begin)
        }
        times.sort()
        let report = StatusReport(facts, latency: times[times.count / 2])
        if connection.json { return Output.print(Output.json(report)) }
        let sizes = facts.volumeSizes
        Output.print(
            Output.facts([
                ("server", "\(facts.version)"), ("store", report.storeId), ("shards", "\(facts.shardCount)"),
                ("up since", Output.date(facts.startedAt.milliseconds)), ("we are", facts.identity),
                ("latency", "\(report.latencyMicroseconds) µs, median of \(StatusCommand.rounds)"),
                ("volume sizes", "\(ByteCount.text(sizes.lowerBound)) to \(ByteCount.text(sizes.upperBound))"),
                ("default size", ByteCount.text(facts.volumeSizeDefault)),
                ("default chunk", facts.chunkSizeDefault.map { "\($0)" }),
                ("features", facts.features.isEmpty ? nil : facts.features.joined(separator: " ")),
            ])
        )
    }
}

struct StatusReport: Encodable {
    let version: String
    let storeId: String
    let shardCount: Int
    let startedAt: String
    let identity: String
    let latencyMicroseconds: Int
    let volumeSizeMinimum: UInt64
    let volumeSizeMaximum: UInt64
    let volumeSizeDefault: UInt64
    let chunkSizeDefault: Int?
    let maxBlocksPerCall: Int
    let maxTokensPerCall: Int
    let checksumOptional: Bool
    let features: [String]

    init(_ facts: ServerFacts, latency: Duration) {
        version = facts.version
        storeId = UUID128(bytes: facts.storeID)?.text ?? Hex.encode(facts.storeID)
        shardCount = facts.shardCount
        startedAt = Output.date(facts.startedAt.milliseconds)
        identity = facts.identity
        latencyMicroseconds = Int((latency / .microseconds(1)).rounded())
        volumeSizeMinimum = facts.volumeSizes.lowerBound
        volumeSizeMaximum = facts.volumeSizes.upperBound
        volumeSizeDefault = facts.volumeSizeDefault
        chunkSizeDefault = facts.chunkSizeDefault?.bytes
        maxBlocksPerCall = facts.maxBlocksPerCall
        maxTokensPerCall = facts.maxTokensPerCall
        checksumOptional = facts.checksumOptional
        features = facts.features
    }
}
