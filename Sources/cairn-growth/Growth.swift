import ArgumentParser
import CairnClient
import CairnCore
import CairnTransport

/// Shows that what a call takes does not grow with what a volume holds: `tools/growth` runs it against a server of its own.
@main
struct Growth: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn-growth",
        abstract: "Measures calls on small and large volumes, with few and many snapshots."
    )

    @Option(help: "The server's address.") var server: String
    @Option(help: "The certificate and key: PATH.crt and PATH.key.") var identity: String
    @Option(help: "Written chunks of the large volume.") var chunks = 4_000_000
    @Option(help: "Snapshots of the volumes that have many.") var snapshots = 10_000
    @Option(help: "Measured calls of each kind on each volume; at least 51.") var calls = 101

    func run() async throws {
        guard let endpoint = Endpoint(text: server), calls >= 51, chunks > 0, snapshots > 1 else {
            throw ValidationError("a server's address, at least 51 calls, 1 chunk and 2 snapshots are needed")
        }
        var options = ClientOptions()
        options.callLimit = .seconds(600)
        let client = try Client(server: endpoint, credentials: Credentials(identity: identity), options: options)
        let tokens = try await Content.stage(client)
        var subjects: [Subject] = []
        for (count, history) in [(1, 1), (chunks, 1), (1, snapshots), (chunks, snapshots)] {
            subjects.append(try await Subject.make(client, tokens, chunks: count, snapshots: history))
        }
        var table = Table(subjects)
        // Round by round, so that all of them meet the same machine.
        for round in 0..<calls {
            for (place, subject) in subjects.enumerated() {
                for measure in Measure.allCases {
                    table.add(try await subject.time(measure, round), measure, place)
                }
            }
        }
        print(table.text, terminator: "")
    }
}

/// The chunks that the volumes are made of: sent once, then named by token.
enum Content {
    static let chunkSize = ChunkSize(bytes: 65536)!
    private static let distinct = 64

    static func stage(_ client: Client) async throws -> [Fingerprint] {
        let chunks = (0..<distinct).map { seed in
            Buffer(copying: (0..<chunkSize.bytes).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ seed) }).slice
        }
        return try await client.stage(chunks, chunkSize: chunkSize).tokens
    }
}
