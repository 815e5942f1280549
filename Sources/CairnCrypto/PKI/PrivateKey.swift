internal import COpenSSL

/// An ECDSA key on P-256: what every TLS 1.3 peer can verify, and signing with it costs a handshake least.
// Safety: OpenSSL counts references atomically, and a key does not change once it is made.
struct PrivateKey: ~Copyable, @unchecked Sendable {
    let handle: OpaquePointer

    private init(owning handle: OpaquePointer) { self.handle = handle }

    deinit { EVP_PKEY_free(handle) }

    static func generate() throws(PKIError) -> PrivateKey {
        guard let context = EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { throw .openSSL("generate a key") }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1, EVP_PKEY_CTX_set_group_name(context, "P-256") == 1,
            EVP_PKEY_generate(context, &key) == 1, let key
        else { throw .openSSL("generate a key") }
        return PrivateKey(owning: key)
    }

    /// - Parameter origin: the file that `pem` was read from, for the error's text.
    static func read(pem: [UInt8], origin: String) throws(PKIError) -> PrivateKey {
        let key = try PEM.parse(pem, "read the private key \(origin)") { bio in
            // Without a callback of ours OpenSSL asks the terminal for an encrypted key's passphrase.
            PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
        }
        return PrivateKey(owning: key)
    }

    /// Gives the key as unencrypted PKCS #8 PEM.
    func withPEM<R>(_ take: (UnsafeRawBufferPointer) throws(PKIError) -> R) throws(PKIError) -> R {
        try PEM.text(
            "encode a private key",
            write: { PEM_write_bio_PKCS8PrivateKey($0, handle, nil, nil, 0, nil, nil) },
            take: take
        )
    }
}
