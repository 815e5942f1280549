internal import COpenSSL

/// A certificate revocation list (RFC 5280, 5): the serials that an authority takes back.
struct RevocationList {
    /// Rises with each list that an authority signs.
    let number: UInt64
    /// Seconds since 1970-01-01 UTC.
    let issuedAt: Int64
    /// When a reader should stop believing the list. Ours is replaced when something is revoked and not by the clock, so
    /// this is the end of the authority itself: a server must not turn everyone away because nobody was revoked for long.
    let nextUpdate: Int64
    let revoked: [(serial: CertificateSerial, at: Int64)]

    /// Signs the list, and gives it as PEM.
    func signedPEM<R>(
        by key: borrowing PrivateKey,
        of issuer: borrowing Certificate,
        _ take: (UnsafeRawBufferPointer) throws(PKIError) -> R
    ) throws(PKIError) -> R {
        guard let list = X509_CRL_new() else { throw .openSSL("make a revocation list") }
        defer { X509_CRL_free(list) }
        // 1 stands for version 2, which has extensions.
        guard X509_CRL_set_version(list, 1) == 1,
            X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer.handle)) == 1
        else { throw .openSSL("make a revocation list") }
        try CertificateTime.with(issuedAt) { (time) throws(PKIError) in
            guard X509_CRL_set1_lastUpdate(list, time) == 1 else { throw .openSSL("date a revocation list") }
        }
        try CertificateTime.with(nextUpdate) { (time) throws(PKIError) in
            guard X509_CRL_set1_nextUpdate(list, time) == 1 else { throw .openSSL("date a revocation list") }
        }
        for entry in revoked { try add(entry.serial, at: entry.at, to: list) }
        try addExtensions(to: list, issuer: issuer.handle)
        guard X509_CRL_sort(list) == 1, X509_CRL_sign(list, key.handle, EVP_sha256()) > 0 else {
            throw .openSSL("sign a revocation list")
        }
        return try PEM.text("encode a revocation list", write: { PEM_write_bio_X509_CRL($0, list) }, take: take)
    }

    private func add(_ serial: CertificateSerial, at time: Int64, to list: OpaquePointer) throws(PKIError) {
        guard let entry = X509_REVOKED_new() else { throw .openSSL("add to a revocation list") }
        var owned: OpaquePointer? = entry
        defer { X509_REVOKED_free(owned) }
        try serial.withInteger { (integer) throws(PKIError) in
            guard X509_REVOKED_set_serialNumber(entry, integer) == 1 else { throw .openSSL("set a revoked serial") }
        }
        try CertificateTime.with(time) { (time) throws(PKIError) in
            guard X509_REVOKED_set_revocationDate(entry, time) == 1 else { throw .openSSL("date a revocation") }
        }
        guard X509_CRL_add0_revoked(list, entry) == 1 else { throw .openSSL("add to a revocation list") }
        owned = nil
    }

    private func addExtensions(to list: OpaquePointer, issuer: OpaquePointer) throws(PKIError) {
        var context = X509V3_CTX()
        X509V3_set_ctx(&context, issuer, nil, nil, list, 0)
        guard let keyID = X509V3_EXT_conf_nid(nil, &context, NID_authority_key_identifier, "keyid:always") else {
            throw .openSSL("name the list's issuer")
        }
        defer { X509_EXTENSION_free(keyID) }
        guard X509_CRL_add_ext(list, keyID, -1) == 1 else { throw .openSSL("name the list's issuer") }
        guard let integer = ASN1_INTEGER_new() else { throw .openSSL("number a revocation list") }
        defer { ASN1_INTEGER_free(integer) }
        guard ASN1_INTEGER_set_uint64(integer, number) == 1,
            X509_CRL_add1_ext_i2d(list, NID_crl_number, integer, 0, 0) == 1
        else { throw .openSSL("number a revocation list") }
    }
}
