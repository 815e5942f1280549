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
        abstract: "Measures calls on shards of few and many chunks, and volumes of few and many snapshots.",
        subcommands: [Prepare.self, Fill.self, Calls.self]
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
            var new = NewVolume()
            (new.size, new.chunkSize, new.affinity) = (1 << 20, Content.chunkSize, affinity)
            let shard = try await client.createVolume(new).id.uuid.shard
            guard Int(shard.rawValue) < chunks.count, made[Int(shard.rawValue)] == nil else { continue }
            new.size = (chunks[Int(shard.rawValue)] + Subject.chunks) * UInt64(Content.chunkSize.bytes)
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
    @Option(help: "A file of lines `VOLUME CHUNKS`.") var plan: String
    @Option(help: "Snapshots of the volumes that have many, each in the first shard; the most also in the last.")
    var snapshots: [Int] = [100, 10_000]
    @Option(help: "Measured calls of each kind on each volume; at least 51.") var calls = 101
    @Option(help: "The server's process: its processor time is measured too.") var serverPid: Int32

    func run() async throws {
        let plan = try Plan.read(plan)
        guard calls >= 51, let first = plan.first, let last = plan.last, snapshots.allSatisfy({ $0 > 1 }) else {
            throw ValidationError("a plan, at least 51 calls, and 2 snapshots are needed")
        }
        let client = try options.connect()
        let tokens = try await Content.stage(client)
        var subjects: [Subject] = []
        for (volume, chunks) in plan {
            subjects.append(try await Subject(client, tokens, volume, filled: chunks, snapshots: 1))
        }
        for (beside, count) in snapshots.map({ (first, $0) }) + [(last, snapshots.max() ?? 1)] where count > 1 {
            let volume = try await Subject.volume(beside: beside.volume, client)
            subjects.append(
                try await Subject(client, tokens, volume, filled: 0, snapshots: count, inShardOf: beside.chunks)
            )
        }
        // Seals are made in the background, which is not what is measured.
        let begin = ContinuousClock.now
        for subject in subjects {
            let taken = try await subject.waitForSeal(since: begin)
            print("sealed \(subject.shardChunks) chunks of the shard, \(subject.snapshots) snapshots: after \(taken) s")
        }
        var table = Table(subjects.map { ($0.shardChunks, $0.snapshots) })
        // Round by round, so that all of them meet the same machine.
        for round in 0..<calls {
            for (place, subject) in subjects.enumerated() {
                for measure in Measure.allCases {
                    let before = try ProcessTime.nanoseconds(of: serverPid)
                    let time = try await subject.time(measure, round)
                    let processor = try ProcessTime.nanoseconds(of: serverPid) - before
                    table.add(time / .microseconds(1), Double(processor) / 1000, measure, place)
                    try await subject.tidy(measure)
                }
            }
        }
        print(table.text, terminator: "")
    }
}
