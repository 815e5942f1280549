import ArgumentParser
import CairnBench
import CairnClient
import CairnCore
import Dispatch
import Foundation

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Runs workloads against a server, and prints what they gave.",
        discussion: """
            Workloads:
            \(Workload.allCases.map { "  \($0.rawValue.padding(toLength: 14, withPad: " ", startingAt: 0)) \($0.summary)" }.joined(separator: "\n"))
              all            each of them

            Each repetition makes volumes of its own, fills them where it reads (or, with --fill, overwrites) before the \
            measured time begins, and deletes them. What was filled is on the disk, not in memory, unless --read-first reads it.

            Without --rate the loop is closed: each connection has --in-flight operations under way, and begins another when one is \
            done. With --rate it is open: operations begin at that rate whether or not the server keeps up (at most --in-flight on \
            each connection; what is due beyond that waits in line), and latencies count from when each was due, so that a stall is \
            seen by everyone whom it would have met: no coordinated omission.

            Throughput counts operations that completed in the measured time; latencies are of those that began, or were due, in it. \
            Percentiles are right to 0.4 %. CPU is what this process, and with --server-pid the server's, used in that time, user and \
            kernel; data is made while it runs, at some GB/s, and that is part of the client's.

            Ctrl-C ends a run in order: with the table, the files, and the volumes deleted. A second one ends it at once.
            """
    )

    @Argument(help: "What to run; several in turn, or `all`.")
    var workloads: [String]

    @OptionGroup var accounts: AccountOptions
    @OptionGroup(title: "Load") var load: LoadOptions
    @OptionGroup(title: "Data") var data: DataOptions

    @Option(name: .customLong("json"), help: "Write all figures to this file.", completion: .file(extensions: ["json"]))
    var jsonFile: String?

    @Option(help: "Write a page with plots to this file.", completion: .file(extensions: ["html"]))
    var report: String?

    @Option(help: "Set before the names of the runs, here and in the files.")
    var label = ""

    @Flag(help: "No live line.")
    var quiet = false

    private var chosen: [Workload] {
        get throws {
            try workloads.flatMap { name in
                if name == "all" { return Workload.allCases }
                guard let workload = Workload(rawValue: name) else {
                    throw ValidationError(
                        "'\(name)' is none of: \(Workload.allCases.map(\.rawValue).joined(separator: ", ")), all."
                    )
                }
                return [workload]
            }
        }
    }

    func validate() throws {
        guard !workloads.isEmpty else { throw ValidationError("name a workload, or `all`.") }
        for workload in try chosen {
            do {
                try data.options.validate(for: workload)
                try load.plan.validate()
            } catch { throw ValidationError(error.text) }
        }
        guard (1...10_000).contains(load.inFlight), load.inFlight * accounts.connections <= 65536 else {
            throw ValidationError("--in-flight is 1 or more, and at most 65,536 on all connections together.")
        }
    }

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        let (clients, connections) = try Failures.exit { () throws(ClientError) in try accounts.open() }
        defer { for client in clients { client.close() } }
        try load.checkServer()
        let session = BenchSession(connections, quiet: quiet)
        let interruption = Interruption { session.stop() }
        var runs: [RunResult] = []
        var failure: BenchError?
        for workload in try chosen where !session.isStopped && failure == nil {
            let job = BenchSession.Job(
                workload,
                data.options,
                load.plan,
                inFlight: load.inFlight,
                repetitions: load.repetitions,
                label: label
            )
            do { runs += try await session.run(job) } catch { failure = error }
        }
        interruption.end()
        if !runs.isEmpty { print(ResultTable.text(runs), terminator: "") }
        // What was measured is kept, whatever went wrong later.
        try Failures.exit { () throws(BenchError) in try write(runs) }
        if let failure { throw Failures.code(failure) }
        if session.isStopped { throw ExitCode(130) }
        if runs.contains(where: { $0.failed > 0 }) { throw ExitCode(1) }
    }

    private func write(_ runs: [RunResult]) throws(BenchError) {
        let file = BenchFile(createdAt: Date().formatted(.iso8601), machine: .this(), runs: runs)
        if let jsonFile { try file.write(to: jsonFile) }
        if let report { try HTMLReport(file).write(to: report) }
    }
}

/// How hard, how long, how often.
struct LoadOptions: ParsableArguments {
    @Option(help: "Operations under way on each connection.")
    var inFlight = 1

    @Option(help: "Operations a second that begin, of all connections together: an open loop.")
    var rate: Double?

