import ArgumentParser
import CairnClient
import CairnCore
import CairnTransport

/// One account at work for a while: `tools/fairness` runs several against a server of its own (SPEC R3).
@main
struct Fairness: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn-fairness",
        abstract: "Writes and reads for a while, and prints what each call took: `write SECONDS` and `read SECONDS`."
    )

    @Option(help: "The server's address.") var server: String
    @Option(help: "The certificate and key: PATH.crt and PATH.key.") var identity: String
    @Option(help: "Seconds to work.") var seconds = 10
    @Option(help: "Bytes of each call.") var bytes = 4096
    @Option(help: "Connections, 1 to 64.") var connections = 1
    @Option(help: "Calls under way on each.") var inFlight = 1

    func run() async throws {
        guard let endpoint = Endpoint(text: server), seconds > 0, (1...64).contains(connections), inFlight > 0,
            bytes >= 512, bytes <= Limits.payloadBytes, bytes.isMultiple(of: 512)
        else { throw ValidationError("an address, a time, and sizes within the server's limits are needed") }
        let tenant = try await Tenant.make(endpoint, identity, connections: connections)
        let end = ContinuousClock.now + .seconds(seconds)
        let bytes = bytes
        try await withThrowingTaskGroup(of: String.self) { group in
            for lane in 0..<(connections * inFlight) {
                group.addTask { try await tenant.work(until: end, bytes: bytes, lane: lane) }
            }
            for try await report in group { print(report, terminator: "") }
        }
    }
}
