import ArgumentParser
import CairnClient
import CairnCore
import CairnTransport

/// One account at work for a while: `tools/fairness` runs several against a server of its own (SPEC R3).
@main
struct Fairness: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn-fairness",
        abstract: "Writes and reads for a while, and prints what each call took: `write SECONDS` and `read SECONDS`.",
        discussion: """
            With --operator also how long the server took for the small calls that ended meanwhile, as it counts them itself: \
            `server-write SECONDS COUNT` and `server-read SECONDS COUNT`, calls that took no longer than that.
            """
    )

    @Option(help: "The server's address.") var server: String
    @Option(help: "The certificate and key: PATH.crt and PATH.key.") var identity: String
    @Option(name: .customLong("operator"), help: "The operator's certificate and key, likewise.") var operatorIdentity:
        String?
    @Option(help: "Seconds to work.") var seconds = 10
    @Option(help: "Bytes of each call.") var bytes = 4096
    @Option(help: "Bytes each second to write and read at the most; 0: as many as the server takes.") var rate = 0
    @Option(help: "Connections, 1 to 64.") var connections = 1
    @Option(help: "Calls under way on each.") var inFlight = 1

    func run() async throws {
        guard let endpoint = Endpoint(text: server), seconds > 0, (1...64).contains(connections), inFlight > 0,
            bytes >= 512, bytes <= Limits.payloadBytes, bytes.isMultiple(of: 512), rate >= 0
        else { throw ValidationError("an address, a time, and sizes within the server's limits are needed") }
        let tenant = try await Tenant.make(endpoint, identity, connections: connections)
        let times = try operatorIdentity.map { try ServerTimes(endpoint, $0) }
        let before = try await times?.read()
        let lanes = connections * inFlight
        // Each lane writes and reads in turn.
        let pace = rate == 0 ? Duration.zero : .seconds(Double(2 * bytes * lanes) / Double(rate))
        let end = ContinuousClock.now + .seconds(seconds)
        let bytes = bytes
        try await withThrowingTaskGroup(of: String.self) { group in
            for lane in 0..<lanes {
                group.addTask { try await tenant.work(until: end, bytes: bytes, lane: lane, pace: pace) }
            }
            for try await report in group { print(report, terminator: "") }
        }
        if let times, let before { print(try await times.read().report(since: before), terminator: "") }
    }
}
