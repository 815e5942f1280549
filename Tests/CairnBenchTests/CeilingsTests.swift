import Foundation
import Testing

@testable import CairnBench

struct CeilingsTests {
    @Test("Every primitive of our own is measured, and leaves nothing in the folder")
    func primitives() throws {
        let folder = NSTemporaryDirectory() + "ceilings-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var ceilings = Ceilings(seconds: 0.05, folder: folder)
        ceilings.fileBytes = 8 << 20
        let file = ceilings.measure(tools: false)
        #expect(file.missing.isEmpty, "\(file.missing)")
        #expect(file.primitives.count == (Ceilings.hasVectors ? 18 : 15))
        for each in file.primitives {
            #expect(each.operations > 0 && each.seconds > 0.02, "\(each.name)")
            #expect(
                each.bytes == each.operations * UInt64(each.blockBytes) || each.name.hasPrefix("TLS"),
                "\(each.name)"
            )
        }
        #expect(try #require(file.primitives.first).cpuSeconds.total > 0)
        // Each side counts the same calls, but those that were under way.
        let calls = file.primitives.filter { $0.name.hasPrefix("calls") }.map { Int($0.operations) }
        #expect(calls.count == 4 && abs(calls[0] - calls[1]) <= 8 && abs(calls[2] - calls[3]) <= 64, "\(calls)")
        let tls = file.primitives.filter { $0.name.hasPrefix("TLS") }
        // What one side sent, the other received.
        #expect(tls.count == (Ceilings.hasVectors ? 4 : 2))
        for out in stride(from: 0, to: tls.count, by: 2) {
            #expect(tls[out].bytes == tls[out + 1].bytes && tls[out].bytes > 0, "\(tls[out].name)")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
        #expect(file.text.contains("SHA-256") && BenchFile.json(file).contains("\"cpu_seconds_per_gib\""))
    }

    @Test func aFolderThatIsNotThereIsSaid() {
        let file = Ceilings(seconds: 0.01, folder: "/nowhere").measure(tools: false)
        #expect(file.missing.count == 5 && file.text.contains("not measured"))
    }

    @Test func aPartOfThem() throws {
        var ceilings = Ceilings(seconds: 0.01, folder: "/nowhere")
        ceilings.only = ["SHA", "calls, 8"]
        try ceilings.validate()
        let names = ceilings.measure(tools: false).primitives.map(\.name)
        let many = Ceilings.hasVectors ? ["SHA-256, 16 at once"] : []
        #expect(names == ["SHA-256", "calls, 8 x 1: client", "calls, 8 x 1: server"] + many)
        ceilings.only = ["SHA", "nothing"]
        #expect(throws: BenchError.self) { try ceilings.validate() }
    }

    @Test func whatPublicToolsSay() {
        #expect(
            PublicTool.openssl("+DT:sha256:1:65536\n+R:25:x\n+H:65536\n+F:22:sha256:1658934567.42\n") == 1658934567.42
        )
        let lz4 =
            "\r 1#Lorem : 10000000 -> 5858114 (1.707), 700.1 MB/s\r 1#Lorem : 10000000 -> 5858114 (1.707), 742.5 MB/s, 4217.0 MB/s \n"
        #expect(PublicTool.lz4(lz4) == 742.5e6)
        #expect(PublicTool.fio("note\n{\"jobs\": [{\"write\": {\"bw_bytes\": 5000, \"io\": 1}}]}") == 5000)
        #expect(PublicTool.openssl("no") == nil && PublicTool.lz4("no") == nil && PublicTool.fio("{}") == nil)
    }

    @Test("A tool that ends by a signal does so, though the pool's threads block them")
    func toolsGetTheirSignals() async throws {
        let tool = PublicTool(
            name: "alarm",
            by: "sh",
            blockBytes: 1,
            program: "sh",
            arguments: ["-c", "trap 'echo rate 5; exit 0' ALRM; kill -ALRM $$; sleep 60; exit 1"],
            note: ""
        ) { $0.contains("rate 5") ? 5 : nil }
        // As the command does: from a thread of the pool.
        let measured = try await Task.detached { () throws -> Primitive in try tool.measure() }.value
        #expect(measured.bytesPerSecond == 5 && measured.seconds < 50)
    }

    @Test func limits() {
        var ceilings = Ceilings(seconds: 1, folder: "/tmp")
        ceilings.blockBytes = 1000
        #expect(throws: BenchError.self) { try ceilings.validate() }
        #expect(throws: BenchError.self) { try Ceilings(seconds: 0, folder: "/tmp").validate() }
    }
}
