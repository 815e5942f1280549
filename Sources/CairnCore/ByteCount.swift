/// Sizes as people read and write them.
public enum ByteCount {
    private static let binary = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]

    /// `1536` → `1.5 KiB`, `4096` → `4 KiB`; at most two decimals, none where exact.
    public static func text(_ bytes: UInt64) -> String {
        var unit = 0
        var scale: UInt64 = 1
        while unit + 1 < binary.count, bytes / scale >= 1024 {
            unit += 1
            scale <<= 10
        }
        let hundredths = UInt64((Double(bytes) / Double(scale) * 100).rounded())
        let whole = hundredths / 100
        let fraction = hundredths % 100
        let decimals =
            fraction == 0
            ? "" : fraction % 10 == 0 ? ".\(fraction / 10)" : fraction < 10 ? ".0\(fraction)" : ".\(fraction)"
        return "\(whole)\(decimals) \(binary[unit])"
    }

    /// Reads `20GiB`, `20 GiB`, `20G`, `1.5TiB`, `4096`, `10GB` (decimal). K, M, G, T and P alone are binary.
    /// Nil where it is no size, not a whole number of bytes, or too large for 64 bits.
    public static func parse(_ text: String) -> UInt64? {
        let trimmed = text.filter { $0 != " " && $0 != "_" }
        let digits = trimmed.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let scale = scale(of: trimmed.dropFirst(digits.count).lowercased()) else { return nil }
        let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let whole = UInt64(parts[0]) else { return nil }
        let (product, overflow) = whole.multipliedReportingOverflow(by: scale)
        guard !overflow else { return nil }
        guard parts.count == 2 else { return product }
        guard (1...9).contains(parts[1].count), let fraction = UInt64(parts[1]) else { return nil }
        let divisor = (0..<parts[1].count).reduce(UInt64(1)) { power, _ in power * 10 }
        let wide = fraction.multipliedFullWidth(by: scale)
        let (quotient, remainder) = divisor.dividingFullWidth(wide)
        guard remainder == 0 else { return nil }
        let (sum, carried) = product.addingReportingOverflow(quotient)
        return carried ? nil : sum
    }

    private static func scale(of unit: String) -> UInt64? {
        switch unit {
        case "", "b": 1
        case "k", "kib": 1 << 10
        case "m", "mib": 1 << 20
        case "g", "gib": 1 << 30
        case "t", "tib": 1 << 40
        case "p", "pib": 1 << 50
        case "kb": 1_000
        case "mb": 1_000_000
        case "gb": 1_000_000_000
        case "tb": 1_000_000_000_000
        case "pb": 1_000_000_000_000_000
        default: nil
        }
    }
}
