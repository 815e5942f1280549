import ArgumentParser
import CairnBench
import CairnClient
import Dispatch
import Foundation
import Synchronization

/// How failures end the program: documented at `cairn-bench`.
enum Failures {
    /// Says what went wrong on standard error, and gives the exit code.
    static func code(_ error: BenchError) -> ExitCode {
        say(error.text)
        return switch error.code {
        case .invalid: ExitCode(64)
        case .file: ExitCode(65)
        case .setUp: ExitCode(1)
        case .machine: ExitCode(69)
        }
    }

    static func exit<Value>(_ body: () throws(BenchError) -> Value) throws -> Value {
        do { return try body() } catch { throw code(error) }
    }

    static func exit<Value>(_ body: () throws(ClientError) -> Value) throws -> Value {
        do { return try body() } catch {
            say(error.text)
            throw ExitCode(78)
        }
    }

    static func say(_ text: String) { FileHandle.standardError.write(Data("Error: \(text)\n".utf8)) }
}

/// The first SIGINT or SIGTERM asks for an end in order; a second one ends the program.
// Safety: the sources are made in the initialiser and never change; Dispatch's sources may be cancelled from any thread.
final class Interruption: @unchecked Sendable {
    private let sources: [any DispatchSourceSignal]

    init(_ stop: @escaping @Sendable () -> Void) {
        let queue = DispatchQueue(label: "cairn-bench.signals")
        let count = Counter()
        sources = [SIGINT, SIGTERM].map { number in
            // The source sees the signal only while its default action is off.
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number, queue: queue)
        }
        for source in sources {
            source.setEventHandler {
                if count.next() > 1 { _exit(130) }
                stop()
            }
            source.activate()
        }
    }

    func end() { for source in sources { source.cancel() } }
}

private final class Counter: Sendable {
    private let value = Atomic(0)
    func next() -> Int { value.add(1, ordering: .relaxed).newValue }
}
