import CairnClient
import Foundation

/// Shows a transfer's progress on the terminal while it runs; shows nothing where standard error is no terminal.
enum ProgressDisplay {
    /// Runs `transfer`, with its progress on the last line of the terminal, refreshed five times a second.
    /// - Parameter verb: what is being done now.
    static func during<Result: Sendable>(
        _ verb: @escaping @autoclosure @Sendable () -> String,
        quiet: Bool,
        progress: @escaping @Sendable () -> TransferProgress,
        _ transfer: () async throws(ClientError) -> Result
    ) async throws(ClientError) -> Result {
        guard !quiet, isatty(STDERR_FILENO) == 1 else { return try await transfer() }
        let begin = ContinuousClock.now
        let display = Task.detached {
            var meter = RateMeter()
            while !Task.isCancelled {
                let now = progress()
                meter.note(now.done, at: ContinuousClock.now - begin)
                show(ProgressLine.render(now, verb: verb(), rate: meter.rate, width: columns))
                try? await Task.sleep(for: .milliseconds(200))
            }
        }
        do throws(ClientError) {
            let result = try await transfer()
            await end(display)
            return result
        } catch {
            await end(display)
            throw error
        }
    }

    private static func end(_ display: Task<Void, Never>) async {
        display.cancel()
        await display.value
        Output.putError("\r\u{1b}[K")
    }

    /// Over the former line, and what was longer of it erased.
    private static func show(_ line: String) { Output.putError("\r\(line)\u{1b}[K") }

    private static var columns: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }
}
