import ArgumentParser
import CairnClient
import CairnCore
import Dispatch
import Foundation

/// A command that talks to the server.
protocol ServiceCommand: AsyncParsableCommand, Sendable {
    var connection: ConnectionOptions { get }
    /// How long a call may take where the user sets no time-out; nil: the library's ``ClientOptions/callLimit``.
    var callLimit: Duration? { get }
    /// What an interrupted user is told about how to go on.
    var interruptedHint: String? { get }
    func run(with client: Client) async throws(ClientError)
}

extension ServiceCommand {
    var callLimit: Duration? { nil }
    var interruptedHint: String? { nil }

    func run() async throws {
        signal(SIGPIPE, SIG_IGN)
        let command = self
        let task = Task { () async -> Result<Void, ClientError> in
            do throws(ClientError) {
                let client = try command.connection.makeClient(callLimit: command.callLimit)
                defer { client.close() }
                return .success(try await command.run(with: client))
            } catch {
                return .failure(error)
            }
        }
        let interruption = Interruption { task.cancel() }
        let result = await task.value
        interruption.end()
        guard case .failure(let error) = result else { return }
        let failure = Session.failure(error, wasInterrupted: interruption.happened)
        Session.report(failure, json: connection.json, hint: interruptedHint)
        throw ExitCodes.code(of: failure)
    }
}

enum Session {
    /// The volume that the command has made, which its user cannot know otherwise: an error names it. A program runs one command.
    static let madeVolume = Locked<VolumeID?>(nil)

    private struct Report: Encodable {
        struct Failure: Encodable {
            let reason: String
            let text: String
            let volumeId: String?
        }
        let error: Failure
    }

    /// Whatever a cancelled command stumbled over: it was interrupted. But damage that it found stays told.
    static func failure(_ error: ClientError, wasInterrupted: Bool) -> ClientError {
        guard wasInterrupted, ExitCodes.code(of: error) != ExitCodes.damaged else { return error }
        return ClientError(.cancelled, "interrupted")
    }

    static func json(_ error: ClientError, madeVolume: VolumeID?) -> String {
        let volume = madeVolume.map { "\($0)" }
        return Output.json(
            Report(error: .init(reason: ExitCodes.reason(of: error), text: error.text, volumeId: volume))
        )
    }

    /// Says what went wrong, on standard error.
    static func report(_ error: ClientError, json: Bool, hint: String?) {
        if json {
            return Output.printError(Session.json(error, madeVolume: madeVolume.change { $0 }))
        }
        Output.printError("Error: \(error.text)")
        if error.code == .cancelled || error.code == .connectionLost || error.code == .timedOut, let hint {
            Output.printError(hint)
        }
    }
}

/// SIGINT and SIGTERM ask the command to stop. One that does not within its grace, or a second signal, ends the program.
// Safety: the sources are made in the initialiser and never change; Dispatch's sources may be cancelled from any thread.
final class Interruption: @unchecked Sendable {
    private static let grace: DispatchTimeInterval = .seconds(5)
    private let sources: [any DispatchSourceSignal]
    private let count = Locked(0)

    init(_ stop: @escaping @Sendable () -> Void) {
        let queue = DispatchQueue(label: "cairn.signals")
        sources = [SIGINT, SIGTERM].map { number in
            // The source sees the signal only while its default action is off.
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number, queue: queue)
        }
        for source in sources {
            source.setEventHandler { [count] in
                let number = count.change { count in
                    count += 1
                    return count
                }
                if number > 1 { _exit(130) }
                stop()
                queue.asyncAfter(deadline: .now() + Interruption.grace) { _exit(130) }
            }
            source.activate()
        }
    }

    var happened: Bool { count.change { $0 } > 0 }

    func end() { for source in sources { source.cancel() } }
}
