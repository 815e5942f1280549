import CairnBench
import CairnClient
import Foundation
import Testing

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// `cairn-bench` as a user runs it, against a real server.
@Suite(.serialized, .server())
struct LoadTests {
    private let server = ServerProcess.shared
    private var folder: WorkFolder { server.folder }

    private func bench(_ account: String, _ arguments: [String], limit: Duration = .seconds(120)) async throws
        -> ChildProcess.Outcome
    {
        let environment = try server.environment(account)
        return try await run(
            Program.folder + "/cairn-bench",
            arguments,
            environment: environment,
            limit: limit,
            in: folder
        )
    }

    /// For one that does not end by itself.
    private func start(_ account: String, _ arguments: [String]) throws -> ChildProcess {
        try ChildProcess(
            Program.folder + "/cairn-bench",
            arguments,
            environment: try server.environment(account),
            in: folder
        )
    }

    private static let small = ["--volume-size", "2MiB", "--seconds", "1", "--warm-up", "0.1", "--quiet"]

    @Test("Every workload runs against a real server, and leaves nothing behind")
    func everyWorkload() async throws {
        let account = freshAccount("bench")
        let (json, page) = (folder.fresh("json"), folder.fresh("html"))
        let arguments = [
            "run", "all", "--in-flight", "2", "--keep", "2", "--read-first", "--server-pid", "\(server.pid)", "--json",
            json, "--report", page,
        ]
        let outcome = try await bench(account, arguments + Self.small)
        #expect(outcome.status == 0, "\(outcome.errors.suffix(1000)) \(outcome.output.suffix(2000))")
        let file = try BenchFile.read(json)
        #expect(file.runs.map(\.workload) == Workload.allCases.map(\.rawValue))
        for run in file.runs {
            #expect(run.operations > 0 && run.failed == 0 && run.seconds == 1, "\(run.label)")
            #expect(run.latencyUs.count > 0 && run.latencyUs.p50 > 0 && run.latencyUs.p50 <= run.latencyUs.max)
            #expect(run.clientCpuSeconds.total > 0 && run.serverCpuSeconds != nil && !run.intervals.isEmpty)
            #expect(run.intervals.reduce(0) { $0 + $1.operations } == run.operations)
            #expect(outcome.output.contains(run.label))
        }
        let kinds = file.runs.map { Set($0.kinds.keys) }
        #expect(kinds[4] == ["download", "upload"] && kinds[6] == ["create-snapshot", "delete-snapshot"])
        let readFirst: [String?] = [nil, nil, "true", "true", "true", nil, nil, nil]
        #expect(file.runs.map { $0.options["read_first"] } == readFirst)
        #expect(XMLParser(data: try Data(contentsOf: URL(fileURLWithPath: page))).parse())
        let client = try server.client(account)
        #expect(try await client.volumes(state: .available).all().isEmpty)
    }

    @Test("An open loop on several connections and accounts, with data as asked for and early answers")
    func openLoop() async throws {
        let (one, other) = (freshAccount("bench"), freshAccount("bench"))
        _ = try server.credentials(other)
        let json = folder.fresh("json")
        let arguments = [
            "run", "seq-upload", "--rate", "50", "--poisson", "--connections", "4", "--also", server.pki + "/" + other,
            "--volumes", "2", "--size", "128KiB", "--dedup", "4", "--compression", "2", "--compress-first",
            "--durability",
            "on-flush", "--flush-every", "3", "--json", json,
        ]
        let outcome = try await bench(one, arguments + Self.small)
        #expect(outcome.status == 0, "\(outcome.errors.suffix(1000))")
        let run = try #require(try BenchFile.read(json).runs.first)
        #expect(run.pace == "open" && run.rate == 50 && run.accounts == 2 && run.connections == 4)
        #expect(run.kinds.keys.sorted() == ["flush", "upload"])
        #expect(try await bench(one, ["compare", json, json]).output.contains("operations/s"))
        let page = folder.fresh("html")
        #expect(try await bench(one, ["report", json, json, "--output", page]).status == 0)
        #expect(XMLParser(data: try Data(contentsOf: URL(fileURLWithPath: page))).parse())
    }

    @Test("Ctrl-C ends a run in order: with the table and the file, and the volumes deleted")
    func interrupted() async throws {
        let account = freshAccount("bench")
        let json = folder.fresh("json")
        let arguments = ["run", "rand-upload", "describe", "--seconds", "600", "--warm-up", "0", "--json", json]
        let child = try start(account, arguments)
        let client = try server.client(account)
        try await eventually("the volume is there") { try await !client.volumes(state: .available).all().isEmpty }
        try await Task.sleep(for: .seconds(1))
        child.send(SIGINT)
        let outcome = try await child.wait()
        #expect(outcome.status == 130 && outcome.output.contains("interrupted after"), "\(outcome.errors)")
        let file = try BenchFile.read(json)
        #expect(file.runs.count == 1 && file.runs[0].interrupted && file.runs[0].operations > 0)
        #expect(try await client.volumes(state: .available).all().isEmpty)
    }

    @Test("With --fill all of the volume is written before anything is measured")
    func filled() async throws {
        let account = freshAccount("bench")
        let json = folder.fresh("json")
        // An upload a second: whatever else is written was written before.
        let arguments = [
            "run", "seq-upload", "--fill", "--size", "4KiB", "--rate", "1", "--volume-size", "2MiB", "--seconds", "600",
            "--warm-up", "0", "--json", json,
        ]
        let child = try start(account, arguments)
        let client = try server.client(account)
        try await eventually("the volume is full") {
            guard let volume = try await client.volumes(state: .available).all().first else { return false }
            let written = try await client.blocks(of: .volume(volume.id)).all().filter { $0.state == .data }
            return written.reduce(UInt64(0)) { $0 + $1.length } == 2 << 20
        }
        try await Task.sleep(for: .seconds(1))
        child.send(SIGINT)
        #expect(try await child.wait().status == 130)
        let run = try #require(try BenchFile.read(json).runs.first)
        #expect(run.options["filled"] == "true" && run.operations < 32)
    }

    @Test("What the server refuses is counted by reason, and is a failure")
    func refusals() async throws {
        let account = freshAccount("bench")
        let admin = try server.issue(freshAccount("admin"), [.uri("cairn://admin")])
        var limits = AccountLimits()
        limits.volumes = 4
        try await Client(server: server.endpoint, credentials: admin).setLimits(limits, of: account)
        let outcome = try await bench(account, ["run", "clones", "--keep", "50"] + Self.small)
        #expect(outcome.status == 1 && outcome.output.contains("failed: QUOTA_EXCEEDED"), "\(outcome.output)")
    }

    @Test(
        "Wrong usage is 64",
        arguments: [
            [], ["rand-read"], ["rand-upload", "--size", "1000"], ["rand-upload", "--dedup", "2", "--size", "4KiB"],
            ["rand-upload", "--seconds", "0"], ["mixed", "--read-percent", "101"], ["describe", "--rate", "0"],
            ["describe", "--poisson"], ["describe", "--connections", "0"], ["describe", "--also", "x"],
            ["rand-upload", "--chunk-size", "5KiB"], ["rand-upload", "--volume-size", "1000"],
        ]
    )
    func wrongUsage(arguments: [String]) async throws {
        #expect(try await bench(freshAccount(), ["run"] + arguments).status == 64)
    }
}
