internal import COpenSSL

/// One side of a TLS connection without a socket: ciphertext comes from and goes to the loop's ``TLSBuffers``.
///
/// Confined to the loop. After each call, also one that threw, the buffers' output must be sent: it may hold an alert.
public final class TLSSession {
    /// Plaintext bytes of one record at most.
    public static let recordBytes = 16 << 10
    /// A record's header, tag and type byte, and a record before it that changes the key.
    private static let recordOverhead = 64
    /// One key encrypts no more records: a third of what AES-GCM keeps its safety margin for (RFC 8446, 5.5), 128 GiB in large ones.
    var recordsPerKey = 1 << 23
    private var recordsWritten = 0

    public enum ReadOutcome: Equatable {
        case bytes(Int)
        /// The input is used up.
        case needsInput
        /// The peer said that it sends nothing more.
        case closed
    }

    private let ssl: OpaquePointer
    private let buffers: TLSBuffers
    /// Keeps the keys alive.
    private let context: TLSContext
    /// After a fatal error OpenSSL must not be asked to go on.
    private var failed = false
    /// Whether OpenSSL keeps its own buffers, 34 KiB, from one record to the next, or gives them back whenever they are empty. (OpenSSL 3.2
    /// and later keep none in either case.)
    public var keepsBuffers = false {
        didSet {
            guard keepsBuffers != oldValue else { return }
            if keepsBuffers {
                cairn_ssl_clear_mode(ssl, Int(SSL_MODE_RELEASE_BUFFERS))
            } else {
                cairn_ssl_set_mode(ssl, Int(SSL_MODE_RELEASE_BUFFERS))
                // Those with something in them go when that has been taken: so does one of which only a record's header has come,
                // which releases before 3.0.14 would free here while they still point into it (CVE-2024-4741).
                if SSL_rstate_string(ssl).map({ String(cString: $0) }) == "RH" { SSL_free_buffers(ssl) }
            }
        }
    }

    /// - Parameter host: the name or address that the server's certificate must carry; only for clients.
    public init(context: TLSContext, buffers: TLSBuffers, host: String? = nil) throws(TLSError) {
        guard let ssl = SSL_new(context.pointer), let bio = BIO_new(TLSBuffers.method) else {
            throw TLSError.taking(.configuration, "no TLS session")
        }
        self.ssl = ssl
        self.buffers = buffers
        self.context = context
        BIO_set_data(bio, buffers.window)
        BIO_set_init(bio, 1)
        SSL_set_bio(ssl, bio, bio)
        switch context.role {
        case .server: SSL_set_accept_state(ssl)
        case .client:
            SSL_set_connect_state(ssl)
            guard let host else { break }
            if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 {
                ERR_clear_error()
                guard SSL_set1_host(ssl, host) == 1, cairn_ssl_set_server_name(ssl, host) == 1 else {
                    throw TLSError.taking(.configuration, "host name \(host)")
                }
            }
        }
    }

    deinit { SSL_free(ssl) }

    /// Goes on with the handshake: true once it is done.
    public func handshake() throws(TLSError) -> Bool {
        forgetOthersErrors()
        let result = SSL_do_handshake(ssl)
        if result == 1 {
            guard hasProtocol else { throw fail(.handshake, "the peer does not speak cairn/1") }
            return true
        }
        guard SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ else {
            throw fail(.handshake, verifyFailure ?? "TLS handshake")
        }
        return false
    }

    /// Decrypts into `target`: at most one record.
    public func read(into target: UnsafeMutableRawBufferPointer) throws(TLSError) -> ReadOutcome {
        // OpenSSL would find that out as well, for a third of what decrypting a small record costs.
        if buffers.isInputUsedUp, SSL_has_pending(ssl) == 0 { return .needsInput }
        forgetOthersErrors()
        var count = 0
        let result = SSL_read_ex(ssl, target.baseAddress, target.count, &count)
        if result == 1 { return .bytes(count) }
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ: return .needsInput
        case SSL_ERROR_ZERO_RETURN: return .closed
        default: throw fail(.session, "TLS session")
        }
    }

    /// Encrypts from the start of `bytes` into the output, as much as fits there: gives the number of bytes taken.
    public func write(_ bytes: UnsafeRawBufferPointer) throws(TLSError) -> Int {
        forgetOthersErrors()
        var taken = 0
        while taken < bytes.count {
            let piece = min(bytes.count - taken, TLSSession.recordBytes)
            guard TLSBuffers.outputCapacity - buffers.output.count >= piece + TLSSession.recordOverhead else { break }
            if recordsWritten >= recordsPerKey { try changeKey() }
            var count = 0
            guard SSL_write_ex(ssl, bytes.baseAddress! + taken, piece, &count) == 1 else {
                throw fail(.session, "TLS session")
            }
            taken += count
            recordsWritten += 1
        }
        return taken
    }

    /// The next record that is written tells the peer first that a new key begins. The peer's own is its business.
    private func changeKey() throws(TLSError) {
        guard SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 else { throw fail(.session, "TLS key update") }
        recordsWritten = 0
    }

    /// Puts our "nothing more comes" into the output.
    public func shutDown() {
        guard !failed, SSL_is_init_finished(ssl) == 1 else { return }
        _ = SSL_shutdown(ssl)
        ERR_clear_error()
    }

    /// Who the peer is: once the handshake is done.
    public var peerCertificate: PeerCertificate? {
        guard let leaf = SSL_get0_peer_certificate(ssl) else { return nil }
        let chain = SSL_get_peer_cert_chain(ssl)
        // A client's view of the chain begins with the leaf, a server's does not (OpenSSL's own asymmetry).
        let first: Int32 = context.role == .client ? 1 : 0
        let count = cairn_x509s_count(chain)
        let intermediates = (min(first, count)..<count).compactMap {
            PeerCertificate.der(of: cairn_x509s_at(chain, $0))
        }
        return PeerCertificate(leaf, intermediates: intermediates)
    }

    /// What others left in the thread's error queue would be taken for this session's. To look is much cheaper than to clear.
    private func forgetOthersErrors() { if ERR_peek_error() != 0 { ERR_clear_error() } }

    private var hasProtocol: Bool {
        var start: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &start, &count)
        return UnsafeBufferPointer(start: start, count: Int(count)).elementsEqual(TLSContext.protocolName.dropFirst())
    }

    private var verifyFailure: String? {
        let result = SSL_get_verify_result(ssl)
        guard result != Int(X509_V_OK) else { return nil }
        return "certificate verification (\(String(cString: X509_verify_cert_error_string(result))))"
    }

    private func fail(_ code: TLSError.Code, _ context: String) -> TLSError {
        failed = true
        return TLSError.taking(code, context)
    }
}
