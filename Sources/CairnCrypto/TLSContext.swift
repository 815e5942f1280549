internal import CCairnGCM
internal import COpenSSL

/// Where a TLS context's certificates and keys lie: PEM files.
public struct TLSFiles: Sendable, Equatable {
    /// Files with the CA certificates that the peer's chain may end in: at least one.
    public var authorities: [String]
    /// Our certificate, followed by intermediates, if any.
    public var certificate: String
    /// The private key of our certificate.
    public var privateKey: String
    /// A file of certificate revocation lists: with one, a peer whose issuer has no current list in it is refused.
    public var revocations: String?

    public init(authorities: [String], certificate: String, privateKey: String, revocations: String? = nil) {
        self.authorities = authorities
        self.certificate = certificate
        self.privateKey = privateKey
        self.revocations = revocations
    }
}

/// The rules and keys of TLS sessions: TLS 1.3 only, both sides prove themselves, ALPN `cairn/1`, nothing resumed
/// (DESIGN §3, SPEC C1). Files are read once: to take up changed ones, make a new context for new connections.
// Safety: an SSL_CTX is set up in init and only read afterwards; OpenSSL counts its references atomically.
public final class TLSContext: @unchecked Sendable {
    public enum Role: Sendable { case client, server }
    public let role: Role
    let pointer: OpaquePointer

    /// The protocol's name in ALPN's form: its length, then its bytes.
    static let protocolName: [UInt8] = [7] + Array("cairn/1".utf8)

    /// The library context of OpenSSL's in which AES is four times as fast, where the processor allows it; nil: the process's own.
    // Safety: set up once; OpenSSL's contexts are used from any thread.
    nonisolated(unsafe) static let library: OpaquePointer? = cairn_gcm_library()

    public init(_ role: Role, files: TLSFiles) throws(TLSError) {
        self.role = role
        let method = role == .server ? TLS_server_method() : TLS_client_method()
        guard let pointer = SSL_CTX_new_ex(TLSContext.library, nil, method) else {
            throw TLSError.taking(.configuration, "no TLS context")
        }
        self.pointer = pointer
        try setProtocol()
        try load(files)
    }

    deinit { SSL_CTX_free(pointer) }

    private func setProtocol() throws(TLSError) {
        // AES-128 first: as good here, and a third cheaper than AES-256.
        let ciphers = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
        let name = TLSContext.protocolName
        guard cairn_ssl_ctx_tls13_only(pointer) == 1, SSL_CTX_set_ciphersuites(pointer, ciphers) == 1,
            SSL_CTX_set_num_tickets(pointer, 0) == 1, SSL_CTX_set_max_early_data(pointer, 0) == 1,
            SSL_CTX_set_alpn_protos(pointer, name, UInt32(name.count)) == 0
        else { throw TLSError.taking(.configuration, "this OpenSSL lacks TLS 1.3") }
        cairn_ssl_ctx_no_session_cache(pointer)
        let noTicket: UInt64 = 1 << 14
        let serverPreference: UInt64 = 1 << 22
        SSL_CTX_set_options(pointer, noTicket | serverPreference)
        // Idle connections hold no record buffers; writes may stop half way and go on from another address.
        cairn_ssl_ctx_set_mode(
            pointer,
            Int(SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
        )
        SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        if role == .server {
            SSL_CTX_set_alpn_select_cb(pointer, selectProtocol, nil)
            SSL_CTX_set_client_hello_cb(pointer, requireProtocol, nil)
        }
    }

    private func load(_ files: TLSFiles) throws(TLSError) {
        guard !files.authorities.isEmpty else { throw TLSError(.configuration, "no CA is given") }
        for file in files.authorities {
            guard SSL_CTX_load_verify_file(pointer, file) == 1 else {
                throw TLSError.taking(.configuration, "CA file \(file)").inConfiguration
            }
        }
        guard SSL_CTX_use_certificate_chain_file(pointer, files.certificate) == 1 else {
            throw TLSError.taking(.configuration, "certificate \(files.certificate)").inConfiguration
        }
        guard SSL_CTX_use_PrivateKey_file(pointer, files.privateKey, SSL_FILETYPE_PEM) == 1,
            SSL_CTX_check_private_key(pointer) == 1
        else { throw TLSError.taking(.configuration, "private key \(files.privateKey)").inConfiguration }
        guard let file = files.revocations else { return }
        guard let store = SSL_CTX_get_cert_store(pointer),
            let lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file()),
            X509_load_crl_file(lookup, file, SSL_FILETYPE_PEM) > 0,
            X509_STORE_set_flags(store, UInt(X509_V_FLAG_CRL_CHECK)) == 1
        else { throw TLSError.taking(.configuration, "revocation list \(file)").inConfiguration }
    }

