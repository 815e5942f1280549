internal import CCairnSHA256
internal import COpenSSL
public import CairnCore

/// SHA-256 (FIPS 180-4), by OpenSSL: the processor's SHA instructions where it has them. Of many messages at once by code of our own,
/// for OpenSSL takes one at a time, and then each round waits for the one before.
public enum SHA256 {
    /// The digest of `bytes` followed by `zeros` zero bytes.
    ///
    /// Makes no allocation after a thread's first digest. May be called on any thread.
    /// - Parameter zeros: how far a volume's last, shorter chunk lies below its chunk size (SPEC V6). Not negative.
    public static func hash(_ bytes: UnsafeRawBufferPointer, padding zeros: Int = 0) -> Fingerprint {
        DigestAlgorithm.sha256.digest(bytes, zeros: zeros) { Fingerprint($0) }
    }

    /// How many chunks are best given to ``hash(each:paddedTo:)`` at a time.
    public static let batch = 16

    /// The digests of chunks of one size, each followed by zeros up to `bytes`. Of ``batch`` whole ones it takes less than half the time
    /// that one after the other takes, where the processor has AVX-512 or SHA instructions. May be called on any thread.
    /// - Parameter bytes: the chunk size; no chunk is longer.
    public static func hash(each chunks: [UnsafeRawBufferPointer], paddedTo bytes: Int) -> [Fingerprint] {
        hash(each: chunks, paddedTo: bytes, by: ways)
    }

    private static let ways = cairn_sha256_ways()

    /// - Parameter ways: those of `cairn_sha256.h` that may be used.
    static func hash(each chunks: [UnsafeRawBufferPointer], paddedTo bytes: Int, by ways: UInt32) -> [Fingerprint] {
        // A shorter one, which only a volume's end has, is hashed by itself.
        let whole = bytes > 0 && bytes % 64 == 0 ? chunks.filter { $0.count == bytes }.map(\.baseAddress) : []
        return withUnsafeTemporaryAllocation(byteCount: max(1, whole.count) * Fingerprint.byteCount, alignment: 8) {
            digests in
            let target = digests.baseAddress?.assumingMemoryBound(to: UInt8.self)
            let taken = whole.isEmpty ? 0 : cairn_sha256_many(whole, whole.count, bytes, target, ways)
            var next = 0
            return chunks.map { chunk in
                guard next < taken, chunk.count == bytes else { return hash(chunk, padding: bytes - chunk.count) }
                defer { next += 1 }
                let start = next * Fingerprint.byteCount
                return Fingerprint(UnsafeRawBufferPointer(rebasing: digests[start..<start + Fingerprint.byteCount]))
            }
        }
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
