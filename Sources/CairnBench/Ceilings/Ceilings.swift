internal import CCairnCeilings
import Foundation

/// Measures this machine's primitives, one after the other.
public struct Ceilings: Sendable {
    /// Of each primitive.
    public var seconds: Double
    /// Where files are made: on the disk that is to be measured.
    public var folder: String
    /// Of the file that is written and read.
    public var fileBytes: UInt64 = 256 << 20
    /// Of hashing, compression and TLS.
    public var blockBytes = 64 << 10
    /// Beginnings of names: only what has one of them is measured. None: everything.
    public var only: [String] = []

    public init(seconds: Double, folder: String) {
        self.seconds = seconds
        self.folder = folder
    }

    /// - Throws: `invalid` where a setting makes no sense.
    public func validate() throws(BenchError) {
        guard seconds > 0, seconds <= 600 else {
            throw BenchError(.invalid, "a primitive is measured for up to 600 seconds")
        }
        guard (4096...4 << 20).contains(blockBytes), blockBytes.isMultiple(of: 4096) else {
            throw BenchError(.invalid, "a block has 4 KiB to 4 MiB, in pages of 4 KiB")
        }
        guard fileBytes >= 8 << 20, fileBytes <= 64 << 30 else {
            throw BenchError(.invalid, "the file has 8 MiB to 64 GiB")
        }
        for name in only where !tasks.contains(where: { $0.name.hasPrefix(name) }) {
            throw BenchError(.invalid, "nothing that is measured is called '\(name)'")
        }
    }

    /// - Parameter progress: told what is measured next.
    public func measure(tools: Bool, progress: (String) -> Void = { _ in }) -> CeilingsFile {
        var file = CeilingsFile(createdAt: Date().formatted(.iso8601), machine: .this(), primitives: [], missing: [:])
        for task in tasks where isWanted(task.name) {
            progress(task.name)
            do throws(BenchError) { file.primitives += try task.run() } catch { file.missing[task.name] = error.text }
        }
        guard tools else { return file }
        for tool in PublicTool.all(self) where isWanted(tool.name) {
            progress("\(tool.name) by \(tool.by)")
            do throws(BenchError) { file.primitives.append(try tool.measure()) } catch {
                file.missing["\(tool.name) by \(tool.by)"] = error.text
            }
        }
        return file
    }

    private func isWanted(_ name: String) -> Bool { only.isEmpty || only.contains { name.hasPrefix($0) } }

    private struct Task {
        let name: String
        let run: () throws(BenchError) -> [Primitive]
    }

    private var tasks: [Task] { Self.hasVectors ? commonTasks + vectorTasks : commonTasks }

    private var commonTasks: [Task] {
        let block = blockBytes
        return [
            one("SHA-256", block) { cairn_ceiling_sha256(seconds, block, &$0) },
            one("LZ4 compress, programs", block) { result in
                Sample.programs.withUnsafeBytes {
                    cairn_ceiling_lz4_compress($0.baseAddress, $0.count, block, seconds, &result)
                }
            },
            one("LZ4 decompress, programs", block) { result in
                Sample.programs.withUnsafeBytes {
                    cairn_ceiling_lz4_decompress($0.baseAddress, $0.count, block, seconds, &result)
                }
            },
            one("LZ4 compress, noise", block) { result in
                let noise = Sample.noise(8 << 20)
                return noise.withUnsafeBytes {
                    cairn_ceiling_lz4_compress($0.baseAddress, $0.count, block, seconds, &result)
                }
            },
            Task(name: "TLS") { () throws(BenchError) in try tls() },
            Task(name: "calls, 8 x 1") { () throws(BenchError) in try calls(8, inFlight: 1) },
            Task(name: "calls, 1 x 64") { () throws(BenchError) in try calls(1, inFlight: 64) },
            one("write 1 MiB O_DIRECT", 1 << 20) {
                cairn_ceiling_disk_write(folder, fileBytes, 1 << 20, 0, seconds, &$0)
            },
            one("write 1 MiB O_DIRECT + fdatasync", 1 << 20) {
                cairn_ceiling_disk_write(folder, fileBytes, 1 << 20, 1, seconds, &$0)
            },
            one("write 4 KiB O_DIRECT + fdatasync", 4096) {
                cairn_ceiling_disk_write(folder, fileBytes, 4096, 1, seconds, &$0)
            },
            one("read 1 MiB O_DIRECT", 1 << 20) { cairn_ceiling_disk_read(folder, fileBytes, 1 << 20, seconds, &$0) },
            one("index: a chunk's 2 puts", 0) { cairn_ceiling_index_put(folder, seconds, &$0) },
        ]
    }

