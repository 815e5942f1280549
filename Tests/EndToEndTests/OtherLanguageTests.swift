import Foundation
import Testing

/// Clients that share no code with ours.
@Suite(.serialized, .server())
struct OtherLanguageTests {
    private let server = ServerProcess.shared
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    @Test("G7: a Python client, written from PROTOCOL.md alone: create, upload, download, seal, errors",
        .enabled(if: Python.isThere, "skipped: python3-protobuf or protoc is missing here"))
    func python() async throws {
        let folder = server.folder
        let generated = folder.file("generated")
        try FileManager.default.createDirectory(atPath: generated, withIntermediateDirectories: true)
        let protos = try FileManager.default.contentsOfDirectory(atPath: Self.root + "/proto/cairn/v1").filter { $0.hasSuffix(".proto") }
        try await require(
            "/usr/bin/env", ["protoc", "-I", Self.root + "/proto", "--python_out=" + generated] + protos.map { "cairn/v1/" + $0 }, in: folder)
        let clients = Self.root + "/Tests/clients/python"
        let files = try server.credentials(freshAccount())
        let outcome = try await run(
            Python.path,
            [
                "-B", clients + "/round_trip.py", "127.0.0.1", "\(server.endpoint.port)", files.certificate, files.privateKey,
                files.authorities,
            ], environment: ["PYTHONPATH": generated], limit: .seconds(60), in: folder)
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.output == "OK\n")
    }
}

enum Python {
    /// Debian's own: it finds Debian's protobuf.
    static let path = "/usr/bin/python3"
    static let isThere: Bool = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "command -v protoc && /usr/bin/python3 -c 'import google.protobuf'"]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()
}
