import CairnCore
import CairnWire
import Foundation
import Testing

/// proto/conformance/session.json, against a real server: what it answers to a sequence of frames on one connection.
@Suite(.serialized, .server(), .timeLimit(.minutes(10)))
struct SessionConformanceTests {
    private let server = ServerProcess.shared
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path
    private static let folder = root + "/proto/conformance"

    @Test("G7: a server keeps to proto/conformance/session.json, case by case")
    func sessions() async throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: Self.folder + "/session.json"))
        let file = try JSONDecoder().decode(SessionFile.self, from: data)
        let document = try String(contentsOfFile: Self.root + "/proto/PROTOCOL.md", encoding: .utf8)
        #expect(file.cases.count >= 150)
        let credentials = try server.credentials(freshAccount("conformance"))
        for item in file.cases {
            let isStated = document.contains("# \(item.rule)\n") || document.contains("**\(item.rule)")
            #expect(isStated, "\(item.number): PROTOCOL.md has no section \(item.rule)")
            do {
                let stream = try TLSStream(server.endpoint, credentials, in: server.folder)
                try await ConformanceSession(stream, file).run(item)
            } catch {
                Issue.record("\(item.number) \(item.name): \(error)")
            }
        }
        #expect(server.child.isRunning)
    }

    @Test(
        "G7: the Python client runs all cases, those of sessions against this server",
        .enabled(if: Python.isThere, "skipped: python3-protobuf or protoc is missing here")
    )
    func python() async throws {
        let files = try server.credentials(freshAccount("conformance"))
        let outcome = try await run(
            Python.path,
            [
                "-B", Self.root + "/Tests/clients/python/conformance.py", server.endpoint.host,
                "\(server.endpoint.port)", files.certificate, files.privateKey, files.authorities,
            ],
            limit: .seconds(240),
            in: server.folder
        )
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.output == "\(try Self.numbers().count) cases, 0 failed\n")
    }

    @Test("Every conformance case has a number of its own, and there are enough of them")
    func numbering() throws {
        let numbers = try Self.numbers()
        #expect(numbers.count >= 150)
        let repeated = Dictionary(grouping: numbers) { $0 }.filter { $1.count > 1 }.keys.sorted()
        #expect(repeated.isEmpty, "given twice: \(repeated)")
        #expect(!numbers.contains(""))
    }

    /// Of all cases in all files.
    private static func numbers() throws -> [String] {
        struct File: Decodable {
            struct Case: Decodable { let number: String }
            let cases: [Case]
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".json") }
        #expect(names.count >= 4)
        return try names.sorted().flatMap { name in
            let data = try Data(contentsOf: URL(fileURLWithPath: folder + "/" + name))
            return try JSONDecoder().decode(File.self, from: data).cases.map(\.number)
        }
    }
}

// MARK: The file

private struct SessionFile: Decodable {
    struct Limits: Decodable {
        let maxMessageBytes: UInt32
        let maxPayloadBytes: UInt32
        let maxCalls: UInt32
        let initialCredit: UInt32

        enum CodingKeys: String, CodingKey {
            case maxMessageBytes = "max_message_bytes"
            case maxPayloadBytes = "max_payload_bytes"
            case maxCalls = "max_calls"
            case initialCredit = "initial_credit"
        }
    }

    struct Case: Decodable {
        let number: String
        let name: String
        let rule: String
        let greet: Bool?
        let steps: [Step]
    }

    struct Step: Decodable {
        let send: [Sent]
        let receive: [Expected]
        var ends: Bool?
    }

    /// A frame to send, or bytes that are none.
    struct Sent: Decodable {
        var bytes: Value?
        var kind: Value?
        var method: Value?
        var callID: String?
        var value: UInt32?
        var credit: UInt32?
        var version: UInt8?
        var flags: UInt16?
        var bodyLength: UInt32?
        var messageLength: UInt32?
        var message: Value?
        var payload: Value?

        enum CodingKeys: String, CodingKey {
            case bytes, kind, method, value, credit, version, flags, message, payload
            case callID = "call_id"
            case bodyLength = "body_length"
            case messageLength = "message_length"
        }
    }

    struct Expected: Decodable {
        let kind: String
        var callID: String?
        /// One, or a list of those that are as good.
        var status: Value?
        var reason: String?
        var blockIndex: Int?
        var retryable: Bool?
        var payload: Value?
        var fields: [String: Value]?
        var keep: [String: UInt64]?

