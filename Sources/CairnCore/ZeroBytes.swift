#if canImport(Glibc)
    internal import Glibc
#endif

extension UnsafeRawBufferPointer {
    /// Whether every byte is zero. Reads at memory speed, and stops early where the data is not.
    public var isAllZero: Bool {
        guard let base = baseAddress, count > 0 else { return true }
        let head = Swift.min(count, 16)
        for offset in 0..<head where self[offset] != 0 { return false }
        // Each byte equals the one 16 before it, and the first 16 are zero.
        return count <= 16 || memcmp(base, base + 16, count - 16) == 0
    }
}
