internal import CLZ4

/// LZ4 blocks (no frame), as the wire and the store carry them.
public enum LZ4 {
    /// The most bytes that compressing `count` bytes can give.
    public static func bound(_ count: Int) -> Int { Int(LZ4_compressBound(Int32(count))) }

    /// Compresses `source` into `target`; nil where the result does not fit. A target smaller than the source makes
    /// "must save something" part of the attempt.
    public static func compress(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
        guard let from = source.baseAddress, let to = target.baseAddress else { return nil }
        let written = LZ4_compress_default(
            from.assumingMemoryBound(to: CChar.self),
            to.assumingMemoryBound(to: CChar.self),
            Int32(source.count),
            Int32(target.count)
        )
        return written > 0 ? Int(written) : nil
    }

    /// Whether `source` decodes to exactly `target.count` bytes; no byte beyond them is ever written (SPEC U9).
    public static func decompress(
        _ source: UnsafeRawBufferPointer,
        into target: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard let from = source.baseAddress, let to = target.baseAddress else { return false }
        let written = LZ4_decompress_safe(
            from.assumingMemoryBound(to: CChar.self),
            to.assumingMemoryBound(to: CChar.self),
            Int32(source.count),
            Int32(target.count)
        )
        return Int(written) == target.count
    }
}
