import Foundation

/// A folder of a test's own, removed with its last reference.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("cairn-crypto-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    func text(_ name: String) throws -> String { try String(contentsOfFile: file(name), encoding: .utf8) }

    /// The permission bits of a file.
    func mode(_ name: String) throws -> Int {
        let facts = try FileManager.default.attributesOfItem(atPath: file(name))
        return (facts[.posixPermissions] as? NSNumber)?.intValue ?? -1
    }
}

/// The `openssl` command: an independent reader of what was written.
enum OpenSSLCommand {
    struct Outcome {
        let status: Int32
        /// Standard output and standard error together.
        let text: String
    }

    /// Runs for at most ten seconds.
    static func run(_ arguments: String...) throws -> Outcome {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/timeout")
        process.arguments = ["10", "openssl"] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Outcome(status: process.terminationStatus, text: text)
    }
}
