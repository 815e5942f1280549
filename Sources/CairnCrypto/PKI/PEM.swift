internal import COpenSSL

/// PEM text in and out of memory. Nothing here touches a file: OpenSSL's own file functions keep no errno.
enum PEM {
    /// The text that `write` puts into a memory BIO, given to `take` while the BIO lives. The memory is wiped afterwards,
    /// since it may be a private key's.
    static func text<R>(
        _ action: String,
        write: (OpaquePointer) -> Int32,
        take: (UnsafeRawBufferPointer) throws(PKIError) -> R
    ) throws(PKIError) -> R {
        guard let bio = BIO_new(BIO_s_secmem()) else { throw .openSSL(action) }
        defer { BIO_free(bio) }
        guard write(bio) == 1 else { throw .openSSL(action) }
        // BIO_get_mem_data is a macro over this call.
        var start: UnsafeMutablePointer<CChar>?
        let count = BIO_ctrl(bio, BIO_CTRL_INFO, 0, &start)
        return try take(UnsafeRawBufferPointer(start: start, count: count))
    }

    /// What `read` makes of PEM text in memory.
    static func parse(
        _ text: [UInt8],
        _ action: String,
        read: (OpaquePointer) -> OpaquePointer?
    ) throws(PKIError) -> OpaquePointer {
        // The BIO reads the array in place, so everything happens while it is pinned.
        let parsed = text.withUnsafeBytes { bytes -> OpaquePointer? in
            guard let bio = BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
            defer { BIO_free(bio) }
            return read(bio)
        }
        guard let parsed else { throw .openSSL(action, code: .badData) }
        return parsed
    }
}
