import CairnCore
import Foundation

/// Writes to standard output and error. Standard output that nobody reads any more ends the program as SIGPIPE would; one that
/// cannot be written, such as a file on a full disk, with an error: what is cut off must not pass for the whole.
enum Output {
    static func print(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

    static func printError(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

    /// Without a line's end: for a progress line.
    static func putError(_ text: String) { write(text, to: STDERR_FILENO) }

    private static func write(_ text: String, to descriptor: Int32) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN {
                    usleep(1000)
                    continue
                }
                // 128 + SIGPIPE: what a shell sees of any program that is cut off.
                if errno == EPIPE, descriptor == STDOUT_FILENO { _exit(141) }
                if descriptor == STDOUT_FILENO {
                    printError("Error: standard output: \(String(cString: strerror(errno)))")
                    _exit(74)
                }
                return
            }
            bytes = bytes.dropFirst(count)
        }
    }

    static func json(_ value: some Encodable) -> String { PKIOutput.json(value) }

    /// Columns under their titles; nothing but the titles where there are no rows.
    static func table(_ titles: [String], _ rows: [[String]]) -> String { PKIOutput.table([titles] + rows) }

    /// RFC 3339 in UTC, to the second.
    static func date(_ milliseconds: UInt64) -> String { PKIOutput.date(Int64(milliseconds / 1000)) }

    /// Names and values, one to a line.
    static func facts(_ facts: [(String, String?)]) -> String {
        let shown = facts.compactMap { name, value in value.map { (name, $0) } }
        let width = shown.map(\.0.count).max() ?? 0
        return shown.map { "\($0)\(String(repeating: " ", count: width - $0.count))  \($1)" }.joined(separator: "\n")
    }

    /// `0.42 s`, `1 min 5 s`, `3 h 2 min`.
    static func duration(_ duration: Duration) -> String {
        let seconds = duration / .seconds(1)
        if seconds < 60 { return String(format: seconds < 10 ? "%.2f s" : "%.1f s", seconds) }
        let whole = Int(seconds.rounded())
        if whole < 3600 { return "\(whole / 60) min \(whole % 60) s" }
        return "\(whole / 3600) h \(whole % 3600 / 60) min"
    }

    /// Decimal megabytes a second, as disks and networks are measured.
    static func rate(_ bytes: UInt64, in duration: Duration) -> String {
        let seconds = max(duration / .seconds(1), 1e-9)
        let rate = Double(bytes) / seconds
        return rate >= 1e9 ? String(format: "%.2f GB/s", rate / 1e9) : String(format: "%.1f MB/s", rate / 1e6)
    }
}
