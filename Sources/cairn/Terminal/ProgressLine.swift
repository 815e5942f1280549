import CairnClient
import CairnCore

/// How fast a transfer goes, smoothed over some seconds so that the figure can be read. Pure: told the time.
struct RateMeter {
    private var last: (time: Duration, bytes: UInt64)?
    /// Bytes a second.
    private(set) var rate: Double = 0

    /// - Parameters:
    ///   - time: since the start.
    ///   - bytes: gone through since the start.
    mutating func note(_ bytes: UInt64, at time: Duration) {
        guard let last else {
            self.last = (time, bytes)
            return
        }
        let seconds = (time - last.time) / .seconds(1)
        guard seconds > 0 else { return }
        let now = Double(bytes - min(bytes, last.bytes)) / seconds
        // A weight that halves what is older than about two seconds; the first figure counts in full.
        let weight = rate == 0 ? 1 : min(1, seconds / 3)
        rate += (now - rate) * weight
        self.last = (time, bytes)
    }
}

/// The one line that shows how far a transfer is. Pure: no terminal, no clock.
enum ProgressLine {
    /// - Parameters:
    ///   - verb: what is being done: of `export` and `restore` data is received, in a `scan` nothing travels.
    ///   - rate: bytes a second; 0: not known.
    ///   - width: the terminal's columns; the line is never wider, and drops its last parts for that.
    static func render(_ progress: TransferProgress, verb: String, rate: Double, width: Int) -> String {
        var parts: [String] = []
        if let total = progress.total, total > 0 {
            let percent = min(100, Int(Double(progress.done) / Double(total) * 100))
            parts.append("\(padded("\(percent)", 3)) %")
            if rate > 0 { parts.append(speed(rate)) }
            if rate > 0, progress.done < total { parts.append("ETA \(clock(Double(total - progress.done) / rate))") }
        } else {
            parts.append(ByteCount.text(progress.done))
            if rate > 0 { parts.append(speed(rate)) }
        }
        if verb != "scan" {
            parts.append("\(["export", "restore"].contains(verb) ? "received" : "sent") \(short(progress.payload))")
        }
        if progress.inPlace > 0 { parts.append("in place \(short(progress.inPlace))") }
        if progress.deduplicated > 0 { parts.append("deduplicated \(short(progress.deduplicated))") }
        if progress.zero > 0 { parts.append("zero \(short(progress.zero))") }
        return fit(verb, bar(progress), parts, width: width)
    }

    private static func fit(_ verb: String, _ bar: String?, _ parts: [String], width: Int) -> String {
        let room = max(width - 1, 10)
        var shown = parts
        while true {
            let text = ([verb] + [bar].compactMap { $0 } + shown).joined(separator: "  ")
            if text.count <= room { return text }
            let bare = ([verb] + shown).joined(separator: "  ")
            if shown.count <= 2, bare.count <= room { return bare }
            guard shown.count > 1 else { return String(bare.prefix(room)) }
            shown.removeLast()
        }
    }

    private static func bar(_ progress: TransferProgress) -> String? {
        guard let total = progress.total, total > 0 else { return nil }
        let cells = 20
        let full = min(cells, Int(Double(progress.done) / Double(total) * Double(cells)))
        return "[" + String(repeating: "#", count: full) + String(repeating: "-", count: cells - full) + "]"
    }

    /// `0:42`, `12:05`, `3:02:07`; more than four days are not worth a figure.
    static func clock(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 360_000 else { return "--:--" }
        let whole = Int(seconds.rounded(.up))
        let tail =
            "\(whole / 60 % 60 < 10 && whole >= 3600 ? "0" : "")\(whole / 60 % 60):\(whole % 60 < 10 ? "0" : "")\(whole % 60)"
        return whole >= 3600 ? "\(whole / 3600):\(tail)" : tail
    }

    static func speed(_ rate: Double) -> String { short(UInt64(max(rate, 0))) + "/s" }

    /// Three digits at most, so that the line does not jump: `5.43 GiB`, `54.3 GiB`, `543 GiB`.
    static func short(_ bytes: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        var value = Double(bytes)
        var unit = 0
        while value >= 999.5, unit + 1 < units.count {
            value /= 1024
            unit += 1
        }
        if unit == 0 { return "\(bytes) B" }
        let decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
        let scale = [1.0, 10, 100][decimals]
        let digits = Int((value * scale).rounded())
        guard decimals > 0 else { return "\(digits) \(units[unit])" }
        let divisor = Int(scale)
        let fraction = String(digits % divisor)
        return
            "\(digits / divisor).\(String(repeating: "0", count: decimals - fraction.count))\(fraction) \(units[unit])"
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
}