        enum CodingKeys: String, CodingKey {
            case kind, status, reason, retryable, payload, fields, keep
            case callID = "call_id"
            case blockIndex = "block_index"
        }
    }

    /// What a JSON value can be here; the runner knows what it means at its place.
    enum Value: Decodable {
        case number(UInt64)
        case text(String)
        case list([Value])
        case object([String: Value])

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let number = try? container.decode(UInt64.self) {
                self = .number(number)
            } else if let text = try? container.decode(String.self) {
                self = .text(text)
            } else if let list = try? container.decode([Value].self) {
                self = .list(list)
            } else {
                self = .object(try container.decode([String: Value].self))
            }
        }
    }

    let server: Limits
    let hello: Sent
    let cases: [Case]
}

// MARK: Bytes

/// Turns what a case writes into bytes.
private struct CaseEncoder {
    /// What earlier answers held.
    var kept: [String: [UInt8]] = [:]

    /// Bytes: in hexadecimal, a text, one byte again and again, or what an earlier answer held.
    func bytes(_ value: SessionFile.Value?) throws -> [UInt8] {
        switch value {
        case nil: return []
        case .text(let digits):
            if let bytes = Hex.decode(digits) { return bytes }
        case .object(let object):
            if case .text(let text)? = object["text"] { return Array(text.utf8) }
            if case .text(let name)? = object["kept"], let bytes = kept[name] { return bytes }
            if case .number(let byte)? = object["byte"], case .number(let count)? = object["length"] {
                return Array(repeating: UInt8(byte), count: Int(count))
            }
        case .number, .list: break
        }
        throw HarnessError("these are no bytes: \(String(describing: value).prefix(200))")
    }

    /// A message: its fields by number, or bytes.
    func message(_ value: SessionFile.Value?) throws -> [UInt8] {
        guard case .object(let object)? = value, object.keys.allSatisfy({ UInt64($0) != nil }) else {
            return try bytes(value)
        }
        var output: [UInt8] = []
        let fields = object.map { (number: UInt64($0.key)!, value: $0.value) }.sorted { $0.number < $1.number }
        for (number, value) in fields {
            for one in repeated(value) { output += try field(number, one) }
        }
        return output
    }

    private func repeated(_ value: SessionFile.Value) -> [SessionFile.Value] {
        switch value {
        case .list(let values): return values
        case .object(let object):
            guard case .number(let count)? = object["times"], let one = object["of"] else { return [value] }
            return Array(repeating: one, count: Int(count))
        case .number, .text: return [value]
        }
    }

    private func field(_ number: UInt64, _ value: SessionFile.Value) throws -> [UInt8] {
        if case .number(let value) = value { return Self.varint(number << 3) + Self.varint(value) }
        let body = try message(value)
        return Self.varint(number << 3 | 2) + Self.varint(UInt64(body.count)) + body
    }

    static func varint(_ value: UInt64) -> [UInt8] {
        var (output, rest) = ([UInt8](), value)
        while rest >= 128 {
            output.append(UInt8(rest & 127) | 128)
            rest >>= 7
        }
        return output + [UInt8(rest)]
    }

    /// A message's fields by number, the last of each: numbers as such, all else as bytes.
    static func topFields(_ message: [UInt8]) throws -> [UInt64: (number: UInt64, bytes: [UInt8])] {
        var found: [UInt64: (number: UInt64, bytes: [UInt8])] = [:]
        var rest = message[...]
        func take() throws -> UInt64 {
            var (value, shift): (UInt64, UInt64) = (0, 0)
            while let byte = rest.popFirst() {
                value |= UInt64(byte & 127) << shift
                shift += 7
                if byte < 128 { return value }
            }
            throw HarnessError("the answer's message ends in a field")
        }
        while !rest.isEmpty {
            let (key, value) = (try take(), try take())
            if key & 7 == 2 {
                found[key >> 3] = (0, Array(rest.prefix(Int(value))))
                rest = rest.dropFirst(Int(value))
            } else {
                found[key >> 3] = (value, [])
            }
        }
        return found
    }
}

// MARK: The connection

/// One connection, on which one case runs. Every wait is limited.
private final class ConformanceSession {
    private struct Received {
        let header: FrameHeader
        let message: [UInt8]
        let payload: [UInt8]

        var place: (UInt8, UInt64) { (header.kind.rawValue, header.callID) }
    }