    /// Whether a new handshake with this certificate would be accepted now: its chain, its dates and, with a list of
    /// revocations, that it is not on it. Tells which standing connections a reloaded list ends (SPEC C1).
    public func accepts(_ certificate: PeerCertificate) -> Bool {
        defer { ERR_clear_error() }
        guard let leaf = TLSContext.decode(certificate.der) else { return false }
        defer { X509_free(leaf) }
        guard let others = cairn_x509s_new() else { return false }
        defer { cairn_x509s_free(others) }
        for der in certificate.intermediates {
            guard let other = TLSContext.decode(der) else { return false }
            guard cairn_x509s_push(others, other) > 0 else {
                X509_free(other)
                return false
            }
        }
        guard let check = X509_STORE_CTX_new() else { return false }
        defer { X509_STORE_CTX_free(check) }
        guard X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(pointer), leaf, others) == 1,
            X509_STORE_CTX_set_default(check, role == .server ? "ssl_client" : "ssl_server") == 1
        else { return false }
        return X509_verify_cert(check) == 1
    }

    private static func decode(_ der: [UInt8]) -> OpaquePointer? {
        der.withUnsafeBufferPointer { bytes in
            var start = bytes.baseAddress
            return d2i_X509(nil, &start, bytes.count)
        }
    }
}

extension TLSError {
    /// The same with the code for a fault in our own files, whatever OpenSSL's reason was.
    fileprivate var inConfiguration: TLSError { TLSError(.configuration, text) }
}

/// Chooses `cairn/1` from the client's list, or ends the handshake with an alert.
private let selectProtocol: SSL_CTX_alpn_select_cb_func = { _, chosen, chosenCount, offered, offeredCount, _ in
    let name = TLSContext.protocolName
    var start: UnsafeMutablePointer<UInt8>?
    var count: UInt8 = 0
    guard
        SSL_select_next_proto(&start, &count, name, UInt32(name.count), offered, offeredCount)
            == OPENSSL_NPN_NEGOTIATED,
        // The match lies in our list, which does not outlive this call: find it in the client's.
        let place = findProtocol(in: UnsafeBufferPointer(start: offered, count: Int(offeredCount)))
    else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    chosen?.pointee = place
    chosenCount?.pointee = UInt8(name.count - 1)
    return SSL_TLSEXT_ERR_OK
}

private func findProtocol(in offered: UnsafeBufferPointer<UInt8>) -> UnsafePointer<UInt8>? {
    let name = TLSContext.protocolName
    var index = 0
    while index < offered.count, index + 1 + Int(offered[index]) <= offered.count {
        if offered[index..<index + 1 + Int(offered[index])].elementsEqual(name) {
            return offered.baseAddress! + index + 1
        }
        index += 1 + Int(offered[index])
    }
    return nil
}

/// OpenSSL asks nobody when the client names no protocol at all: such a client is turned away here.
private let requireProtocol: SSL_client_hello_cb_fn = { session, alert, _ in
    var start: UnsafePointer<UInt8>?
    var count = 0
    guard
        SSL_client_hello_get0_ext(session, UInt32(TLSEXT_TYPE_application_layer_protocol_negotiation), &start, &count)
            == 1
    else {
        alert?.pointee = SSL_AD_NO_APPLICATION_PROTOCOL
        return SSL_CLIENT_HELLO_ERROR
    }
    return SSL_CLIENT_HELLO_SUCCESS
}
