import Foundation

/// What `--json` writes: see "The file of a measurement" in the README. Names are in snake_case there.
public struct BenchFile: Codable, Sendable {
    public static let currentSchema = "cairn-bench/1"

    public var schema = BenchFile.currentSchema
    /// RFC 3339, UTC.
    public var createdAt: String
    public var machine: Machine
    public var runs: [RunResult]

    public init(createdAt: String, machine: Machine, runs: [RunResult]) {
        self.createdAt = createdAt
        self.machine = machine
        self.runs = runs
    }

    /// - Throws: `file` where it cannot be read, or is none of ours.
    public static func read(_ path: String) throws(BenchError) -> BenchFile {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw BenchError(.file, "\(path) cannot be read")
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let file: BenchFile
        do {
            file = try decoder.decode(BenchFile.self, from: data)
        } catch {
            throw BenchError(.file, "\(path) is no measurement of cairn-bench: \(error)")
        }
        guard file.schema == currentSchema else {
            throw BenchError(.file, "\(path) has the schema '\(file.schema)', and we know '\(currentSchema)'")
        }
        return file
    }

    /// - Throws: `file` where it cannot be written.
    public func write(to path: String) throws(BenchError) { try Self.write(Self.json(self), to: path) }

    /// - Throws: `file` where it cannot be written.
    public static func write(_ text: String, to path: String) throws(BenchError) {
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        } catch {
            throw BenchError(.file, "\(path) cannot be written: \(error.localizedDescription)")
        }
    }

    /// Keys in snake_case and in order.
    public static func json(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        // Numbers are finite: divisions by nothing are avoided where they are made.
        guard let data = try? encoder.encode(value) else { preconditionFailure("a result that does not encode") }
        return String(decoding: data, as: UTF8.self) + "\n"
    }
}

/// Where it was measured.
public struct Machine: Codable, Sendable, Equatable {
    public var cores: Int
    public var processor: String
    public var kernel: String
    public var memoryBytes: UInt64
    /// Of cairn-bench itself: `debug` is for tests only.
    public var build: String

    public static func this() -> Machine {
        let facts = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let model = facts.split(separator: "\n").first { $0.hasPrefix("model name") }
        let kernel = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? ""
        #if DEBUG
            let build = "debug"
        #else
            let build = "release"
        #endif
        return Machine(
            cores: ProcessInfo.processInfo.activeProcessorCount,
            processor: model?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "",
            kernel: kernel.trimmingCharacters(in: .whitespacesAndNewlines),
            memoryBytes: ProcessInfo.processInfo.physicalMemory,
            build: build
        )
    }
}

/// Processor seconds.
public struct CPUSeconds: Codable, Sendable, Equatable {
    public var user: Double
    public var system: Double
    public var total: Double

    public init(_ time: CPUTime) {
        user = time.user
        system = time.system
        total = time.total
    }
}

/// Latencies in microseconds; 0 where nothing was measured.
public struct Latencies: Codable, Sendable, Equatable {
    public var count: UInt64
    public var min, mean, p50, p75, p90, p95, p99, p999, p9999, max: Double

    init(_ histogram: Histogram) {
        func at(_ percent: Double) -> Double { Double(histogram.percentile(percent)) / 1000 }
        count = histogram.count
        min = Double(histogram.minimum) / 1000
        mean = histogram.mean / 1000
        (p50, p75, p90, p95) = (at(50), at(75), at(90), at(95))
        (p99, p999, p9999) = (at(99), at(99.9), at(99.99))
        max = Double(histogram.maximum) / 1000
    }
}
