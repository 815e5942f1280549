internal import COpenSSL
public import CairnCore

/// SHA-256 (FIPS 180-4), by OpenSSL: the processor's SHA instructions where it has them.
public enum SHA256 {
    /// The digest of `bytes` followed by `zeros` zero bytes.
    ///
    /// Makes no allocation after a thread's first digest. May be called on any thread.
    /// - Parameter zeros: how far a volume's last, shorter chunk lies below its chunk size (SPEC V6). Not negative.
    public static func hash(_ bytes: UnsafeRawBufferPointer, padding zeros: Int = 0) -> Fingerprint {
        DigestAlgorithm.sha256.digest(bytes, zeros: zeros) { Fingerprint($0) }
    }

    /// The digest of an array's bytes: for small things, and for tests.
    public static func hash(_ bytes: [UInt8]) -> Fingerprint {
        bytes.withUnsafeBytes { hash($0) }
    }
}

/// A SHA-256 that takes its bytes part by part.
public struct SHA256Hasher: ~Copyable {
    private let context: OpaquePointer

    public init() {
        context = DigestContext.make()
        DigestContext.begin(context, .sha256)
    }

    deinit { EVP_MD_CTX_free(context) }

    /// Adds bytes; none are kept.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        DigestContext.extend(context, bytes)
    }

    /// Adds the bytes of an array.
    public mutating func update(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { update($0) }
    }

    /// Adds `zeros` zero bytes. Not negative.
    public mutating func update(zeros: Int) {
        precondition(zeros >= 0)
        DigestContext.extend(context, zeros: zeros)
    }

    /// The digest of all that was added.
    public consuming func finish() -> Fingerprint {
        withUnsafeTemporaryAllocation(byteCount: Fingerprint.byteCount, alignment: 8) { target in
            DigestContext.finish(context, into: target)
            return Fingerprint(UnsafeRawBufferPointer(target))
        }
    }
}
