import ArgumentParser
import CairnClient
import CairnCore
import CairnStore
import CairnTransport

/// Shows how cost grows: `tools/growth` runs it against a server of its own.
@main
struct Growth: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cairn-growth",
        abstract: "Measures calls on shards and volumes of few and many chunks, and volumes of few and many snapshots.",
        subcommands: [Prepare.self, Fill.self, Calls.self, Written.self]
    )
}

struct ServerOptions: ParsableArguments {
    @Option(help: "The server's address.") var server: String
    @Option(help: "The certificate and key: PATH.crt and PATH.key.") var identity: String

    func connect() throws -> Client {
        guard let endpoint = Endpoint(text: server) else { throw ValidationError("`\(server)` is no address") }
        var options = ClientOptions()
        options.callLimit = .seconds(600)
        return try Client(server: endpoint, credentials: Credentials(identity: identity), options: options)
    }
}

/// A volume of its own for each shard.
struct Prepare: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes a volume in each shard, the next one for so many chunks more; prints IDs and chunks."
    )
    @OptionGroup var options: ServerOptions
    @Argument(help: "Chunks of each shard, from the first on.") var chunks: [UInt64]

    func run() async throws {
        let client = try options.connect()
        var made: [VolumeID?] = Array(repeating: nil, count: chunks.count)
        // Shards are chosen by the affinity: tried until each has one.
        for number in 0..<UInt16(1000) where made.contains(where: { $0 == nil }) {
            let affinity = [UInt8(number >> 8), UInt8(truncatingIfNeeded: number)]
            var new = NewVolume(chunks: 1)
            new.affinity = affinity
            let shard = try await client.createVolume(new).id.uuid.shard
            guard Int(shard.rawValue) < chunks.count, made[Int(shard.rawValue)] == nil else { continue }
            new.size = NewVolume(chunks: chunks[Int(shard.rawValue)] + Plan.realChunks).size
            made[Int(shard.rawValue)] = try await client.createVolume(new).id
        }
        for case (let volume?, let count) in zip(made, chunks) { print(volume, count) }
    }
}

/// While no server serves the store.
struct Fill: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Puts rows into the indexes of a store, as if so many chunks had been written, without their data."
    )
    @Option(help: "The store's folder.") var data: String
    @Option(help: "A file of lines `VOLUME CHUNKS`.") var plan: String

    func run() throws {
        let store = try Store.open(at: data, StoreOptions())
        defer { store.close() }
        for (volume, chunks) in try Plan.read(plan) {
            var (rows, told): (UInt64, UInt64) = (0, 0)
            try store.shard(volume.uuid.shard).putSyntheticChunks(chunks, of: volume) {
                rows += $0
                guard rows - told >= 10_000_000 else { return }
                told = rows
                Console.say("\(volume): \(rows) of \(2 * chunks) rows")
            }
        }
    }
}

struct Calls: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Measures calls on the volumes of a plan.")
    @OptionGroup var options: ServerOptions
    @OptionGroup var measuring: Measuring
    @Option(help: "A file of lines `VOLUME CHUNKS`.") var plan: String
    @Option(help: "Snapshots of the volumes that have many, each in the first shard; the most also in the last.")
    var snapshots: [Int] = [100, 10_000]

    func run() async throws {
        let plan = try Plan.read(plan)
        guard let first = plan.first, let last = plan.last, snapshots.allSatisfy({ $0 > 1 }) else {
            throw ValidationError("a plan and 2 snapshots are needed")
        }
        let client = try options.connect()
        let tokens = try await Content.stage(client)
        var subjects: [Subject] = []
        for (volume, chunks) in plan {
            let real = chunks..<chunks + Plan.realChunks
            subjects.append(
                try await Subject(client, tokens, volume, real, by: .data, snapshots: 1, counted: chunks)
            )
        }
        for (beside, count) in snapshots.map({ (first, $0) }) + [(last, snapshots.max() ?? 1)] where count > 1 {
            let volume = try await Self.volume(beside: beside.volume, client)
            let real = 0..<Plan.realChunks
            subjects.append(
                try await Subject(client, tokens, volume, real, by: .data, snapshots: count, counted: beside.chunks)
            )
        }
        try await measuring.run(subjects, counted: "chunks of the shard")
    }

    /// An empty volume in the same shard.
    private static func volume(beside other: VolumeID, _ client: Client) async throws -> VolumeID {
        while true {
            let volume = try await client.createVolume(NewVolume(chunks: Plan.realChunks)).id
            if volume.uuid.shard == other.uuid.shard { return volume }
            try await client.deleteVolume(volume)
        }
    }
}

struct Written: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Writes volumes of one chunk and of many, with one snapshot and many, and measures calls on them."
    )
    @OptionGroup var options: ServerOptions
    @OptionGroup var measuring: Measuring
    @Option(help: "Chunks of the large volumes.") var chunks: UInt64 = 4_000_000
    @Option(help: "Snapshots of the volumes that have many.") var snapshots = 10_000

    func run() async throws {
        guard chunks > 0, snapshots > 0 else { throw ValidationError("a chunk and a snapshot are needed") }
        let client = try options.connect()
        let tokens = try await Content.stage(client)
        let volumes: [(chunks: UInt64, snapshots: Int)] = [(1, 1), (chunks, 1), (1, snapshots), (chunks, snapshots)]
        var subjects: [Subject] = []
        for (count, history) in volumes {
            let volume = try await client.createVolume(NewVolume(chunks: count)).id
            subjects.append(
                try await Subject(client, tokens, volume, 0..<count, by: .token, snapshots: history, counted: count)
            )
            Console.say("\(volume): \(count) chunks written, \(history) snapshots made")
        }
        try await measuring.run(subjects, counted: "written chunks of the volume")
    }
}
