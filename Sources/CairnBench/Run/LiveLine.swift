import Foundation
import Synchronization

/// One line on the terminal that says how it goes; nothing where standard error is no terminal.
final class LiveLine: Sendable {
    private let isShown: Bool

    init(isShown: Bool) { self.isShown = isShown && isatty(STDERR_FILENO) == 1 }

    func show(_ text: String) {
        guard isShown else { return }
        put("\r\(text.prefix(Self.columns - 1))\u{1b}[K")
    }

    func clear() {
        guard isShown else { return }
        put("\r\u{1b}[K")
    }

    private func put(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }

    private static var columns: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    /// - Parameters:
    ///   - name: which run of how many.
    ///   - interval: the last that ended.
    static func text(_ name: String, _ interval: Interval, of seconds: Double, failed: Int) -> String {
        let span = max(interval.seconds, 1e-9)
        let tally = interval.tally
        let at = interval.start + interval.seconds
        var parts = [
            name, interval.start < 0 ? "warm-up" : "\(Text.digits(at)) of \(Text.digits(seconds)) s",
            Text.rate(Double(tally.operations) / span) + " ops/s",
        ]
        if tally.bytes > 0 { parts.append(Text.bytes(perSecond: Double(tally.bytes) / span)) }
        for percent in [50.0, 99] {
            let value = Double(tally.latencies.percentile(percent)) / 1000
            parts.append("p\(Int(percent)) " + Text.time(microseconds: value))
        }
        parts.append("CPU \(Text.digits(interval.clientCPU.total / span))")
        if let server = interval.serverCPU { parts.append("server \(Text.digits(server.total / span))") }
        if failed > 0 { parts.append("\(failed) failed") }
        return parts.joined(separator: "  ")
    }
}
