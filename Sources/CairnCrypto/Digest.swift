internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#endif

/// One message digest algorithm of OpenSSL's, fetched once: a fetch by name for each digest costs as much as hashing 4 KiB.
struct DigestAlgorithm: Sendable {
    // Safety: OpenSSL's EVP_MD is reference-counted and never changes once fetched; ours is never freed.
    nonisolated(unsafe) let handle: OpaquePointer
    let byteCount: Int

    /// Traps where no loaded provider of OpenSSL has the algorithm: nothing of Cairn works then.
    init(_ name: String, properties: String? = nil) {
        guard let handle = EVP_MD_fetch(nil, name, properties) else {
            fatalError("OpenSSL has no \(name): is its default provider disabled in openssl.cnf?")
        }
        self.handle = handle
        byteCount = Int(EVP_MD_get_size(handle))
    }

    static let sha256 = DigestAlgorithm("SHA2-256")
    /// MD5 serves as a checksum here (SPEC U4), not as a protection: a FIPS policy of the machine need not forbid it.
    static let md5 = DigestAlgorithm("MD5", properties: "-fips")

    /// The digest of `bytes` and `zeros` zero bytes after them, given to `take` while it lives on the stack.
    func digest<R>(_ bytes: UnsafeRawBufferPointer, zeros: Int, _ take: (UnsafeRawBufferPointer) -> R) -> R {
        precondition(zeros >= 0)
        let context = DigestContext.ofThisThread()
        DigestContext.begin(context, self)
        DigestContext.extend(context, bytes)
        if zeros > 0 { DigestContext.extend(context, zeros: zeros) }
        return withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { target in
            DigestContext.finish(context, into: target)
            return take(UnsafeRawBufferPointer(target))
        }
    }
}

/// The few calls on an EVP_MD_CTX. None of them can fail but for want of memory or by a mistake of ours: both trap.
enum DigestContext {
    static func make() -> OpaquePointer {
        guard let context = EVP_MD_CTX_new() else { fatalError("out of memory: a digest context") }
        return context
    }

    static func begin(_ context: OpaquePointer, _ algorithm: DigestAlgorithm) {
        let done = EVP_DigestInit_ex2(context, algorithm.handle, nil)
        precondition(done == 1, "EVP_DigestInit_ex2")
    }

    static func extend(_ context: OpaquePointer, _ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        let done = EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
        precondition(done == 1, "EVP_DigestUpdate")
    }

    static func extend(_ context: OpaquePointer, zeros: Int) {
        var left = zeros
        while left > 0 {
            let part = min(left, ZeroBytes.count)
            extend(context, UnsafeRawBufferPointer(start: ZeroBytes.start, count: part))
            left -= part
        }
    }

    static func finish(_ context: OpaquePointer, into target: UnsafeMutableRawBufferPointer) {
        var count: UInt32 = 0
        let done = EVP_DigestFinal_ex(context, target.baseAddress?.assumingMemoryBound(to: UInt8.self), &count)
        precondition(done == 1 && Int(count) == target.count, "EVP_DigestFinal_ex")
    }

    /// The calling thread's own context: made at its first digest, freed when the thread ends.
    static func ofThisThread() -> OpaquePointer {
        if let context = pthread_getspecific(threadKey) { return OpaquePointer(context) }
        let context = make()
        let stored = pthread_setspecific(threadKey, UnsafeRawPointer(context))
        precondition(stored == 0, "pthread_setspecific: \(stored)")
        return context
    }

    private static let threadKey: pthread_key_t = {
        var key = pthread_key_t()
        let made = pthread_key_create(&key) { EVP_MD_CTX_free(OpaquePointer($0)) }
        precondition(made == 0, "pthread_key_create: \(made)")
        return key
    }()
}

/// Zeros to hash where a chunk is shorter than its volume's chunk size.
private enum ZeroBytes {
    static let count = 64 << 10
    // Safety: allocated once, zeroed, and only ever read.
    nonisolated(unsafe) static let start: UnsafeRawPointer = {
        guard let zeros = calloc(1, count) else { fatalError("out of memory: \(count) bytes") }
        return UnsafeRawPointer(zeros)
    }()
}
