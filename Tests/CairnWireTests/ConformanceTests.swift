import CairnCore
import CairnWire
import Foundation
import SwiftProtobuf
import Testing

/// Runs proto/conformance: what every implementation of the protocol must do.
struct ConformanceTests {
    // MARK: Frames

    @Test func frames() throws {
        let file = try ContractFiles.json("conformance/frames.json")
        let limits = (try #require(file["message_limit"] as? UInt32), try #require(file["payload_limit"] as? UInt32))
        let cases = try #require(file["cases"] as? [[String: Any]])
        #expect(cases.count >= 55)
        for item in cases {
            let name = "\(item["number"] ?? "?"): \(item["name"] ?? "?")"
            let bytes = try #require((item["receive"] as? String).flatMap(Hex.decode), "\(name)")
            let expected = try #require(item["expect"] as? [String: Any])
            // In one piece, and byte by byte.
            for pieceSize in [max(bytes.count, 1), 1] {
                let seen = receive(bytes, pieceSize: pieceSize, limits: limits)
                #expect(seen.frames == frames(in: expected), "\(name)")
                #expect(seen.error == expected["error"] as? String, "\(name)")
                if seen.error == nil {
                    #expect(seen.isIncomplete == (expected["incomplete"] as? Bool ?? false), "\(name)")
                }
            }
        }
    }

    private func frames(in expected: [String: Any]) -> [[String: String]] {
        (expected["frames"] as? [[String: Any]] ?? []).map { $0.mapValues { "\($0)" } }
    }

    private func receive(
        _ bytes: [UInt8],
        pieceSize: Int,
        limits: (UInt32, UInt32)
    ) -> (frames: [[String: String]], error: String?, isIncomplete: Bool) {
        var decoder = FrameDecoder(messageLimit: limits.0, payloadLimit: limits.1)
        var frames: [[String: String]] = []
        for start in stride(from: 0, to: bytes.count, by: pieceSize) {
            let piece = Array(bytes[start..<min(start + pieceSize, bytes.count)])
            let error = piece.withUnsafeBytes { raw -> FrameError? in
                var input = raw
                do throws(FrameError) {
                    while true {
                        switch try decoder.next(in: &input) {
                        case .needsInput: return nil
                        case .header: continue
                        case .frame(let frame): frames.append(describe(frame))
                        }
                    }
                } catch { return error }
            }
            if let error { return (frames, rule(error), false) }
        }
        return (frames, nil, decoder.isMidFrame)
    }

    private func describe(_ frame: Frame) -> [String: String] {
        let header = frame.header
        var described = ["kind": "\(header.kind)".lowercased()]
        if header.method != 0 { described["method"] = "\(header.method)" }
        if header.callID != 0 { described["call_id"] = "\(header.callID)" }
        if header.value != 0 { described["value"] = "\(header.value)" }
        if header.credit != 0 { described["credit"] = "\(header.credit)" }
        if !frame.message.isEmpty { described["message"] = Hex.encode(frame.message) }
        if let payload = frame.payload { described["payload"] = Hex.encode(payload.bytes) }
        return described
    }

    private func rule(_ error: FrameError) -> String {
        switch error {
        case .version: "version"
        case .kind: "kind"
        case .flags: "flags"
        case .messageBeyondBody: "message_beyond_body"
        case .messageTooLong: "message_too_long"
        case .payloadTooLong: "payload_too_long"
        case .misplacedField: "misplaced_field"
        }
    }

    // MARK: Another implementation

    /// The Python client, which was written from the document alone, runs all of the cases too.
    @Test func pythonClient() throws {
        try expectSuccess("Tests/clients/python/conformance.py")
    }

    // MARK: Messages

    @Test func messages() throws {
        let cases = try #require(ContractFiles.json("conformance/messages.json")["cases"] as? [[String: Any]])
        #expect(cases.count >= 38)
        for item in cases {
            let type = try #require(allMessages.first { $0.messageName == item["message"] as? String }, "\(item)")
            let bytes = try #require((item["bytes"] as? String).flatMap(Hex.decode), "\(item)")
            try check(
                type,
                bytes,
                #require(item["expect"] as? [String: Any]),
                "\(item["number"] ?? "?"): \(item["name"] ?? "?")"
            )
        }
    }

    private func check<Message: RandomMessage & OracleConvertible>(
        _: Message.Type,
        _ bytes: [UInt8],
        _ expected: [String: Any],
        _ name: String
    ) throws {
        if let error = expected["error"] as? String {
            let expectedError: WireError =
                error == "invalid_text"
                ? .invalidText(message: Message.messageName) : .malformed(message: Message.messageName)
            #expect(throws: expectedError, "\(name)") { try Message.decode(bytes) }
            return
        }
        let message = try Message.decode(bytes)
        let json = try JSONSerialization.data(withJSONObject: #require(expected["value"]))
        #expect(try message.oracle == Message.Oracle(jsonUTF8Bytes: json), "\(name)")
        #expect(Hex.encode(message.encode()) == expected["encoding"] as? String, "\(name)")
    }
}

/// The files of `proto/`, from where this test was built.
enum ContractFiles {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static func url(_ path: String) -> URL { root.appendingPathComponent("proto").appendingPathComponent(path) }
    static func text(_ path: String) throws -> String { try String(contentsOf: url(path), encoding: .utf8) }
    static func json(_ path: String) throws -> [String: Any] {
        try #require(JSONSerialization.jsonObject(with: Data(contentsOf: url(path))) as? [String: Any])
    }
}

/// Runs a program of the repository; fails the test with what it said unless it exits with 0.
func expectSuccess(_ program: String, _ arguments: String..., location: SourceLocation = #_sourceLocation) throws {
    let output = Pipe()
    let process = Process()
    process.executableURL = ContractFiles.root.appendingPathComponent(program)
    process.arguments = arguments
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let words = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0, "\(words.prefix(2000))", sourceLocation: location)
}
