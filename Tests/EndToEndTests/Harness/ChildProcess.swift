import Foundation
import Synchronization

/// A process that a test started. Its outputs go to files, so that it never waits for a reader.
// Safety: `Process` is only told to run, signalled and asked whether it runs; Foundation does those under its own lock.
final class ChildProcess: @unchecked Sendable {
    enum Input {
        case nothing
        case file(String)
        /// What ``write(_:)`` writes.
        case pipe
    }

    /// How it ended.
    struct Outcome: Sendable {
        /// The exit code; of a process that a signal ended, 128 + the signal, as a shell has it.
        let status: Int32
        let output: String
        let errors: String
    }

    private let process = Process()
    private let outputPath: String
    private let errorPath: String
    private let folder: WorkFolder
    private let inputPipe: Pipe?

    init(
        _ program: String, _ arguments: [String], environment: [String: String] = [:], input: Input = .nothing, in folder: WorkFolder
    ) throws {
        self.folder = folder
        outputPath = folder.fresh("out")
        errorPath = folder.fresh("err")
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.currentDirectoryURL = URL(fileURLWithPath: folder.path)
        for path in [outputPath, errorPath] { _ = FileManager.default.createFile(atPath: path, contents: nil) }
        guard let output = FileHandle(forWritingAtPath: outputPath), let errors = FileHandle(forWritingAtPath: errorPath) else {
            throw HarnessError("\(folder.path) cannot be written")
        }
        process.standardOutput = output
        process.standardError = errors
        switch input {
        case .nothing:
            inputPipe = nil
            process.standardInput = FileHandle.nullDevice
        case .file(let path):
            inputPipe = nil
            guard let handle = FileHandle(forReadingAtPath: path) else { throw HarnessError("\(path) cannot be read") }
            process.standardInput = handle
        case .pipe:
            // A peer that has ended must not end the tests.
            signal(SIGPIPE, SIG_IGN)
            let pipe = Pipe()
            inputPipe = pipe
            process.standardInput = pipe
        }
        try process.run()
        try output.close()
        try errors.close()
    }

    deinit {
        guard process.isRunning else { return }
        kill(process.processIdentifier, SIGKILL)
        // Its folder is removed next, and it must not write there any more; what is killed ends within milliseconds.
        for _ in 0..<400 where process.isRunning { usleep(5000) }
    }

    var pid: Int32 { process.processIdentifier }
    var isRunning: Bool { process.isRunning }
    var outputBytes: [UInt8] { (FileManager.default.contents(atPath: outputPath)).map(Array.init) ?? [] }
    var output: String { String(decoding: outputBytes, as: UTF8.self) }
    var errors: String { String(decoding: FileManager.default.contents(atPath: errorPath) ?? Data(), as: UTF8.self) }

    /// False when nobody reads any more.
    @discardableResult
    func write(_ bytes: [UInt8]) -> Bool {
        do {
            try inputPipe!.fileHandleForWriting.write(contentsOf: Data(bytes))
            return true
        } catch { return false }
    }

    func closeInput() { try? inputPipe?.fileHandleForWriting.close() }

    func send(_ signal: Int32) { if process.isRunning { kill(process.processIdentifier, signal) } }

    /// Waits for its end; past the limit it is killed, and that is an error.
    func wait(limit: Duration = .seconds(60)) async throws -> Outcome {
        do {
            try await eventually("\(process.executableURL!.lastPathComponent) ends", within: limit) { !self.process.isRunning }
        } catch {
            send(SIGKILL)
            throw HarnessError("\(error); it said: \(errors.suffix(2000))")
        }
        let signalled = process.terminationReason == .uncaughtSignal
        return Outcome(status: process.terminationStatus + (signalled ? 128 : 0), output: output, errors: errors)
    }
}

/// The programs under test: the build puts them beside the test bundle.
enum Program {
    static let folder: String = {
        let bundle = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return URL(fileURLWithPath: bundle ?? "/").deletingLastPathComponent().path
    }()
    static var cairn: String { folder + "/cairn" }
    static var cairnd: String { folder + "/cairnd" }
    static let openssl = "/usr/bin/openssl"
}

/// Runs a program to its end.
func run(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: ChildProcess.Input = .nothing,
    limit: Duration = .seconds(60), in folder: WorkFolder
) async throws -> ChildProcess.Outcome {
    try await ChildProcess(program, arguments, environment: environment, input: input, in: folder).wait(limit: limit)
}

/// Runs a program that must succeed, and gives what it wrote.
@discardableResult
func require(_ program: String, _ arguments: [String], in folder: WorkFolder) async throws -> String {
    let outcome = try await run(program, arguments, in: folder)
    guard outcome.status == 0 else {
        throw HarnessError("\(program) \(arguments.joined(separator: " ")): exit code \(outcome.status): \(outcome.errors)")
    }
    return outcome.output
}
