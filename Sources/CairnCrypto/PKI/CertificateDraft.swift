internal import COpenSSL

/// What a certificate is good for.
public enum CertificateRole: String, Sendable, CaseIterable {
    /// Signs certificates and revocation lists.
    case authority
    /// Shown by `cairnd`.
    case server
    /// Shown by callers.
    case client
}

/// Everything that a certificate will say, before it is signed.
struct CertificateDraft {
    /// The subject's only attribute, at most 64 characters (RFC 5280's upper bound).
    let commonName: String
    let serial: CertificateSerial
    let role: CertificateRole
    let validity: Validity
    let alternativeNames: [AlternativeName]

    /// Signs with the certificate's own key: an authority's root.
    func signed(by key: borrowing PrivateKey) throws(PKIError) -> Certificate {
        let certificate = try unsigned(for: key)
        guard X509_set_issuer_name(certificate.handle, X509_get_subject_name(certificate.handle)) == 1 else {
            throw .openSSL("set the issuer")
        }
        try addExtensions(to: certificate.handle, issuer: certificate.handle)
        try sign(certificate, with: key)
        return certificate
    }

    /// Signs with the authority's key for the holder of `subjectKey`.
    func signed(
        for subjectKey: borrowing PrivateKey,
        by key: borrowing PrivateKey,
        of issuer: borrowing Certificate
    ) throws(PKIError) -> Certificate {
        let certificate = try unsigned(for: subjectKey)
        guard X509_set_issuer_name(certificate.handle, X509_get_subject_name(issuer.handle)) == 1 else {
            throw .openSSL("set the issuer")
        }
        try addExtensions(to: certificate.handle, issuer: issuer.handle)
        try sign(certificate, with: key)
        return certificate
    }

    private func unsigned(for key: borrowing PrivateKey) throws(PKIError) -> Certificate {
        guard let handle = X509_new() else { throw .openSSL("make a certificate") }
        let certificate = Certificate(owning: handle)
        let keyHandle = key.handle
        // 2 stands for X.509 version 3.
        guard X509_set_version(handle, 2) == 1, X509_set_pubkey(handle, keyHandle) == 1 else {
            throw .openSSL("make a certificate")
        }
        let name = Array(commonName.utf8)
        let subject = X509_get_subject_name(handle)
        guard X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_FLAG, name, Int32(name.count), -1, 0) == 1 else {
            throw .openSSL("name the subject \(commonName)", code: .invalidArgument)
        }
        try serial.withInteger { (integer) throws(PKIError) in
            guard X509_set_serialNumber(handle, integer) == 1 else { throw .openSSL("set the serial number") }
        }
        try CertificateTime.with(validity.notBefore) { (time) throws(PKIError) in
            guard X509_set1_notBefore(handle, time) == 1 else { throw .openSSL("set the start of validity") }
        }
        try CertificateTime.with(validity.notAfter) { (time) throws(PKIError) in
            guard X509_set1_notAfter(handle, time) == 1 else { throw .openSSL("set the end of validity") }
        }
        return certificate
    }

    private func sign(_ certificate: borrowing Certificate, with key: borrowing PrivateKey) throws(PKIError) {
        guard X509_sign(certificate.handle, key.handle, EVP_sha256()) > 0 else { throw .openSSL("sign a certificate") }
    }

    /// The extensions in OpenSSL's configuration syntax. They are constants: names from people never get into that
    /// syntax, in which a comma would begin the next name.
    private var extensions: [(id: Int32, value: String)] {
        switch role {
        case .authority:
            [
                (NID_basic_constraints, "critical,CA:TRUE,pathlen:0"), (NID_key_usage, "critical,keyCertSign,cRLSign"),
                (NID_subject_key_identifier, "hash"),
            ]
        case .server, .client:
            [
                (NID_basic_constraints, "critical,CA:FALSE"), (NID_key_usage, "critical,digitalSignature"),
                (NID_ext_key_usage, role == .server ? "serverAuth" : "clientAuth"),
                (NID_subject_key_identifier, "hash"), (NID_authority_key_identifier, "keyid:always"),
            ]
        }
    }

    private func addExtensions(to certificate: OpaquePointer, issuer: OpaquePointer) throws(PKIError) {
        var context = X509V3_CTX()
        X509V3_set_ctx(&context, issuer, certificate, nil, nil, 0)
        for (id, value) in extensions {
            guard let made = X509V3_EXT_conf_nid(nil, &context, id, value) else { throw .openSSL("make an extension") }
            defer { X509_EXTENSION_free(made) }
            guard X509_add_ext(certificate, made, -1) == 1 else { throw .openSSL("add an extension") }
        }
        guard !alternativeNames.isEmpty else { return }
        guard let stack = OPENSSL_sk_new_null() else { throw .openSSL("make a list of names") }
        defer { GENERAL_NAMES_free(stack) }
        for name in alternativeNames {
            let made = try name.generalName()
            guard OPENSSL_sk_push(stack, made) > 0 else {
                GENERAL_NAME_free(made)
                throw .openSSL("make a list of names")
            }
        }
        let added = X509_add1_ext_i2d(certificate, NID_subject_alt_name, UnsafeMutableRawPointer(stack), 0, 0)
        guard added == 1 else { throw .openSSL("add the alternative names") }
    }
}