    @Flag(help: "With --rate: they arrive by chance (Poisson), as from many users; else evenly.")
    var poisson = false

    @Option(help: "Seconds that are measured.")
    var seconds = 10.0

    @Option(help: "Seconds of load before that, which are not.")
    var warmUp = 2.0

    @Option(help: "Seconds of each interval of the series.")
    var interval: Double?

    @Option(help: "With --rate: seconds after the end for which what was due is still done.")
    var drain = 10.0

    @Option(help: "How often each workload is run: `compare` wants 5 or more.")
    var repetitions = 1

    @Option(name: .customLong("server-pid"), help: "The server's process on this machine, to count its CPU.")
    var serverPID: Int32?

    func validate() throws {
        guard (1...1000).contains(repetitions) else { throw ValidationError("--repetitions takes 1 to 1,000.") }
        guard !poisson || rate != nil else { throw ValidationError("--poisson needs --rate.") }
    }

    var plan: LoadPlan {
        var plan = LoadPlan()
        plan.pace = rate.map { .open(rate: $0, poisson: poisson) } ?? .closed
        plan.warmUp = warmUp
        plan.seconds = seconds
        // Ten of a short run, one a second of a longer one.
        plan.interval = interval ?? max(0.01, min(1, seconds / 10))
        plan.drain = drain
        plan.serverPID = serverPID
        return plan
    }

    func checkServer() throws {
        guard let serverPID, kill(serverPID, 0) != 0, errno == ESRCH else { return }
        throw ValidationError("there is no process \(serverPID).")
    }
}

/// What the volumes and the requests are like.
struct DataOptions: ParsableArguments {
    @Option(help: "Bytes of each upload or download, 512B to 16MiB.")
    var size = ByteSize(argument: "64KiB")!

    @Option(help: "Bytes of each volume.")
    var volumeSize = ByteSize(argument: "1GiB")!

    @Option(help: "The volumes' chunk size, 4KiB to 4MiB.")
    var chunkSize = ByteSize(argument: "64KiB")!

    @Option(help: "Volumes of each account.")
    var volumes = 1

    @Option(help: "Of `mixed`: the percentage of downloads.")
    var readPercent = 70

    @Option(help: "Dedup ratio: all chunks by distinct chunks, 1 or more. 2: every other chunk was there before.")
    var dedup = 1.0

    @Option(help: "Compressibility: bytes by LZ4's bytes, 1 (not at all) to 20.")
    var compression = 1.0

    @Flag(help: "Compress uploads here, chunk by chunk, before they are sent.")
    var compressFirst = false

    @Option(help: "When uploads are answered: `durable`, or earlier and `on-flush`.")
    var durability = DurabilityArgument.durable

    @Option(help: "With --durability on-flush: uploads between two flushes of a lane; 0: never.")
    var flushEvery = 64

    @Flag(help: "Fill the volumes first also where nothing is read, so that uploads overwrite.")
    var fill = false

    @Flag(help: "Read full volumes once before, chunk by chunk: then the server has them in its page cache.")
    var readFirst = false

    @Option(help: "Of `snapshots` and `clones`: how many each lane keeps before it deletes its oldest.")
    var keep = 16

    @Option(help: "Another seed, other places and kinds of operations.")
    var seed: UInt64 = 1

    func validate() throws {
        guard ChunkSize(bytes: chunkSize.bytes) != nil else {
            throw ValidationError("--chunk-size is a power of two from 4KiB to 4MiB.")
        }
    }

    var options: WorkloadOptions {
        var options = WorkloadOptions()
        options.requestBytes = Int(clamping: size.bytes)
        options.volumeBytes = volumeSize.bytes
        options.chunkSize = ChunkSize(bytes: chunkSize.bytes) ?? options.chunkSize
        options.volumes = volumes
        options.readPercent = readPercent
        options.dedup = dedup
        options.compression = compression
        options.compressesFirst = compressFirst
        options.durability = durability == .durable ? .durable : .onFlush
        options.flushEvery = flushEvery
        options.fills = fill
        options.readsFirst = readFirst
        options.keep = keep
        options.seed = seed
        return options
    }
}

enum DurabilityArgument: String, ExpressibleByArgument, CaseIterable {
    case durable
    case onFlush = "on-flush"
}

/// A size as people write it.
struct ByteSize: ExpressibleByArgument, Equatable {
    let bytes: UInt64
    init?(argument: String) {
        guard let bytes = ByteCount.parse(argument) else { return nil }
        self.bytes = bytes
    }
    var defaultValueDescription: String { ByteCount.text(bytes).filter { $0 != " " } }
}
