import CairnWire
import Foundation

/// Where protobuf-c goes its own way with bytes that no sender writes, said so that any reader takes them as it does.
///
/// A bool is taken in any wire type: it is true where any of its bytes, a length's among them, has one of the lower seven bits.
/// And of a message field that is not repeated but comes twice the numbers are not merged: what such bytes come to is left open.
struct TakenBytes {
    private enum Field {
        case bool
        case message(String, isRepeated: Bool)
    }
    /// By their messages and numbers: those that there is something to say about.
    private let fields: [String: [UInt64: Field]]

    /// Reads the contract, which has a message or a field in each line that is neither a comment nor of an enum.
    init() throws {
        let folder = "cairn/v1"
        var declared: [(message: String, number: UInt64, type: String, isRepeated: Bool)] = []
        var messages: Set<String> = []
        let files = try FileManager.default.contentsOfDirectory(atPath: ContractFiles.url(folder).path)
        for file in files where file.hasSuffix(".proto") {
            var message = ""
            for line in try ContractFiles.text("\(folder)/\(file)").split(separator: "\n") {
                let words = line.split(separator: " ").map(String.init)
                if words.first == "//" { continue }
                if words.first == "message" {
                    message = words[1]
                    messages.insert(message)
                }
                // An enum's values have no type before their name.
                guard let equals = words.firstIndex(of: "="), equals >= 2, equals + 1 < words.count,
                    let number = UInt64(words[equals + 1].prefix { $0.isNumber })
                else { continue }
                declared.append((message, number, words[equals - 2], words.first == "repeated"))
            }
        }
        var fields: [String: [UInt64: Field]] = [:]
        for field in declared {
            if field.type == "bool" { fields[field.message, default: [:]][field.number] = .bool }
            guard messages.contains(field.type) else { continue }
            fields[field.message, default: [:]][field.number] = .message(field.type, isRepeated: field.isRepeated)
        }
        self.fields = fields
    }

    /// The same with each bool as a varint; nil where a message field comes twice.
    /// - Throws: where the bytes are no fields, which protobuf-c would not read.
    func said(_ bytes: some Collection<UInt8>, _ message: String) throws -> [UInt8]? {
        var rest = ArraySlice(Array(bytes))
        var said: [UInt8] = []
        var seen: Set<UInt64> = []
        while !rest.isEmpty {
            let start = rest
            let key = try Self.takeNumber(&rest, message)
            let tag = start.prefix(start.count - rest.count)
            let value = try Self.takeValue(wireType: key & 7, &rest, message)
            switch fields[message]?[key >> 3] {
            case .bool?:
                let isTrue = value.all.contains { $0 & 0x7f != 0 }
                said += Self.number(key & ~7) + [isTrue ? 1 : 0]
            case .message(let type, let isRepeated)?:
                guard isRepeated || seen.insert(key >> 3).inserted else { return nil }
                guard let content = try self.said(value.content, type) else { return nil }
                said += tag + Self.number(UInt64(content.count)) + content
            case nil: said += tag + value.all
            }
        }
        return said
    }

    /// A field's bytes behind its tag; its content is behind the length, if it has one.
    private static func takeValue(wireType: UInt64, _ rest: inout ArraySlice<UInt8>, _ message: String) throws
        -> (all: ArraySlice<UInt8>, content: ArraySlice<UInt8>)
    {
        let start = rest
        var content = rest
        switch wireType {
        case 0: _ = try takeNumber(&rest, message)
        case 1: rest = rest.dropFirst(8)
        case 2:
            let count = try takeNumber(&rest, message)
            guard count <= UInt64(rest.count) else { throw WireError.malformed(message: message) }
            content = rest.prefix(Int(count))
            rest = rest.dropFirst(Int(count))
        case 5: rest = rest.dropFirst(4)
        default: throw WireError.malformed(message: message)
        }
        return (start.prefix(start.count - rest.count), content)
    }

    private static func takeNumber(_ rest: inout ArraySlice<UInt8>, _ message: String) throws -> UInt64 {
        var number: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard let byte = rest.popFirst() else { break }
            number |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return number }
        }
        throw WireError.malformed(message: message)
    }

    private static func number(_ value: UInt64) -> [UInt8] {
        var (value, bytes): (UInt64, [UInt8]) = (value, [])
        while value >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        return bytes + [UInt8(value)]
    }
}