    /// Whether it is known how this processor does more than OpenSSL makes of it.
    static let hasVectors = cairn_ceiling_has_vectors() == 1
    private static let vectorLibrary = "libipsec-mb"
    /// The longest message that it takes, in whole blocks of SHA-256.
    private static let longestMessage = 65_534 / 64 * 64

    private var vectorTasks: [Task] {
        let block = min(blockBytes, Self.longestMessage)
        return [
            one("SHA-256, 16 at once", block, note: Self.vectorLibrary) {
                cairn_ceiling_sha256_many(seconds, block, &$0)
            },
            Task(name: "TLS 1.3 records") { () throws(BenchError) in try records() },
        ]
    }

    private func one(
        _ name: String,
        _ block: Int,
        note: String = "",
        _ measure: @escaping (inout cairn_ceiling) -> Int32
    ) -> Task {
        Task(name: name) { () throws(BenchError) in
            var result = cairn_ceiling()
            let status = measure(&result)
            guard status == 0 else { throw BenchError(.machine, result.why) }
            return [Primitive(name, block, result, note: note)]
        }
    }

    private func tls() throws(BenchError) -> [Primitive] {
        var (sender, receiver) = (cairn_ceiling(), cairn_ceiling())
        guard cairn_ceiling_tls(seconds, blockBytes, &sender, &receiver) == 0 else {
            throw BenchError(.machine, sender.why)
        }
        return [
            Primitive("TLS 1.3 out, loopback", blockBytes, sender),
            Primitive("TLS 1.3 in, loopback", blockBytes, receiver),
        ]
    }

    private func records() throws(BenchError) -> [Primitive] {
        var (sender, receiver) = (cairn_ceiling(), cairn_ceiling())
        guard cairn_ceiling_records(seconds, blockBytes, &sender, &receiver) == 0 else {
            throw BenchError(.machine, sender.why)
        }
        return [
            Primitive("TLS 1.3 records out, vector AES", blockBytes, sender, note: Self.vectorLibrary),
            Primitive("TLS 1.3 records in, vector AES", blockBytes, receiver, note: Self.vectorLibrary),
        ]
    }

    /// About what DescribeVolume takes, with the frames.
    private static let callBytes = (request: 50, answer: 160)

    private func calls(_ connections: Int32, inFlight: Int32) throws(BenchError) -> [Primitive] {
        var (client, server) = (cairn_ceiling(), cairn_ceiling())
        let (request, answer) = Self.callBytes
        guard cairn_ceiling_calls(connections, inFlight, request, answer, seconds, &client, &server) == 0 else {
            throw BenchError(.machine, client.why)
        }
        return [
            Primitive("calls, \(connections) x \(inFlight): client", request + answer, client),
            Primitive("calls, \(connections) x \(inFlight): server", request + answer, server),
        ]
    }
}

extension cairn_ceiling {
    fileprivate var why: String {
        withUnsafeBytes(of: error) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

extension Primitive {
    fileprivate init(_ name: String, _ block: Int, _ result: cairn_ceiling, note: String = "") {
        let span = max(result.seconds, 1e-9)
        let cpu = CPUSeconds(CPUTime(user: result.user, system: result.system))
        self.init(
            name: name,
            by: "cairn-bench",
            blockBytes: block,
            seconds: result.seconds,
            bytes: result.bytes,
            operations: result.operations,
            bytesPerSecond: Double(result.bytes) / span,
            operationsPerSecond: Double(result.operations) / span,
            cpuSeconds: cpu,
            cpuSecondsPerGib: result.bytes > 0 ? cpu.total / (Double(result.bytes) / Double(1 << 30)) : nil,
            cpuUsPerOperation: result.operations > 0 ? cpu.total * 1e6 / Double(result.operations) : nil,
            note: result.ratio > 0 ? "ratio " + Text.digits(result.ratio) : note
        )
    }
}

/// Data to compress.
enum Sample {
    /// Read once, by who needs it first.
    static let programs = files(atMost: 32 << 20)

    /// What a machine's disk holds: files of /usr/bin and /usr/lib, one after the other; noise where there are none.
    static func files(atMost limit: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(limit)
        for folder in ["/usr/bin", "/usr/lib"] {
            let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
            for name in names where bytes.count < limit {
                guard let data = FileManager.default.contents(atPath: "\(folder)/\(name)"), data.count < 4 << 20 else {
                    continue
                }
                bytes.append(contentsOf: data.prefix(limit - bytes.count))
            }
        }
        return bytes.count >= 4 << 20 ? bytes : noise(limit)
    }

    static func noise(_ count: Int) -> [UInt8] {
        (0..<UInt64(count / 8)).map { Mix.hash($0) }.withUnsafeBytes { Array($0) }
    }
}
