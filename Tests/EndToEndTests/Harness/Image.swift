import CairnWire
import Foundation

/// Files to import, and to compare what was exported with.
enum Image {
    /// Bytes that no codec makes smaller, other ones each time.
    static func random(_ count: Int) throws -> [UInt8] {
        guard let source = FileHandle(forReadingAtPath: "/dev/urandom"), let data = try source.read(upToCount: count)
        else {
            throw HarnessError("/dev/urandom cannot be read")
        }
        return data.withUnsafeBytes { Array($0) }
    }

    /// A file of `size` bytes that holds `pieces` at their offsets, and holes between.
    static func make(_ path: String, size: Int, _ pieces: [(offset: Int, bytes: [UInt8])]) throws {
        guard FileManager.default.createFile(atPath: path, contents: nil), let file = FileHandle(forWritingAtPath: path)
        else {
            throw HarnessError("\(path) cannot be made")
        }
        defer { try? file.close() }
        try file.truncate(atOffset: UInt64(size))
        for piece in pieces {
            try file.seek(toOffset: UInt64(piece.offset))
            try file.write(contentsOf: Data(piece.bytes))
        }
    }

    static func overwrite(_ path: String, at offset: Int, _ bytes: [UInt8]) throws {
        guard let file = FileHandle(forUpdatingAtPath: path) else { throw HarnessError("\(path) cannot be written") }
        defer { try? file.close() }
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: Data(bytes))
    }

    static func bytes(_ path: String) throws -> [UInt8] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw HarnessError("\(path) cannot be read")
        }
        return Array(data)
    }

    static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

    /// Bytes that the file takes on disk.
    static func allocated(_ path: String) -> Int {
        var facts = stat()
        return stat(path, &facts) == 0 ? Int(facts.st_blocks) * 512 : 0
    }

    /// Whether two files hold the same bytes.
    static func same(_ one: String, _ other: String, in folder: WorkFolder) async throws -> Bool {
        try await run("/usr/bin/cmp", [one, other], in: folder).status == 0
    }
}

/// A JSON object that a command wrote.
struct Report {
    private let fields: [String: Any]

    init(_ outcome: ChildProcess.Outcome) throws {
        guard outcome.status == 0 else { throw HarnessError("exit code \(outcome.status): \(outcome.errors)") }
        try self.init(outcome.output)
    }

    init(_ text: String) throws {
        guard let fields = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] else {
            throw HarnessError("no JSON object: \(text)")
        }
        self.fields = fields
    }

    func text(_ name: String) throws -> String {
        guard let value = fields[name] as? String else { throw HarnessError("no text `\(name)` in \(fields)") }
        return value
    }

    func number(_ name: String) throws -> Int {
        guard let value = fields[name] as? NSNumber else { throw HarnessError("no number `\(name)` in \(fields)") }
        return value.intValue
    }

    func object(_ name: String) throws -> Report {
        guard let value = fields[name] as? [String: Any] else { throw HarnessError("no object `\(name)` in \(fields)") }
        return Report(fields: value)
    }

    private init(fields: [String: Any]) { self.fields = fields }
}
