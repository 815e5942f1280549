import CairnTesting
import Foundation
import Testing

/// The corpora of the fuzzers, and what they once found, as they are and slightly changed: in every `swift test`.
@Suite struct CorpusTests {
    private static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("corpus")

    private static func inputs(_ target: FuzzTarget) throws -> [URL] {
        let folder = corpus.appendingPathComponent(target.rawValue)
        return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .sorted { $0.path < $1.path }
    }

    /// A trap ends the process: what was being run stands in the last line of its output.
    private static func run(_ target: FuzzTarget, _ bytes: [UInt8]) {
        bytes.withUnsafeBytes { target.run($0) }
    }

    @Test("Every input of the corpora is survived", arguments: FuzzTarget.allCases)
    func replay(_ target: FuzzTarget) throws {
        let inputs = try Self.inputs(target)
        #expect(inputs.count >= 3, "\(target) has no corpus")
        for input in inputs { Self.run(target, [UInt8](try Data(contentsOf: input))) }
        Self.run(target, [])
    }

    @Test("So is each of them with some bytes changed", arguments: FuzzTarget.allCases)
    func changed(_ target: FuzzTarget) throws {
        var random = SeededRandom(seed: 20_260_101)
        for input in try Self.inputs(target) {
            let original = [UInt8](try Data(contentsOf: input))
            for _ in 0..<20 {
                var bytes = original
                for _ in 0..<1 + random.below(4) where !bytes.isEmpty {
                    switch random.below(3) {
                    case 0: bytes[random.below(bytes.count)] = UInt8(random.below(256))
                    case 1: bytes.insert(UInt8(random.below(256)), at: random.below(bytes.count + 1))
                    default: bytes.remove(at: random.below(bytes.count))
                    }
                }
                Self.run(target, bytes)
            }
        }
    }
}