    private static let closingPing = "12648430"
    private static let kinds = Dictionary(uniqueKeysWithValues: FrameKind.allCases.map { ("\($0)".lowercased(), $0) })
    private static let methods = Dictionary(
        uniqueKeysWithValues: Wire.Method.allCases.map { ($0.name, UInt32($0.rawValue)) }
    )

    private let stream: TLSStream
    private let file: SessionFile
    private var encoder = CaseEncoder()
    /// Of calls that were not answered yet.
    private var methodsInFlight: [UInt64: UInt32] = [:]
    /// Frames, but for CREDIT, that earlier steps had.
    private var taken = 0
    private var cost = 0
    private var hasEnded = false

    init(_ stream: TLSStream, _ file: SessionFile) {
        self.stream = stream
        self.file = file
    }

    func run(_ item: SessionFile.Case) async throws {
        if item.greet ?? true {
            try await step(.init(send: [file.hello], receive: [.init(kind: "hello")]))
        }
        for step in item.steps { try await self.step(step) }
        if !hasEnded { try await part() }
    }

    /// What holds after every case: nothing else came, all credit is back, and the connection is as good as before.
    private func part() async throws {
        let ping = SessionFile.Sent(kind: .text("ping"), callID: Self.closingPing)
        try await step(.init(send: [ping], receive: [.init(kind: "pong", callID: Self.closingPing)]))
        try await eventually("all credit is back") { try returned() >= cost }
        try check(try frames().count == taken, "more came")
    }

    private func step(_ step: SessionFile.Step) async throws {
        stream.child.write(try step.send.flatMap(encode))
        let expected = step.receive
        if (step.ends ?? false) || expected.contains(where: { $0.kind == "goaway" }) {
            _ = try await stream.child.wait(limit: .seconds(20))
            hasEnded = true
        } else {
            try await eventually("\(expected.count) frames come") {
                let isOver = !stream.child.isRunning
                let count = try frames().count - taken
                try check(!isOver || count >= expected.count, "the server closed")
                return count >= expected.count
            }
        }
        let seen = Array(try frames().dropFirst(taken))
        taken += seen.count
        try check(seen.count == expected.count, "came: \(seen.map(\.header))")
        if hasEnded, let last = expected.last {
            try check(seen.last?.header.kind == Self.kinds[last.kind], "the last frame is \(seen.map(\.header))")
        }
        let places = try expected.map { one in (one, place: try place(of: one)) }
        for (frame, one) in zip(
            seen.sorted { $0.place < $1.place },
            places.sorted { $0.place < $1.place }
        ) {
            try check(frame.place == one.place, "came: \(frame.header)")
            try check(frame, one.0)
        }
        try check(try returned() <= cost, "\(try returned()) bytes of credit came back, \(cost) were taken")
    }

    private func place(of expected: SessionFile.Expected) throws -> (UInt8, UInt64) {
        guard let kind = Self.kinds[expected.kind] else { throw HarnessError("no kind \(expected.kind)") }
        return (kind.rawValue, UInt64(expected.callID ?? "0") ?? 0)
    }

    // MARK: Sending

    private func encode(_ frame: SessionFile.Sent) throws -> [UInt8] {
        guard let name = frame.kind else { return try encoder.bytes(frame.bytes) }
        let (message, payload) = (try encoder.message(frame.message), try encoder.bytes(frame.payload))
        let kind: UInt8
        switch name {
        case .number(let number): kind = UInt8(number)
        case .text(let text): kind = Self.kinds[text]?.rawValue ?? 0
        default: throw HarnessError("no kind: \(name)")
        }
        let method: UInt32
        switch frame.method {
        case nil: method = 0
        case .number(let number)?: method = UInt32(number)
        case .text(let text)?:
            guard let known = Self.methods[text] else { throw HarnessError("no method \(text)") }
            method = known
        default: throw HarnessError("no method")
        }
        let body = message.count + payload.count
        let callID = UInt64(frame.callID ?? "0") ?? 0
        if kind == FrameKind.request.rawValue {
            methodsInFlight[callID] = method
            if !payload.isEmpty || body > 4096 { cost += body }
        }
        var bytes = Content.littleEndian(frame.bodyLength ?? UInt32(body))
        bytes += [frame.version ?? 1, kind]
        bytes += Content.littleEndian(frame.flags ?? 0)
        bytes += Content.littleEndian(method)
        bytes += Content.littleEndian(frame.messageLength ?? UInt32(message.count))
        bytes += Content.littleEndian(callID)
        bytes += Content.littleEndian(frame.value ?? 0)
        bytes += Content.littleEndian(frame.credit ?? 0)
        return bytes + message + payload
    }

