/// MD5 (RFC 1321): a checksum that old tools have at hand (SPEC U4). It protects against accidents, not against people.
public enum MD5 {
    /// Bytes of a digest.
    public static let byteCount = 16

    /// The 16 bytes of the digest of `bytes`. May be called on any thread.
    public static func hash(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        DigestAlgorithm.md5.digest(bytes, zeros: 0) { Array($0) }
    }
}
