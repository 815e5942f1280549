import CairnCore
import CairnCrypto
import CairnTesting
import Foundation

@testable import CairnClient

/// A folder that goes away with its test.
final class TemporaryFolder: Sendable {
    let path: String
    init() {
        path = FileManager.default.temporaryDirectory.path + "/cairn-client-\(UUID().uuidString)"
        try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    /// Writes a file with holes wherever no part is.
    func sparse(_ name: String, size: UInt64, _ parts: [UInt64: [UInt8]]) throws -> String {
        let file = try OpenFile.open(self.file(name), OpenFile.readWrite | OpenFile.create)
        try file.setSize(size)
        for (offset, bytes) in parts { try bytes.withUnsafeBytes { try file.write(at: offset, $0) } }
        return self.file(name)
    }
}

extension SeededRandom {
    /// Bytes that compress.
    mutating func text(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(97 + next() % 4) } }
}

func contents(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path))) }

/// Runs `body`, and gives up after a limit: a test that hangs is a test that failed.
func limited<Value: Sendable>(
    _ limit: Duration = .seconds(120),
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await within(limit, "what the test does", body)
}

func fingerprint(_ bytes: UnsafeRawBufferPointer) -> Fingerprint { SHA256.hash(bytes) }