    // MARK: Receiving

    /// All whole frames so far, but for CREDIT.
    private func frames() throws -> [Received] { try allFrames().filter { $0.header.kind != .credit } }
    /// Bytes of credit that came back so far.
    private func returned() throws -> Int { try allFrames().reduce(0) { $0 + Int($1.header.credit) } }

    private func allFrames() throws -> [Received] {
        var rest = stream.child.outputBytes[...]
        var found: [Received] = []
        while rest.count >= FrameHeader.byteCount {
            let header = try Array(rest.prefix(FrameHeader.byteCount)).withUnsafeBytes {
                try FrameHeader(decoding: $0)
            }
            let body = rest.dropFirst(FrameHeader.byteCount)
            guard body.count >= header.bodyBytes else { break }
            let message = body.prefix(Int(header.messageBytes))
            let payload = body.dropFirst(message.count).prefix(Int(header.payloadBytes))
            found.append(Received(header: header, message: Array(message), payload: Array(payload)))
            rest = body.dropFirst(header.bodyBytes)
        }
        return found
    }

    private func check(_ condition: Bool, _ text: @autoclosure () throws -> String) throws {
        guard condition else { throw HarnessError(try text()) }
    }

    private func check(_ frame: Received, _ expected: SessionFile.Expected) throws {
        switch frame.header.kind {
        case .hello: try checkHello(try Wire.Hello.decode(frame.message))
        case .response:
            let method = methodsInFlight.removeValue(forKey: frame.header.callID)
            try check(method == frame.header.method, "an answer of another method, or a second one: \(frame.header)")
            try checkEnd(frame, expected)
            if frame.header.value == 0 { try checkAnswer(frame, expected) }
        case .goAway: try checkEnd(frame, expected)
        default: break
        }
    }

    private func checkHello(_ hello: Wire.Hello) throws {
        let limits = Wire.SessionLimits(
            maxMessageBytes: file.server.maxMessageBytes,
            maxPayloadBytes: file.server.maxPayloadBytes,
            maxCalls: file.server.maxCalls,
            initialCredit: file.server.initialCredit
        )
        try check(hello.protocolVersion == 1 && hello.limits == limits && hello.server != nil, "HELLO: \(hello)")
    }

    /// The status of a RESPONSE or GOAWAY, and its detail.
    private func checkEnd(_ frame: Received, _ expected: SessionFile.Expected) throws {
        let wanted: [String] =
            switch expected.status {
            case nil: ["OK"]
            case .text(let name)?: [name]
            case .list(let names)?: names.compactMap { if case .text(let name) = $0 { name } else { nil } }
            default: []
            }
        let status = Status(rawValue: frame.header.value).map { "\($0)" } ?? "\(frame.header.value)"
        guard frame.header.value != 0 else {
            return try check(wanted.contains(status), "the answer is OK")
        }
        let detail = try Wire.ErrorDetail.decode(frame.message)
        let told = "\(status) \(detail)"
        try check(wanted.contains(status), told)
        if let reason = expected.reason { try check("\(detail.reason)" == reason, told) }
        if let index = expected.blockIndex { try check(detail.blockIndex.map { Int($0.value) } == index, told) }
        if let retryable = expected.retryable { try check(detail.retryable == retryable, told) }
    }

    private func checkAnswer(_ frame: Received, _ expected: SessionFile.Expected) throws {
        let payload = try encoder.bytes(expected.payload)
        try check(frame.payload == payload, "a payload of \(frame.payload.count) bytes: \(frame.payload.prefix(64))")
        let values = try CaseEncoder.topFields(frame.message)
        for (name, wanted) in expected.fields ?? [:] {
            let value = UInt64(name).flatMap { values[$0] }
            if case .number(let number) = wanted {
                try check(value?.number == number, "field \(name) is \(String(describing: value))")
            } else {
                let bytes = try encoder.bytes(wanted)
                try check(value?.bytes == bytes, "field \(name) is \(String(describing: value))")
            }
        }
        for (name, number) in expected.keep ?? [:] {
            guard let value = values[number] else { throw HarnessError("the answer has no field \(number)") }
            encoder.kept[name] = value.bytes
        }
    }
}
